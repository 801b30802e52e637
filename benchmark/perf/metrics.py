"""How fast are the metrics? In one run, on the same clips: everything that has its networks here, computed at once as
`bench eval` does, against the separate tools one after the other.

A separate tool is a process of its own that does what the public ones do: it decodes both sides for itself, finds the
face again where it needs one, hands the network one frame at a time, and takes SciPy's matrix square root of 2,048 by
2,048 (400 by 400 for FVD). Networks and formulas are the suite's own, so that nothing but the way of working differs.
SyncNet and the large networks that only their authors distribute are left out on both sides.

Prints seconds by the clock, seconds of all cores together (which other work on the machine disturbs less), and peak
memory; then ratios: of the tools' sums, and of their largest peak.

    python benchmark/perf/metrics.py [--clips FOLDER] [--frames 50]

FOLDER has real/NAME.mp4 and generated/NAME.mp4 of equal size, 25 fps, with sound; by default three films of the
demo's people are rendered, and the same sentences with another expression.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmark import views, weights
from benchmark.features import Store
from metrics import base
from metrics.base import ASKED, ClipViews, Extractor
from pipelines import faces, media
from pipelines.datasets import demo

Pair = tuple[Path, Path]  # generated, real
TOOLS = {
    "PSNR, SSIM": ("image-pairs",),
    "LPIPS": ("lpips-alex",),
    "CPBD": ("cpbd-asu",),
    "FID": ("fid-inception-tf1",),
    "FVD": ("i3d-16f",),
    "CSIM": ("arcface-w600k_mbf",),
    "LMD": ("landmarks",),
    "AV correlation": ("av-activity",),
    "emotion (fer-cnn)": ("fer-cnn",),
    "emotion (mini-Xception)": ("mini-xception",),
}
ONE_SIDED = ("cpbd-asu", "av-activity", "fer-cnn", "mini-xception")  # of the generated clip alone
DISTANCES = ("fid-inception-tf1", "i3d-16f")  # features of sets, between which there is a Fréchet distance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path)
    parser.add_argument("--frames", type=int, default=50, help="of each clip, from its beginning")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.clips or render(Path(scratch) / "clips")
        pairs = [(path, folder / "real" / path.name) for path in sorted((folder / "generated").glob("*.mp4"))]
        if not pairs:
            raise SystemExit(f"{folder}: no generated/*.mp4")
        print(f"{len(pairs)} pairs of clips, {arguments.frames} frames of each\n")
        ours = alone("the suite", partial(suite, pairs, arguments.frames))
        tools = [alone(title, partial(tool, names, pairs, arguments.frames)) for title, names in TOOLS.items()]
    clock, cores, peak = (np.array(column) for column in zip(*tools, strict=True))
    print(f"{'the tools, one by one':26} {clock.sum():8.1f} s {cores.sum():8.1f} core s {peak.max():8.0f} MiB")
    ratios = clock.sum() / ours[0], cores.sum() / ours[1], peak.max() / ours[2]
    print("\ntools / suite: time {:.2f}, core seconds {:.2f}, peak memory {:.2f}".format(*ratios))


def render(folder: Path) -> Path:
    for number, identity in enumerate(sorted(demo.IDENTITIES)[:3], 1):
        for side, emotion in (("real", "neutral"), ("generated", "happy")):
            job = demo.Job(folder / "raw", identity, emotion, 1, number)
            frames = media.read_frames(demo.render_clip(job), 25)
            media.write_video(folder / side / f"{identity}.mp4", frames, 25, audio=media.read_audio(job.path))
    return folder


def alone(title: str, work: Callable[[], None]) -> tuple[float, float, float]:
    """Seconds by the clock, core seconds, and peak memory in MiB of the new process in which `work` ran."""
    with get_context("spawn").Pool(1) as pool:
        clock, cores, peak = pool.apply(_measured, (work,))
    print(f"{title:26} {clock:8.1f} s {cores:8.1f} core s {peak:8.0f} MiB", flush=True)
    return clock, cores, peak


def _measured(work: Callable[[], None]) -> tuple[float, float, float]:
    clock, cores = time.perf_counter(), time.process_time()
    work()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return time.perf_counter() - clock, time.process_time() - cores, peak


def build(name: str) -> Extractor:
    spec = base.extractor(name)
    return spec.make({w: base.Weights(weights.path(w), weights.digest(w)) for w in spec.weights}, {})


def suite(pairs: Sequence[Pair], count: int) -> None:
    """One decode of each side for everything; then every metric of what was extracted."""
    made = {name: build(name) for names in TOOLS.values() for name in names}
    found: dict[tuple[str, str], list[Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        for pair in pairs:
            own, other = (film(path, store, count) for path in pair)
            once = {name: made[name] for name in made if name not in ONE_SIDED and not of_pairs(made[name])}
            for side, results in (
                ("generated", views.extract(own, other, made)),
                ("real", views.extract(other, None, once)),
            ):
                for name, features in results.items():
                    if isinstance(features, Exception):
                        raise features
                    found.setdefault((side, name), []).append(features)
    for name in base.names():
        score(base.metric(name), found)


def of_pairs(made: Extractor) -> bool:
    return any(view.startswith("real.") for view in made.views)


def film(path: Path, store: Store, count: int) -> views.Video:
    digest = media.file_sha256(path)
    source = views.Source(path, digest, path, digest)
    seen = views.survey(source, store, num_frames=count)
    return views.Video(source, seen, min(count, seen.num_frames), None)


def score(metric: base.Metric, found: dict[tuple[str, str], list[Any]]) -> None:
    """The metric, where what it needs was extracted; of its clips one by one, or of their set."""
    columns: list[list[Any]] = []
    for side, name in metric.needs:
        clips = found.get(("real" if side in ("real", "reference") else "generated", name))
        if clips is None and (side, name) != ASKED:
            return
        columns.append(clips or [{"emotion": np.array("happy"), "identity": np.array("A")}] * len(columns[0]))
        if side == "reference":
            columns[-1] = [{key: array[:1] for key, array in clip.items()} for clip in columns[-1]]
    try:
        if metric.level == "set":
            metric.compute(*columns)
        else:
            for clip in zip(*columns, strict=True):
                metric.compute(*clip)
    except base.MetricError:  # these few clips lack some emotions
        return


def tool(names: Sequence[str], pairs: Sequence[Pair], count: int) -> None:
    """The usual way: both sides decoded by itself, one frame at a time, SciPy's square root."""
    for name in names:
        made = build(name)
        sets: list[list[NDArray[Any]]] = [[], []]
        for generated, real in pairs:
            if of_pairs(made):
                for one, other in zip(frames_of(generated, made, count), frames_of(real, made, count), strict=False):
                    made([ClipViews(index=one.index, fps=25, frames=one.frames, real=other)])
                continue
            for k, path in enumerate((generated,) if name in ONE_SIDED else (generated, real)):
                clip = frames_of(path, made, count)
                # I3D and the correlation take a clip; all others are given one frame after the other.
                whole = name in ("i3d-16f", "av-activity")
                for features in [made(clip)] if whole else (made([frame]) for frame in clip):
                    if name in DISTANCES:
                        sets[k].append(features["features"])
        if name in DISTANCES:
            frechet(*(np.concatenate(side).astype(np.float64) for side in sets))


