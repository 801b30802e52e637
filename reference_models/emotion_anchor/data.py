"""What the stages learn from: upright squares of faces, windows of sound, and which clips belong together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reference_models.base import Footage, GenerationError
from reference_models.emotion_anchor import audio, face
from reference_models.emotion_anchor.audio import Disentangler, Floats
from reference_models.emotion_anchor.presets import EMOTIONS, SPAN, Preset
from reference_models.training import TrainingError, cached, mismatched

VERSION = 1  # of what is cached
COMPARED = 32  # points in time at which sounds are compared


class Views:
    """Arrays of clips, computed once and mapped from `folder`."""

    def __init__(self, folder: Path, size: int) -> None:
        self._folder, self._size = folder, size

    def squares(self, clip: Footage) -> NDArray[np.uint8]:
        """(T, size, size, 3)."""

        def make() -> NDArray[np.uint8]:
            shown = zip(clip.frames(), clip.points(), strict=True)
            try:
                return np.stack([face.cut(frame, face.upright(p, self._size), self._size) for frame, p in shown])
            except GenerationError as error:
                raise TrainingError(f"{clip.clip_id}: {error}") from error

        return cached(self._folder, clip, f"emotion-anchor squares {self._size} {VERSION}", make)

    def mfcc(self, clip: Footage) -> Floats:
        """(4 T + 24, 12)."""
        kind = f"emotion-anchor mfcc {VERSION}"
        return cached(self._folder, clip, kind, lambda: audio.coefficients(clip.audio(), clip.num_frames))

    def codes(self, clip: Footage, network: Disentangler, digest: str) -> tuple[Floats, Floats]:
        """Content codes (T, content), and emotion codes (SPAN, emotion) of the whole sound; digest: of the weights."""

        def make() -> Floats:
            content, emotion = network.codes(self.mfcc(clip))
            both = torch.cat([content.flatten(), audio.spans(emotion, SPAN).flatten()])
            return both.cpu().numpy()

        both = cached(self._folder, clip, f"emotion-anchor codes {digest} {VERSION}", make)
        last = SPAN * network.classifier.in_features
        return both[:-last].reshape(clip.num_frames, -1), both[-last:].reshape(SPAN, -1)


def rng(seed: int, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, number])


def _one(of: Sized, random: np.random.Generator) -> int:
    return int(random.integers(len(of)))


def number_of(emotion: str) -> int:
    """Of an emotion's word; -1 of another."""
    return EMOTIONS.index(emotion) if emotion in EMOTIONS else -1


@dataclass(frozen=True, slots=True)
class Sounds:
    """Batches of the audio stage: {"same": 2 x (N, 28, 12), "other": likewise, "emotions": 2 x (N,)}, not standard."""

    clips: Sequence[Footage]
    pairs: Sequence[tuple[int, int]]
    views: Views
    items: int
    seed: int
    paths: dict[tuple[str, str], list[tuple[int, int]]] = field(default_factory=dict)  # how pairs were aligned
    alike: dict[tuple[str, str], list[Footage]] = field(default_factory=dict)  # clips by person and emotion

    def __call__(self, number: int) -> dict[str, Any]:
        random = rng(self.seed, number)
        rows = [self._item(random) for _ in range(self.items)]
        im, in_, jm, jn = (torch.from_numpy(np.stack([row[k] for row in rows])) for k in range(4))
        m, n = (torch.tensor([row[k] for row in rows]) for k in (4, 5))
        return {"same": (im, in_), "other": (jm, jn), "emotions": (m, n)}

    def _item(self, random: np.random.Generator) -> tuple[Any, ...]:
        pair = self.pairs[_one(self.pairs, random)]
        a, b = (self.clips[k] for k in (pair if random.random() < 0.5 else pair[::-1]))
        path, of_a, of_b = self._path(a, b), self._windows(a), self._windows(b)
        s, t = path[_one(path, random)]
        return (
            of_a[s],
            of_b[t],
            self._other(a, random),
            self._other(b, random),
            number_of(a.emotion),
            number_of(b.emotion),
        )

    def _path(self, a: Footage, b: Footage) -> list[tuple[int, int]]:
        if (a.key, b.key) not in self.paths:
            both = (windows.reshape(len(windows), -1) for windows in (self._windows(a), self._windows(b)))
            self.paths[a.key, b.key] = audio.aligned(*both)
        return self.paths[a.key, b.key]

    def _windows(self, clip: Footage) -> Floats:
        return audio.windows(np.asarray(self.views.mfcc(clip)))

    def _other(self, clip: Footage, random: np.random.Generator) -> Floats:
        """A window of the person in the clip's emotion."""
        if not self.alike:
            for one in self.clips:
                self.alike.setdefault((one.identity, one.emotion), []).append(one)
        alike = self.alike[clip.identity, clip.emotion]
        of = self._windows(alike[_one(alike, random)])
        drawn: Floats = of[_one(of, random)]
        return drawn


