"""`bench figures grid`: frames of clips side by side, as the papers show their results."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from matplotlib.figure import Figure

from benchmark import configs, generate, matching, protocol
from benchmark.errors import BenchError
from benchmark.figures import Drawn, draw, read_csv
from benchmark.generate import Made
from benchmark.protocol import Pair, Protocol
from leaderboards import figures
from leaderboards.figures import Picture
from pipelines import media
from pipelines.datasets import printable
from pipelines.media import MediaError

At = Literal["word", "time", "emotion"]
SPREAD = 5  # frames of a clip where no times are asked for
TRUTH = "ground-truth"  # the method that copies the real videos
LABEL_COLUMNS = ("clip", "start", "label")

Video = Path | str  # a file, or the reason why there is none


def grid(
    asked: Protocol,
    clips: Sequence[str],
    methods: Sequence[str],
    workspace: Path,
    *,
    at: At,
    times: Sequence[float] = (),
    labels: Path | None = None,
) -> Drawn:
    """Frames of clips: rows the reference, the ground truth and each method (DICE-Talk's Figs. 3 and 5, EAT-Face's 3
    and 4). A frame at t s is number round(25 t); where there is none, its place tells why.

    clips     pair ids of the protocol
    methods   names of generated methods, or "name=folder" for videos made elsewhere, matched as by `bench eval`
    at        columns: "time", the `times` of each clip in s, by default five spread evenly; "word", what `labels`, a
              CSV file with the columns clip, start (s) and label, has for each clip; "emotion", one frame of each clip
              at the only one of `times`, by default its middle, with rows for each identity

    Raises BenchError for clips and methods that are not there (with the nearest name), options that do not go together,
    labels that cannot be read, and with at = "emotion" for two clips of one identity and emotion.
    """
    _together(at, times, labels)
    if TRUTH in methods:
        raise BenchError(f"--methods {TRUTH}: the ground truth always has a row of its own; leave it out")
    members = {pair.pair_id: pair for pair in protocol.members(asked, workspace)}
    pairs = [_known(clip, members) for clip in _once(clips, "--clips")]
    rows: list[tuple[str, Callable[[Pair], Video]]] = [
        ("Reference", partial(_reference, asked, workspace)),
        ("Ground truth", partial(_truth, asked, workspace)),
        *(_method(name, asked, workspace, list(members)) for name in _once(methods, "--methods")),
    ]
    names = [printable(name) for name, _ in rows]
    videos = [find for _, find in rows]
    if at == "emotion":
        figure = _by_emotions(pairs, names, videos, times)
    else:
        spoken = _labels(labels, pairs) if labels else {}
        figure = _by_times(pairs, names, videos, times, spoken)
    more = f"+{len(pairs) - 1}" if len(pairs) > 1 else ""
    return draw(figure, workspace, asked.name, f"grid-{at}-{pairs[0].pair_id}{more}")


def _together(at: At, times: Sequence[float], labels: Path | None) -> None:
    if (at == "word") != (labels is not None):
        raise BenchError("--labels FILE.csv goes with --at word: it says where the words or phonemes of a clip begin")
    if at == "word" and times:
        raise BenchError("--times does not go with --at word: --labels says when")
    if at == "emotion" and len(times) > 1:
        raise BenchError(f"--at emotion shows one frame of each clip; {len(times)} --times were given")
    for time in times:
        if not 0 <= time < 86_400:
            raise BenchError(f"--times {time:g}; expected seconds after the clip's first frame")


def _once(names: Sequence[str], option: str) -> Sequence[str]:
    if not names:
        raise BenchError(f"{option} names nothing; expected names with commas between")
    if len(set(names)) < len(names):
        raise BenchError(f"{option} names {max(names, key=list(names).count)!r} twice")
    return names


def _known(clip: str, members: Mapping[str, Pair]) -> Pair:
    if clip not in members:
        hint = configs.nearest(clip, list(members))
        raise BenchError(f"--clips {clip!r} is none of the {len(members)} pairs of the protocol; {hint}")
    return members[clip]


def _by_times(
    pairs: Sequence[Pair],
    names: Sequence[str],
    videos: Sequence[Callable[[Pair], Video]],
    times: Sequence[float],
    spoken: Mapping[str, Sequence[tuple[float, str]]],
) -> Figure:
    """Columns are moments of each clip, one clip beside the other. The reference, a still, stands there once a clip."""
    pictures: list[list[Picture]] = [[] for _ in names]
    heads: list[str] = []
    groups = []
    for pair in pairs:
        moments = spoken.get(pair.pair_id) or [(time, f"{time:g} s") for time in times or _spread(pair)]
        heads += [label for _, label in moments]
        groups.append((printable(pair.pair_id), len(moments)))
        for row, find in enumerate(videos):
            if row == 0:
                pictures[row] += [*_frames(find(pair), [0.0]), *[None] * (len(moments) - 1)]
            else:
                pictures[row] += _frames(find(pair), [time for time, _ in moments])
    return figures.grid(pictures, names, heads, column_groups=groups)


def _by_emotions(
    pairs: Sequence[Pair], names: Sequence[str], videos: Sequence[Callable[[Pair], Video]], times: Sequence[float]
) -> Figure:
    """Columns are emotions, in the order of the vocabulary; every identity has rows of its own."""
    of: dict[tuple[str, str], Pair] = {}
    for pair in pairs:
        key = pair.target.identity, pair.emotion
        first = of.setdefault(key, pair)
        if first is not pair:
            raise BenchError(
                f"--clips {first.pair_id} and {pair.pair_id} both show {key[0]}, {key[1]}; give one of them"
            )
    emotions = [word for word in figures.EMOTIONS if any(word == emotion for _, emotion in of)]
    people = list(dict.fromkeys(identity for identity, _ in of))
    pictures: list[list[Picture]] = []
    for identity in people:
        for row, find in enumerate(videos):
            line: list[Picture] = []
            for emotion in emotions:
                pair_or_none = of.get((identity, emotion))
                if pair_or_none is None:
                    line.append("no such clip among those asked for")
                else:
                    middle = pair_or_none.target.num_frames // 2 / float(media.FPS)
                    line += _frames(find(pair_or_none), [0.0] if row == 0 else [*times] or [middle])
            pictures.append(line)
    groups = [(printable(identity), len(names)) for identity in people]
    return figures.grid(pictures, [*names] * len(people), emotions, row_groups=groups)


def _spread(pair: Pair) -> list[float]:
    """The middles of equal parts of a clip, on its frames."""
    return [(2 * k + 1) * pair.target.num_frames // (2 * SPREAD) / float(media.FPS) for k in range(SPREAD)]


def _frames(video: Video, times: Sequence[float]) -> list[Picture]:
    """The frames at those times, or why there are none."""
    if isinstance(video, str):
        return [printable(video)] * len(times)
    wanted = [round(time * float(media.FPS)) for time in times]
    try:
        frames = enumerate(media.read_frames(video, num_frames=max(wanted) + 1))
        found = {number: frame for number, frame in frames if number in wanted}
    except MediaError as error:
        return [printable(_reason(error))] * len(times)
    return [found.get(number, f"ends before {time:g} s") for number, time in zip(wanted, times, strict=True)]


def _reason(error: MediaError) -> str:
    return str(error).partition(": ")[2] or str(error)


def _reference(asked: Protocol, workspace: Path, pair: Pair) -> Video:
    if pair.reference is None:
        return pair.error or "the dataset has no reference"
    return _prepared(asked, workspace, pair.reference.video, pair.reference.sha256)


def _truth(asked: Protocol, workspace: Path, pair: Pair) -> Video:
    if pair.target.still:
        return "a still portrait: nobody recorded this"
    return _prepared(asked, workspace, pair.target.video, pair.target.sha256)


def _prepared(asked: Protocol, workspace: Path, video: str, sha256: str) -> Video:
    try:
        return protocol.intact(protocol.folder(asked, workspace) / video, sha256, asked.dataset)
    except MediaError as error:
        return _reason(error)


def _method(
    words: str, asked: Protocol, workspace: Path, pair_ids: Sequence[str]
) -> tuple[str, Callable[[Pair], Video]]:
    """What a method is called, and where its video of a pair is."""
    name, given, elsewhere = words.partition("=")
    if given:
        folder = Path(elsewhere)
        if not folder.is_dir():
            raise BenchError(f"--methods {words!r}: {printable(folder)} is no folder")
        return name, partial(_elsewhere, matching.match(pair_ids, matching.videos(folder)))
    defined = configs.available("methods", workspace)
    made = {path.name for path in (workspace / "generated").glob("[!.]*") if path.is_dir()}
    if name not in {*defined, *made}:
        hint = configs.nearest(name, sorted({*defined, *made}))
        raise BenchError(f"--methods {name!r} is no method; {hint} Videos made elsewhere are given as NAME=FOLDER")
    title = generate.load_method(name, workspace).title if name in defined else name
    return title, partial(_generated, generate.folder(name, asked, workspace))


def _elsewhere(found: matching.Match, pair: Pair) -> Video:
    if pair.pair_id in found.ambiguous:
        return "ambiguous: several videos fit"
    return found.found.get(pair.pair_id, "no video was given")


def _generated(folder: Path, pair: Pair) -> Video:
    """The video that `bench generate` recorded; what happened otherwise."""
    video = folder / f"{pair.pair_id}.mp4"
    try:
        made = Made(**json.loads(video.with_suffix(".json").read_text(encoding="utf-8")))
        if made.error is not None:
            return f"not generated: {made.error}"
        return video if made.sha256 == media.file_sha256(video) else "is not the video that was generated"
    except FileNotFoundError:
        return "not generated"
    except (OSError, ValueError, TypeError):
        return "the record of its generation is damaged"


def _labels(path: Path, pairs: Sequence[Pair]) -> dict[str, list[tuple[float, str]]]:
    """(start in s, label) in order of time, of each pair. Raises BenchError naming the line."""
    lines = read_csv(path, "a CSV file of labels")
    head = lines[0] if lines else []
    lacking = [name for name in LABEL_COLUMNS if name not in head]
    if lacking:
        raise BenchError(f"{path}: no column {', '.join(lacking)}; labels have {', '.join(LABEL_COLUMNS)}")
    found: dict[str, list[tuple[float, str]]] = {pair.pair_id: [] for pair in pairs}
    for number, line in enumerate(lines[1:], start=2):
        field = dict(zip(head, line, strict=False))
        clip, start, label = (field.get(name, "").strip() for name in LABEL_COLUMNS)
        try:
            time = float(start)
        except ValueError:
            time = math.nan
        if not 0 <= time < 86_400 or not label:
            raise BenchError(f"{path}: line {number}: start {start!r}, label {label!r}; expected seconds and a text")
        if clip in found:
            found[clip].append((time, printable(label)))
    for clip, moments in found.items():
        if not moments:
            raise BenchError(f"{path}: no labels of {clip}")
    return {clip: sorted(moments) for clip, moments in found.items()}