def frames_of(path: Path, made: Extractor, count: int) -> Iterator[ClipViews]:
    """One frame at a time, with the face where it is needed: found anew in each frame, as the public tools do."""
    needed = {view.removeprefix("real.") for view in made.views}
    mesh = faces.FaceMesh() if needed & {"landmarks", "aligned112"} else None
    wave = media.read_audio(path, views.SAMPLE_RATE) if "waveform" in needed else None
    for k, frame in enumerate(media.read_frames(path, views.FPS, num_frames=count)):
        points = np.full((1, faces.NUM_POINTS, 3), np.nan, np.float32)
        found = [] if mesh is None else mesh(frame)
        if found:
            points[0] = found[0]
        seen = views.Survey((frame.shape[1], frame.shape[0]), points)
        crop = aligned(frame, seen.points[0]) if "aligned112" in needed else None
        yield ClipViews(
            index=np.array([k]),
            fps=views.FPS,
            frames=frame[None],
            landmarks=points,
            aligned112=crop,
            found=seen.found,
            waveform=None if wave is None else wave[k * views.SAMPLES : (k + 1) * views.SAMPLES],
            sample_rate=views.SAMPLE_RATE,
        )
    if mesh is not None:
        mesh.close()


def aligned(frame: NDArray[np.uint8], points: NDArray[np.float32]) -> NDArray[np.uint8]:
    from pipelines import crop

    return crop.align(frame, faces.five_points(points), crop.ARCFACE_TEMPLATE, 112)[None]


def frechet(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    from scipy.linalg import sqrtm

    one, other = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = sqrtm(one @ other).real
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(one + other - 2 * root))


if __name__ == "__main__":
    main()