def same_content(clips: Sequence[Footage], views: Views) -> list[tuple[int, int]]:
    """Pairs of clips of one person in two emotions that say the same. Where sentences are not known (MEAD's numbers are
    of takes), each clip and the one that sounds most like it at any speed, if it is so the other way round too.

    Raises TrainingError where there is none.
    """
    groups: dict[tuple[str, str, str | None], list[int]] = {}
    for number, clip in enumerate(clips):
        if clip.emotion in EMOTIONS:
            groups.setdefault((clip.dataset, clip.identity, clip.sentence), []).append(number)
    pairs = []
    for (_, _, sentence), members in sorted(groups.items(), key=lambda group: group[1]):
        both = [(a, b) for a in members for b in members if a < b and clips[a].emotion != clips[b].emotion]
        pairs += both if sentence is not None else _likeliest(both, clips, views)
    if not pairs:
        raise TrainingError(
            f"{len(clips)} clips, and no person says the same in two of MEAD's emotions; the audio stage needs such "
            "pairs: train on MEAD or CREMA-D"
        )
    return pairs


def _likeliest(both: Sequence[tuple[int, int]], clips: Sequence[Footage], views: Views) -> list[tuple[int, int]]:
    shapes: dict[int, Floats] = {}
    for number in {k for pair in both for k in pair}:
        found = np.asarray(views.mfcc(clips[number]))
        rows = np.linspace(0, len(found) - 1, COMPARED).astype(int)
        shapes[number] = found[rows] - found.mean(0)
    nearest: dict[int, tuple[float, int]] = {}
    for a, b in both:
        apart = float(np.abs(shapes[a] - shapes[b]).mean())
        for here, there in ((a, b), (b, a)):
            nearest[here] = min(nearest.get(here, (np.inf, -1)), (apart, there))
    return [(a, b) for a, b in both if nearest[a][1] == b and nearest[b][1] == a]


def pixels(squares: NDArray[np.uint8]) -> Tensor:
    """(..., S, S, 3) uint8 to (..., 3, S, S) in [-1, 1]."""
    return torch.from_numpy(np.array(squares)).movedim(-1, -3).float() / 127.5 - 1


def recoloured(pictures: Tensor, random: np.random.Generator) -> Tensor:
    """(M, 3, S, S) of one item, mirrored or not, with other contrast and tint: more people than there are."""
    if random.random() < 0.5:
        pictures = pictures.flip(-1)
    gain, tint = 1 + 0.15 * random.standard_normal((3, 1, 1)), 0.15 * random.standard_normal((3, 1, 1))
    out: Tensor = (pictures * torch.from_numpy(gain).float() + torch.from_numpy(tint).float()).clamp(-1, 1)
    return out


