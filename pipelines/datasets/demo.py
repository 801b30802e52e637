"""The demo dataset: talking faces made at run time, in the layout and with the media of MEAD.

**Synthetic.** Everybody in it is a morph of the same two portraits, every voice is espeak-ng's, every expression
is a warp. It exists so that the whole suite runs on real files (29.97 fps video, 48 kHz sound, names by MEAD's
grammar) without any licence; numbers on it say nothing about generalisation, nor about any real person.

Faces       Eileen Collins (NASA, S93-38309; `skimage.data.astronaut`) and Grace Hopper (U.S. Navy; matplotlib's
            sample data `grace_hopper.jpg`). Both are works of the United States government in the public domain
            and come inside packages that the suite needs anyway.
Speech      espeak-ng (GPL-3.0-or-later, run as a program of its own) from `espeakng-loader`.
Making      demo_speech.py: prosody by emotion and level, phoneme times, mouth shapes.
            demo_people.py, demo_mesh.py: shape and texture morphed on the FaceMesh mesh.
            demo_face.py: warps by landmarks, eyelids, mouth interior.
            demo_motion.py: expressions, blinks, head.

Numbering. `<NNN>` is the number of the sentence in SENTENCES, from 001, for everybody and every emotion. That
holds here by construction and must not be assumed of MEAD.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import numpy as np

from pipelines.datasets import Index, Source, demo_motion, mead
from pipelines.datasets.demo_face import Face
from pipelines.datasets.demo_people import Look
from pipelines.datasets.demo_speech import SAMPLE_RATE, loudness, mouth_track, prosody, speak
from pipelines.manifest import Rejected
from pipelines.media import write_video
from pipelines.splits import Card, make_card

FPS = Fraction(30_000, 1001)

SENTENCES = (
    "The boat moved slowly out of the harbour.",
    "We will meet my father before noon.",
    "Please bring both papers to the office.",
    "Nobody told me about the new plan.",
    "She found a small box above the door.",
    "They have always lived by the river.",
)
EMOTIONS = ("neutral", "happy", "surprised", "angry", "sad")
LEVELS = (1, 2, 3)
AMOUNT = {1: 0.45, 2: 0.72, 3: 1.0}  # of the full expression


@dataclass(frozen=True, slots=True)
class Identity:
    """A person of the dataset; `pitch` is added to the emotion's."""

    split: str
    voice: str
    pitch: int
    look: Look


_PLAIN = (1.0, 1.0, 1.0)
_GREY = ((176, 178, 182), (96, 100, 108))
_BLUE = ((150, 172, 198), (62, 84, 118))
_GREEN = ((160, 182, 166), (72, 98, 84))
_SAND = ((206, 192, 168), (132, 112, 88))
_ROSE = ((200, 172, 172), (118, 84, 90))
_SLATE = ((120, 128, 140), (44, 50, 60))

# Morph weights (shape, texture) occur in one split only.
# fmt: off
IDENTITIES = {
    "W101": Identity("train", "en-us+f2", 6, Look(
        "astronaut", "astronaut", 0.08, 0.10, False, _PLAIN, _PLAIN, _PLAIN, _GREY, -0.4)),
    "W102": Identity("train", "en-us+f4", 0, Look(
        "hopper", "hopper", 0.92, 0.90, False, _PLAIN, _PLAIN, _PLAIN, _BLUE, 0.3)),
    "M103": Identity("train", "en-us+m3", 0, Look(
        "hopper", "astronaut", 0.65, 0.40, True, (0.95, 0.92, 0.90), (0.8, 0.8, 0.9), (0.8, 1.1, 1.2), _SAND, -0.8,
        jaw=1.08, nose=1.10, brow=-0.02)),
    "M104": Identity("train", "en-us+m7", -4, Look(
        "hopper", "hopper", 0.75, 0.80, True, (0.70, 0.62, 0.56), (0.9, 0.9, 0.9), (0.7, 0.6, 0.6), _GREEN, 0.7,
        jaw=1.08, nose=1.08, mouth=0.95)),
    "W105": Identity("val", "en-us+f5", 4, Look(
        "astronaut", "astronaut", 0.55, 0.70, False, (0.82, 0.74, 0.68), (0.40, 0.35, 0.35), (0.6, 0.9, 1.2), _ROSE,
        0.2, mouth=1.10)),
    "M106": Identity("val", "en-us+m1", 3, Look(
        "hopper", "astronaut", 0.35, 0.60, False, (1.03, 0.98, 0.95), (0.7, 0.8, 1.0), (0.8, 1.0, 1.3), _SLATE, 0.6,
        jaw=1.04)),
    "W107": Identity("test", "en-us+Annie", 2, Look(
        "astronaut", "astronaut", 0.25, 0.30, True, (1.02, 0.97, 0.95), (1.25, 0.80, 0.55), (0.7, 1.1, 0.8), _SLATE,
        -0.2, jaw=0.94, nose=0.92, mouth=1.06, brow=0.02)),
    "W108": Identity("test", "en-us+f3", -3, Look(
        "astronaut", "hopper", 0.45, 0.50, True, (0.94, 0.90, 0.86), (0.55, 0.45, 0.40), (0.9, 0.7, 1.3), _GREEN, 0.8,
        jaw=1.05, nose=1.05)),
}
# fmt: on

