"""Does a generator use what it is given? Four questions, asked of one trained model on held-out demo clips: people and
sentences that no training has seen.

audio     Same person and emotion, the sounds of two sentences a and b. With mouth tracks of what was generated (g) and
          of the real clips (r): gain = mean of [r(ga, ra) + r(gb, rb) - r(ga, rb) - r(gb, ra)] / 2 over the pairs of
          sentences. 0 for a mouth that does not hear, 1 for one that follows only its own sentence.
emotion   Same person and sound, each of the five emotions in turn. share of frames in which a classifier trained on
          real demo clips names the emotion that was asked for; chance is 0.2. It sees the face mesh (shrunken linear
          discriminants) of pictures brought to 64 px, as the tiny presets make them, and knows the tested people from
          other sentences.
identity  csim_change: how far the mean similarity to the portrait of an emotion lies from that of neutral, at most.
lips      PSNR inside the mouth's box against the real clip, less that of the held portrait, all pictures at the tiny
          presets' 64 px; AV correlation with the own sound, less that with the other sentence's. psnr_known: the same
          PSNR for the people of the training, of whom it has seen other sentences (EAT-Face's protocol clip-half shares
          its people).

A control trained on shuffled conditions (every clip with the sound and emotion of another) must not pass.

    python tests/uses_inputs.py WORKSPACE --prepare     renders and prepares the demo with the held-out sentences
    python tests/uses_inputs.py WORKSPACE METHOD...     prints one line of figures each (METHOD real: the real clips)
    python tests/uses_inputs.py WORKSPACE --train METHOD...     trains and measures with three seeds, and the controls;
                                                        goes on where it stopped; WORKSPACE/uses-inputs.jsonl
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from itertools import combinations, islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import metrics
from benchmark import demo, engine, footage, generate, prepare, training, weights
from metrics.avsync import mouth_opening
from metrics.base import ClipViews, MetricError
from pipelines import crop, faces
from pipelines.datasets import demo as dataset
from reference_models.base import FPS, SAMPLE_RATE, Footage, Generator, Request

HELD_OUT = (4, 5, 6)  # sentences that no training has seen
KNOWN = "demo-known"
SIDE = 64  # px of the pictures whose mouths are compared
FRAMES = 40  # of each generated video: 1.6 s
EMOTIONS = ("angry", "happy", "neutral", "sad", "surprised")
RIGID = (33, 133, 362, 263, 168, 6, 197, 195, 5, 4, 1, 2, 98, 327, 127, 356, 234, 454)  # eyes, nose, temples
# Where those lie when the eyes' outer corners are 1 apart, x and y from their centre.
TEMPLATE = (
    (-0.492, -0.200), (-0.189, -0.173), (0.201, -0.176), (0.508, -0.206), (-0.008, -0.233), (-0.011, -0.146),
    (-0.014, -0.064), (-0.017, 0.014), (-0.020, 0.100), (-0.022, 0.201), (-0.021, 0.275), (-0.014, 0.329),
    (-0.222, 0.292), (0.207, 0.288), (-0.725, -0.141), (0.780, -0.156), (-0.721, 0.005), (0.780, -0.008),
)  # fmt: skip
LIPS = (61, 291, 0, 17, 13, 14)
EVERY = 4  # real frames that the classifier learns from

SEEDS = (0, 1, 2)
TRAININGS = {  # what `bench train` makes for a method
    "ours-p-tiny": ("dice-talk-embedder", "dice-talk"),
    "ours-v-tiny": ("dice-talk-embedder", "dice-talk"),
    "eat-face-tiny": ("eat-face",),
    "emotion-anchor-tiny": ("emotion-anchor",),
}

# Fixed before the first model was measured.
LEAST_GAIN_ERRORS = 2.0  # the gain's mean must exceed so many of its standard errors
LEAST_SHARE = 0.4  # twice chance
MOST_CSIM_CHANGE = 0.05


@dataclass(frozen=True, slots=True)
class Answers:
    """Figures of one model; see the text above. Of `pairs` pairs of sentences and `videos` videos of emotions."""

    gain: float
    gain_error: float
    share: float
    csim_change: float
    psnr_gain: float
    psnr_known: float
    av_gain: float
    pairs: int
    videos: int
    faceless: float  # share of generated frames without a face that FaceMesh finds

    @property
    def follows_audio(self) -> bool:
        return self.gain > LEAST_GAIN_ERRORS * self.gain_error

    @property
    def shows_emotion(self) -> bool:
        return self.share >= LEAST_SHARE

    @property
    def keeps_identity(self) -> bool:
        return self.csim_change <= MOST_CSIM_CHANGE


def prepare_demo(workspace: Path) -> None:
    """The demo dataset with the held-out sentences of the test people, and by itself those of the training's people,
    neutral, below WORKSPACE."""
    raw, workers = workspace / "raw" / "demo", engine.default_workers()
    demo.render(raw, workers)
    add_known(workspace)
    for job in dataset.jobs(raw, identities=_people("test"), sentences=HELD_OUT, levels=dataset.SUBSET_LEVELS):
        dataset.render_clip(job)
    prepare.prepare("demo", raw, prepare.data_folder(workspace, "demo"), split=dataset.split, workers=workers)


def add_known(workspace: Path) -> None:
    raw = workspace / "raw" / KNOWN
    for job in dataset.jobs(raw, identities=_people("train"), emotions=("neutral",), sentences=HELD_OUT):
        dataset.render_clip(job)
    prepare.prepare("demo", raw, prepare.data_folder(workspace, KNOWN), split=dataset.split)


def _people(split: str) -> list[str]:
    return [name for name in dataset.SUBSET_IDENTITIES if dataset.splits()[name] == split]


def held_out(clips: dict[str, list[Footage]]) -> list[Footage]:
    words = [dataset.sentence(number) for number in HELD_OUT]
    return [clip for clip in clips["test"] if clip.sentence in words]


def study(method: str, workspace: Path, seeds: tuple[int, ...] = SEEDS) -> Iterator[tuple[int, bool, Answers]]:
    """Train with each seed, on true and on shuffled conditions, and ask; (seed, shuffled, answers) as they come. Each
    training has a workspace of its own below WORKSPACE, in which it goes on after a kill."""
    for seed in seeds:
        for shuffled in (False, True):
            models = TRAININGS[method]
            own = workspace / f"{models[-1]}-{seed}{'-shuffled' * shuffled}"
            own.mkdir(parents=True, exist_ok=True)
            if not (own / "data").exists():
                (own / "data").symlink_to((workspace / "data").resolve())
            for model in models:
                chosen = training.Settings("tiny", seed=seed, options={"shuffle_conditions": True} if shuffled else {})
                at = own / "data" / "demo" / "manifest.parquet"
                made = training.train(model, [at], own, chosen).path.parent
                usual = own / "checkpoints" / f"{model}-tiny"  # where the method's file looks
                if not usual.exists():
                    usual.symlink_to(made)
            yield seed, shuffled, ask(method, own, seed)


class Real:
    """Not a method: the real clips themselves, to see what the figures of perfect videos would be."""

    def generate(self, request: Request) -> Iterator[NDArray[np.uint8]]:
        assert request.emotion_video is not None
        yield np.stack(list(islice(request.emotion_video.frames(), request.num_frames)))


def load(method_name: str, workspace: Path) -> Generator:
    if method_name == "real":
        return Real()
    return generate.build(generate.load_method(method_name, workspace), workspace)


def ask(method_name: str, workspace: Path, seed: int = 0) -> Answers:
    """Generate and measure, on the test people of WORKSPACE/data/demo; each video is FRAMES long."""
    generator = load(method_name, workspace)
    clips = footage.splits(workspace / "data" / "demo" / "manifest.parquet")
    tested = held_out(clips)
    classifier = _classifier([*clips["train"], *clips["val"], *(clip for clip in clips["test"] if clip not in tested)])
    people = sorted({clip.identity for clip in tested})
    heard, shown = [], []
    for person in people:
        own = [clip for clip in tested if clip.identity == person]
        heard += _heard(generator, [clip for clip in own if clip.emotion == "neutral"], seed)
        shown.append(_shown(generator, own, classifier, seed))
    gains = np.array([pair[0] for pair in heard])
    hits, similar, missing = (np.array(values) for values in zip(*shown, strict=True))
    known = footage.splits(workspace / "data" / KNOWN / "manifest.parquet")["train"]
    met = [_heard(generator, [clip for clip in known if clip.identity == name], seed) for name in _people("train")]
    return Answers(
        gain=round(float(gains.mean()), 3),
        gain_error=round(float(gains.std(ddof=1) / len(gains) ** 0.5), 3),
        share=round(float(hits.mean()), 3),
        csim_change=round(float(np.abs(similar.mean(0) - similar.mean(0)[EMOTIONS.index("neutral")]).max()), 3),
        psnr_gain=round(float(np.mean([pair[1] for pair in heard])), 2),
        psnr_known=round(float(np.mean([pair[1] for pairs in met for pair in pairs])), 2),
        av_gain=round(float(np.nanmean([pair[2] for pair in heard])), 3),
        pairs=len(gains),
        videos=len(EMOTIONS) * len(people),
        faceless=round(float(missing.mean()), 3),
    )


def _heard(generator: Generator, neutral: list[Footage], seed: int) -> Iterator[tuple[float, float, float]]:
    """Of each two sentences of a person: gain of the mouth, of the PSNR and of the AV correlation."""
    made = {clip.clip_id: _made(generator, neutral[0], clip, clip, "neutral", seed) for clip in neutral}
    tracks = {name: _track(frames) for name, frames in made.items()}
    for a, b in combinations(neutral, 2):
        mouths = {clip.clip_id: mouth_opening(tracks[clip.clip_id]) for clip in (a, b)}
        real = {clip.clip_id: mouth_opening(clip.points()[:FRAMES]) for clip in (a, b)}
        own = _r(mouths[a.clip_id], real[a.clip_id]) + _r(mouths[b.clip_id], real[b.clip_id])
        other = _r(mouths[a.clip_id], real[b.clip_id]) + _r(mouths[b.clip_id], real[a.clip_id])
        still = next(neutral[0].frames())
        closer = [_psnr(made[clip.clip_id], clip) - _psnr(still[None], clip) for clip in (a, b) if clip != neutral[0]]
        synced = [_av(tracks[x.clip_id], x) - _av(tracks[x.clip_id], y) for x, y in ((a, b), (b, a))]
        yield (own - other) / 2, float(np.mean(closer)), float(np.mean(synced))


def _shown(
    generator: Generator, own: list[Footage], classifier: LinearDiscriminantAnalysis, seed: int
) -> tuple[float, list[float], float]:
    """Of a person: share of frames with the emotion that was asked, similarity to the portrait by emotion, and share
    of frames without a face."""
    portrait, spoken = [clip for clip in own if clip.emotion == "neutral"][:2]
    similar, hits, missing = [], [], []
    for emotion in EMOTIONS:
        video = next(c for c in reversed(own) if c.emotion == emotion and c.sentence != spoken.sentence)
        frames = _made(generator, portrait, spoken, video, emotion, seed)
        points = _track(frames)
        seen = _track([_small(frame) for frame in frames])
        found = np.isfinite(seen).all((1, 2))
        named = classifier.predict(_shape(seen[found])) if found.any() else np.array([])
        hits.append(float((named == emotion).sum() / len(points)))
        missing.append(float(1 - found.mean()))
        similar.append(_csim(frames, points, portrait))
    return float(np.mean(hits)), similar, float(np.mean(missing))


def _small(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture with the detail of SIDE px, at its own size."""
    small = cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, frame.shape[1::-1], interpolation=cv2.INTER_CUBIC)


