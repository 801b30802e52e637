"""How fast is `bench prepare`? In one run, on the same clips and processes, against

(a) the parts that cannot be left out, each timed alone and added: decoding every frame once to RGB, FaceMesh on
    every frame, cropping and encoding every frame. A second look at the pictures, looking for other faces,
    sound, digests and the manifest are what is left to lose.
(b) the usual way: OpenCV decodes, a face is detected in every frame on its own, full frames are written as JPEG,
    read again, cropped and encoded.

Then the peak memory of one process for a 1080p clip of 8 s and of 16 s.

    python benchmark/perf/prepare.py --root RAW_MEAD [--workers 2] [--limit 8]
    python benchmark/perf/prepare.py                     (renders a few 1080p clips of the demo's faces)
"""

from __future__ import annotations

import argparse
import itertools
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmark import engine
from pipelines import media, stages
from pipelines.crop import Cropper
from pipelines.datasets import Source, demo, mead
from pipelines.faces import FaceMesh, track

SIZE = 256
Frame = NDArray[np.uint8]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="a MEAD tree; default: the demo's faces, enlarged to 1080p")
    parser.add_argument("--workers", type=int, default=engine.default_workers())
    parser.add_argument("--limit", type=int, default=8)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = arguments.root or render_1080p(Path(scratch) / "raw", arguments.limit)
        clips = [root / source.video for source in mead.index(root).sources][: arguments.limit]
        clips = list(itertools.islice(itertools.cycle(clips), max(len(clips), 2 * arguments.workers)))
        measure(clips, arguments.workers, Path(scratch))
        memory(clips[0], Path(scratch))


def render_1080p(root: Path, limit: int) -> Path:
    for job in demo.subset(root / "small")[: 3 * limit : 3]:
        demo.render_clip(job)
        big = (enlarged(frame) for frame in media.read_frames(job.path))
        media.write_video(root / "big" / job.name, big, audio=media.read_audio(job.path))
    return root / "big"


def enlarged(frame: Frame) -> Frame:
    out: Any = cv2.copyMakeBorder(cv2.resize(frame, (1080, 1080)), 0, 0, 420, 420, cv2.BORDER_REPLICATE)
    return out  # type: ignore[no-any-return]


def measure(clips: list[Path], workers: int, scratch: Path) -> None:
    frames = sum(len(media.frame_times(path)) for path in clips)
    print(f"{len(clips)} clips, {frames} frames at 25 fps, {workers} processes\n")
    parts = {name: busy(work, clips, workers) for name, work in PARTS.items()}
    bound = sum(parts.values())
    ours = busy(partial(warm_then, partial(prepare_one, out=scratch / "out")), clips, workers)
    usual = busy(partial(warm_then, partial(usual_way, out=scratch / "usual")), clips, workers)
    for name, seconds in parts.items():
        print(f"{name:34} {frames / seconds:8.1f} frames/s")
    print(f"{'(a) these added':34} {frames / bound:8.1f} frames/s")
    print(f"{'(b) the usual way':34} {frames / usual:8.1f} frames/s")
    print(f"{'bench prepare':34} {frames / ours:8.1f} frames/s")
    print(f"\nprepare / (a) {bound / ours:.2f}   prepare / (b) {usual / ours:.2f}")


def busy(work: Callable[[Path], float], clips: list[Path], workers: int) -> float:
    """Seconds that each process is busy when every clip is given to `work`, which returns its own seconds."""
    total = 0.0
    for outcome in engine.run(work, clips, workers=workers):
        if outcome.value is None:
            raise SystemExit(f"{outcome.item}: {outcome.error!r}")
        total += outcome.value
    return total / workers


def warm_then(function: Callable[[Path], object], path: Path) -> float:
    FaceMesh().close()  # loads MediaPipe, once a process
    return clock(lambda: function(path))


def clock(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def decode(path: Path) -> float:
    return clock(lambda: [None for _ in media.read_frames(path)])


def mesh(path: Path) -> float:
    frames = list(media.read_frames(path))
    find = FaceMesh()
    find(frames[0])
    return clock(lambda: [find(frame) for frame in frames])


def crop_and_encode(path: Path) -> float:
    frames = list(media.read_frames(path))
    height, width = frames[0].shape[:2]
    cropper = Cropper("square", track(lambda: frames).points, (width, height), SIZE, 25.0)
    with tempfile.TemporaryDirectory() as folder:
        cut = (cropper(frame, k) for k, frame in enumerate(frames))
        return clock(lambda: media.write_video(Path(folder) / "a.mp4", cut))


PARTS = {"decode": decode, "face mesh": mesh, "crop + encode": crop_and_encode}


def prepare_one(path: Path, out: Path) -> None:
    folder = tempfile.mkdtemp(dir=_made(out))
    source = Source("clip", "mead", "M000", "happy", 1, "front", None, "001", path.name, None)
    stages.prepare_clip(source, path.parent, Path(folder), stages.Settings(size=SIZE), "train", "perf")


def usual_way(path: Path, out: Path) -> None:
    import mediapipe as mp

    folder = Path(tempfile.mkdtemp(dir=_made(out)))
    detector = mp.solutions.face_mesh.FaceMesh(static_image_mode=True, max_num_faces=1, refine_landmarks=True)
    capture, boxes = cv2.VideoCapture(str(path)), []
    for k in itertools.count():
        more, frame = capture.read()
        if not more:
            break
        found = detector.process(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)).multi_face_landmarks
        height, width = frame.shape[:2]
        if found:
            points = np.array([(p.x * width, p.y * height) for p in found[0].landmark])
            boxes.append((points.min(0), points.max(0)))
        cv2.imwrite(str(folder / f"{k:06}.jpg"), frame)
    low, high = np.median([b[0] for b in boxes], 0), np.median([b[1] for b in boxes], 0)
    side = int(1.6 * max(high - low)) // 2 * 2
    left, top = (int(v) for v in np.maximum((low + high - side) / 2, 0))
    images: Iterator[Any] = (cv2.imread(str(name)) for name in sorted(folder.glob("*.jpg")))
    crops: Iterator[Any] = (cv2.resize(i[top : top + side, left : left + side, ::-1], (SIZE, SIZE)) for i in images)
    media.write_video(folder / "clip.mp4", crops)
    shutil.rmtree(folder)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def memory(path: Path, scratch: Path) -> None:
    once = list(itertools.islice(media.read_frames(path), 25))
    sound = media.read_audio(path)[:16_000]
    print("\npeak memory of one process")
    for seconds in (8, 16):
        clip = scratch / f"{seconds}.mp4"
        media.write_video(clip, once * seconds, audio=np.tile(sound, seconds))
        with get_context("spawn").Pool(1) as pool:
            print(f"  {seconds:3} s of video   {pool.apply(_peak, (clip, scratch / 'memory')):6.0f} MiB")


def _peak(path: Path, out: Path) -> float:
    prepare_one(path, out)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