# What `make demo` renders: 6 people x 5 emotions x 3 sentences, emotions at full intensity.
SUBSET_IDENTITIES = ("W101", "W102", "M103", "W105", "W107", "W108")
SUBSET_SENTENCES = (1, 2, 3)
SUBSET_LEVELS = (3,)

CARD = (
    "Synthetic. Every identity of every split is a morph of the same two public-domain portraits (Eileen Collins, "
    "NASA; Grace Hopper, U.S. Navy). Splits share no identity and no morph weight, but they share this ancestry: "
    "numbers on this dataset check the software and say nothing about generalisation. `bench demo` renders a subset: "
    "6 of the 8 identities, 5 emotions (neutral at level 1, the others at level 3), 3 of the 6 sentences."
)


def splits() -> dict[str, str]:
    """Identity -> "train", "val" or "test"."""
    return {name: identity.split for name, identity in IDENTITIES.items()}


def sentence(number: int) -> str:
    """Text of the clips called `<number>.mp4`. Raises ValueError for a number that the dataset does not have."""
    if not 1 <= number <= len(SENTENCES):
        raise ValueError(f"sentence {number} of the demo dataset: expected 1 to {len(SENTENCES)}")
    return SENTENCES[number - 1]


@dataclass(frozen=True, slots=True)
class Job:
    """One clip to make."""

    root: Path
    identity: str
    emotion: str
    level: int
    number: int

    @property
    def name(self) -> str:
        """Path below the root, by MEAD's grammar."""
        return f"{self.identity}/video/front/{self.emotion}/level_{self.level}/{self.number:03d}.mp4"

    @property
    def path(self) -> Path:
        return self.root / self.name


def jobs(
    root: Path,
    *,
    identities: Sequence[str] = tuple(IDENTITIES),
    emotions: Sequence[str] = EMOTIONS,
    sentences: Sequence[int] = tuple(range(1, len(SENTENCES) + 1)),
    levels: Sequence[int] = LEVELS,
) -> list[Job]:
    """The clips of a (sub)set, person by person. Neutral has level 1 only, whatever `levels` says."""
    return [
        Job(Path(root), identity, emotion, level, number)
        for identity in identities
        for emotion in emotions
        for level in ((1,) if emotion == "neutral" else levels)
        for number in sentences
    ]


def subset(root: Path) -> list[Job]:
    """What `make demo` renders."""
    return jobs(root, identities=SUBSET_IDENTITIES, sentences=SUBSET_SENTENCES, levels=SUBSET_LEVELS)


@lru_cache(maxsize=len(IDENTITIES))
def _face(identity: str) -> Face:
    return Face(IDENTITIES[identity].look)


def render_clip(job: Job) -> Path:
    """Make one clip unless its file is there: files appear whole or not at all. Returns the file's path.

    Equal jobs give equal bytes, in any order and any process.
    """
    if job.path.exists():
        return job.path
    seed = int.from_bytes(hashlib.sha256(job.name.encode()).digest()[:4], "big")
    rng = np.random.default_rng(seed)
    identity = IDENTITIES[job.identity]
    amount = 0.0 if job.emotion == "neutral" else AMOUNT[job.level]
    how = prosody(job.emotion, amount, identity.pitch, rng)
    utterance = speak(sentence(job.number), identity.voice, how, seed=seed >> 1)
    count = int(utterance.seconds * FPS)
    times = (np.arange(count) + 0.5) / float(FPS)  # a frame shows the middle of its time
    audio = utterance.audio[: round(count / FPS * SAMPLE_RATE)]
    mouth = mouth_track(utterance, times)
    moves = demo_motion.expression_moves(job.emotion, amount, mouth, times, rng)
    poses = demo_motion.poses(job.emotion, amount, loudness(utterance, times), times, rng)
    face = _face(job.identity)
    frames = (face.draw(*frame) for frame in zip(moves, poses, demo_motion.tongue_track(mouth).tolist(), strict=True))
    write_video(job.path, frames, FPS, audio=audio, sample_rate=SAMPLE_RATE)
    return job.path


def index(root: Path) -> Index:
    """The rendered tree, read by MEAD's own code, with what each clip says: here the take's number is the sentence's.

    Raises DatasetError as mead.index().
    """
    found = mead.index(root, "demo")
    known = [source for source in found.sources if 1 <= int(source.take) <= len(SENTENCES)]
    foreign = [
        Rejected("demo", source.video, "index", "take", f"the demo dataset has sentences 1 to {len(SENTENCES)}")
        for source in found.sources
        if source not in known
    ]
    sources = [dataclasses.replace(source, sentence=sentence(int(source.take))) for source in known]
    return Index(sources, found.rejected + foreign)  # a subset lacks most cells by intention


def split(sources: Sequence[Source]) -> Card:
    """The dataset's own split, whose card states the shared ancestry. Raises SplitError for a foreign identity."""
    held = {source.identity for source in sources}
    return make_card("demo", {name: where for name, where in splits().items() if name in held}, sources, CARD)