def evened(pictures: Tensor, source: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures (..., 3, S, S) without the mean colour and the contrast of their source's face (..., 3, S, S), and both
    of these (..., 3, 1, 1): pictures = evened * spread + mean."""
    weight = features(source.shape[-1], source.device)
    mean = (weight * source).mean((-2, -1), keepdim=True)
    spread = (weight * (source - mean) ** 2).mean((-2, -1), keepdim=True).sqrt().clamp_min(0.02)
    return (pictures - mean) / spread, mean, spread


def features(size: int, device: torch.device) -> Tensor:
    """(size, size) of mean 1: more where eyes, nose and mouth lie in an upright square (ours: codes are to tell what
    moves before they tell hair and collar)."""
    at = (torch.arange(size, device=device) + 0.5) / size
    bump = torch.exp(-(((at - 0.5) / 0.22) ** 4))
    weight = 0.3 + bump * torch.exp(-(((at - 0.48) / 0.34) ** 4))[:, None]
    return weight / weight.mean()


class Sources:
    """Pictures that a clip's are made from: of the person's neutral clips, or of all where there are none."""

    def __init__(self, clips: Sequence[Footage], views: Views) -> None:
        self._views, self._of = views, dict[tuple[str, str], list[Footage]]()
        for clip in clips:
            self._of.setdefault((clip.dataset, clip.identity), []).append(clip)
        for person, own in self._of.items():
            self._of[person] = [clip for clip in own if clip.emotion == "neutral"] or own

    def __call__(self, clip: Footage, random: np.random.Generator) -> NDArray[np.uint8]:
        """(S, S, 3), one of them."""
        own = self._of[clip.dataset, clip.identity]
        squares = self._views.squares(own[_one(own, random)])
        drawn: NDArray[np.uint8] = squares[_one(squares, random)]
        return drawn


@dataclass(frozen=True, slots=True)
class Pictures:
    """Batches of the VQGAN's stage: {"pictures": (N, 3, S, S), "number": its number}."""

    clips: Sequence[Footage]
    views: Views
    recolour: bool
    items: int
    seed: int

    def __call__(self, number: int) -> dict[str, Any]:
        random = rng(self.seed, number)
        rows = []
        for _ in range(self.items):
            squares = self.views.squares(self.clips[_one(self.clips, random)])
            one = pixels(squares[_one(squares, random)])[None]
            rows.append(recoloured(one, random) if self.recolour and random.random() < 0.5 else one)
        return {"pictures": torch.cat(rows), "number": number}


@dataclass(frozen=True, slots=True)
class Sequences:
    """Batches of the transformer's stage, M items of two frames that follow each other.

    pictures (M, 3, 3, S, S): source, frame, next frame; content (M, 2, SPAN, content); words (M,), -1 where unknown;
    told (M,): whether the word takes the sound's place; emotion (M, SPAN, e): of anybody's clip in the same emotion,
    lest it tells what is said, and without a word of the clip itself

    heard   as the clips, with the sounds and emotions that are learned: their own, unless a control is trained
    """

    clips: Sequence[Footage]
    views: Views
    codes: Callable[[Footage], tuple[Floats, Floats]]
    heard: Sequence[Footage]
    preset: Preset
    seed: int
    items: int
    sources: Sources
    emotional: Mapping[str, Sequence[Footage]]

    def __call__(self, number: int) -> dict[str, Tensor]:
        random = rng(self.seed, number)
        rows = [self._item(random) for _ in range(self.items)]
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def _item(self, random: np.random.Generator) -> dict[str, Tensor]:
        chosen = int(_one(self.clips, random))
        clip, heard = self.clips[chosen], self.heard[chosen]
        frames, content = self.views.squares(clip), self.codes(heard)[0]
        at = int(random.integers(len(frames) - 1))
        shown = np.stack([self.sources(clip, random), frames[at], frames[at + 1]])
        near = audio.around(torch.from_numpy(np.array(content)), SPAN)
        alike = self.emotional.get(heard.emotion, [heard])
        emotion = self.codes(alike[_one(alike, random)])[1]
        word = number_of(heard.emotion)
        pictures = recoloured(pixels(shown), random) if self.preset.recolour else pixels(shown)
        if self.preset.evened:
            pictures = evened(pictures, pictures[:1])[0]
        return {
            "pictures": pictures,
            "content": near[[min(at, len(near) - 1), min(at + 1, len(near) - 1)]],
            "emotion": torch.from_numpy(np.array(emotion)),
            "words": torch.tensor(word),
            "told": torch.tensor(word >= 0 and random.random() < self.preset.words),
        }


def sequences(
    clips: Sequence[Footage],
    views: Views,
    codes: Callable[[Footage], tuple[Floats, Floats]],
    preset: Preset,
    seed: int,
    items: int,
) -> Sequences:
    """Clips of one frame are left out by the caller."""
    emotional: dict[str, list[Footage]] = {}
    for clip in clips:
        if clip.emotion in EMOTIONS:
            emotional.setdefault(clip.emotion, []).append(clip)
    heard = mismatched(clips, seed) if preset.shuffle_conditions else clips
    return Sequences(clips, views, codes, heard, preset, seed, items, Sources(clips, views), emotional)