def _made(
    generator: Generator, portrait: Footage, spoken: Footage, shown: Footage, emotion: str, seed: int
) -> NDArray[np.uint8]:
    count = min(FRAMES, spoken.num_frames)

    def hidden() -> Iterator[NDArray[np.uint8]]:
        raise AssertionError("a one-shot method asked for the real frames")

    request = Request(
        reference=next(portrait.frames()),
        audio=spoken.audio()[: round(count * SAMPLE_RATE / FPS)],
        sample_rate=SAMPLE_RATE,
        emotion=emotion,
        intensity=3,
        num_frames=count,
        fps=FPS,
        seed=seed,
        target_frames=hidden,
        points=lambda: portrait.points()[0],
        emotion_video=shown,
    )
    return np.concatenate(list(generator.generate(request)))


def _track(frames: Iterable[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """(t, 478, 3), NaN where no face is found."""
    mesh = faces.FaceMesh()
    found = [mesh(frame) for frame in frames]
    mesh.close()
    return np.stack([one[0] if one else np.full((478, 3), np.nan, np.float32) for one in found])


def _r(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    both = np.isfinite(a[: len(b)]) & np.isfinite(b[: len(a)])
    a, b = a[: len(both)][both], b[: len(both)][both]
    if len(a) < FRAMES // 2 or a.std() < 1e-9 or b.std() < 1e-9:
        return 0.0  # a mouth that is not there, or does not move, follows nothing
    return float(np.corrcoef(a, b)[0, 1])


def _av(points: NDArray[np.float32], clip: Footage) -> float:
    count = min(len(points), clip.num_frames)
    sound = clip.audio()[: round(count * SAMPLE_RATE / FPS)]
    views = ClipViews(np.arange(count), FPS, landmarks=points[:count], waveform=sound, sample_rate=SAMPLE_RATE)
    try:
        return metrics.get("av-correlation/zero-lag")(fake=views)
    except MetricError:
        return 0.0  # the mouth does not move


def _psnr(frames: NDArray[np.uint8], clip: Footage) -> float:
    """Mean over frames, inside the box of the real mouth and half its size around."""
    values = []
    for k, (real, mesh) in enumerate(zip(clip.frames(), clip.points()[:FRAMES], strict=False)):
        lips = mesh[LIPS, :2] * SIDE / real.shape[0]
        margin = np.ptp(lips, 0) / 2
        (x0, y0), (x1, y1) = np.floor(lips.min(0) - margin).astype(int), np.ceil(lips.max(0) + margin).astype(int)
        made, true = (
            cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA)[y0:y1, x0:x1].astype(float)
            for picture in (frames[min(k, len(frames) - 1)], real)
        )
        values.append(10 * np.log10(255**2 / max(float(np.mean((made - true) ** 2)), 1e-9)))
    return float(np.mean(values))


def _csim(frames: NDArray[np.uint8], points: NDArray[np.float32], portrait: Footage) -> float:
    def views(pictures: NDArray[np.uint8], mesh: NDArray[np.float32]) -> ClipViews:
        found = np.isfinite(mesh).all((1, 2))
        cut = [
            crop.align(picture, faces.five_points(one), crop.ARCFACE_TEMPLATE, 112)
            if there
            else np.zeros((112, 112, 3), np.uint8)
            for picture, one, there in zip(pictures, mesh, found, strict=True)
        ]
        return ClipViews(np.arange(len(cut)), FPS, aligned112=np.stack(cut), found=found)

    if not np.isfinite(points).all((1, 2)).any():
        return 0.0
    reference = views(next(portrait.frames())[None], portrait.points()[:1])
    return _scorer()(fake=views(frames, points), reference=reference)


@cache
def _scorer() -> metrics.Scorer:
    network = weights.path("arcface-w600k-mbf", fetch=False)
    return metrics.get("csim/w600k_mbf-to-reference", weights=network)


def _classifier(clips: list[Footage]) -> LinearDiscriminantAnalysis:
    seen = []
    for clip in clips:
        points = _track([_small(frame) for frame in islice(clip.frames(), 0, None, EVERY)])
        seen.append((clip.emotion, _shape(points[np.isfinite(points).all((1, 2))])))
    words = np.concatenate([[word] * len(shapes) for word, shapes in seen])
    model = make_pipeline(StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"))
    return model.fit(np.concatenate([shapes for _, shapes in seen]), words)


def _shape(points: NDArray[np.float32]) -> NDArray[np.float64]:
    """(t, 478, 3) in pixels to (t, 956): the mesh in the image plane, turned and scaled so that eyes, nose and temples
    lie on those of a fixed face."""
    plane = points[:, :, 0].astype(np.float64) + 1j * points[:, :, 1]
    rigid = plane[:, RIGID]
    centred = rigid - rigid.mean(1, keepdims=True)
    turn = ((np.array(TEMPLATE) @ np.array([1, 1j])).conj() * centred).sum(1).conj() / (np.abs(centred) ** 2).sum(1)
    shape = (plane - rigid.mean(1, keepdims=True)) * turn[:, None]
    return np.concatenate([shape.real, shape.imag], axis=1)


def main(workspace: Path, *words: str) -> None:
    if words[0] == "--prepare":
        prepare_demo(workspace)
        return
    train, names = words[0] == "--train", [word for word in words if word != "--train"]
    for name in names:
        for seed, shuffled, answers in study(name, workspace) if train else [(0, False, ask(name, workspace))]:
            line = json.dumps({"method": name, "seed": seed, "shuffled": shuffled, **asdict(answers)})
            print(line, flush=True)  # noqa: T201
            if train:
                with (workspace / "uses-inputs.jsonl").open("a", encoding="utf-8") as file:
                    file.write(line + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
