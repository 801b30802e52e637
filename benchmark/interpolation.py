"""`bench figures interpolation`: one portrait and sentence, from one emotion to another (DICE-Talk, Figs. 4d and 5)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmark import configs, generate, protocol, requests
from benchmark.errors import BenchError
from benchmark.figures import Drawn, draw
from benchmark.protocol import Pair, Protocol
from leaderboards import figures
from leaderboards.figures import Picture
from pipelines import media
from pipelines.datasets import printable
from reference_models.base import FPS, GenerationError, Request
from reference_models.dice_talk.sample import OursP, between, changing

Felt = Callable[[NDArray[np.floating[Any]]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Asked:
    """What to draw.

    pairs    of emotions, a row each;  columns: shares of the second emotion from 0 to 1, or moments of the change
    change   one video in which the emotion changes, instead of a video for each share
    seconds  of each video
    """

    pairs: Sequence[tuple[str, str]]
    columns: int = 5
    change: bool = False
    seconds: float = 1.0


def interpolation(name: str, clip: str, asked: Asked, of: Protocol, workspace: Path, device: str = "cpu") -> Drawn:
    """A row of frames for each pair of emotions, by a method that has priors of emotions (Ours-P). Every video has the
    same noise, sound and portrait.

    name   of the method;  clip: id of the protocol's pair that gives portrait and sound

    Without a change the frame in the middle of each video is shown, else frames spread evenly. Raises BenchError for
    another method or clip, files that are missing, and emotions without a prior.
    """
    if asked.columns < 2 or not 0.2 <= asked.seconds <= 60:
        raise BenchError(f"{asked.columns} columns, {asked.seconds:g} s; expected at least 2, and 0.2 to 60 s")
    members = {pair.pair_id: pair for pair in protocol.members(of, workspace)}
    if clip not in members:
        hint = configs.nearest(clip, list(members))
        raise BenchError(f"--clip {clip!r} is none of the {len(members)} pairs of the protocol; {hint}")
    generator = generate.build(generate.load_method(name, workspace), workspace, device)
    if not isinstance(generator, OursP):
        raise BenchError(
            f"{name} has no priors of emotions to go between; expected ours-p, ours-p-tiny, or one like them"
        )
    try:
        request = _request(members[clip], of, workspace, asked.seconds)
        pictures = [_row(generator, request, pair, asked) for pair in asked.pairs]
    except (GenerationError, media.MediaError) as error:
        raise BenchError(" ".join(str(error).split())) from error
    shares = np.linspace(0, 1, asked.columns)
    heads = [f"{share * asked.seconds:.2g} s" if asked.change else f"{share:.2g}" for share in shares]
    rows = [f"{printable(a)} to {printable(b)}" for a, b in asked.pairs]
    figure = figures.grid([[request.reference, *row] for row in pictures], rows, ["Reference", *heads])
    kind = "change" if asked.change else "interpolation"
    more = f"+{len(asked.pairs) - 1}" if len(asked.pairs) > 1 else ""
    return draw(figure, workspace, name, f"{kind}-{clip}-{asked.pairs[0][0]}-{asked.pairs[0][1]}{more}")


def _request(pair: Pair, of: Protocol, workspace: Path, seconds: float) -> Request:
    if pair.reference is None:
        raise BenchError(f"--clip {pair.pair_id}: has no reference ({pair.error})")
    folders = protocol.folder(of, workspace), protocol.emotion_folder(of, workspace)
    given = requests.build(pair, pair, pair, of.seed, *folders, sees_target=False)
    return replace(given, num_frames=max(2, round(seconds * FPS)), fps=FPS)


def _row(generator: OursP, request: Request, pair: tuple[str, str], asked: Asked) -> list[Picture]:
    a, b = (generator.prior(emotion) for emotion in pair)
    last = request.num_frames - 1
    if asked.change:
        felt = changing([(0.0, a), (last / FPS, b)])
        numbers = np.linspace(0, last, asked.columns).round().astype(int)
        return list(_frames(generator, request, felt, numbers))
    shown: list[Picture] = []
    for share in np.linspace(0, 1, asked.columns):
        felt = changing([(0.0, between(a, b, float(share)))])
        shown += _frames(generator, request, felt, np.array([request.num_frames // 2]))
    return shown


def _frames(generator: OursP, request: Request, felt: Felt, numbers: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
    """The frames of these numbers, which rise."""
    wanted, at = list(numbers), 0
    for chunk in generator.animate(request, felt):
        while wanted and wanted[0] < at + len(chunk):
            yield chunk[wanted.pop(0) - at]
        at += len(chunk)
