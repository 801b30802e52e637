"""What the comparisons with other implementations look at: real clips as arrays, and sounds."""

from __future__ import annotations

from functools import cache
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmark import views
from benchmark.features import Store
from metrics.base import ClipViews
from pipelines import media

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
MEAD = {
    "happy": "mead/W036/video/front/happy/level_3/007.mp4",
    "surprised": "mead/W023/video/front/surprised/level_2/010.mp4",
    "angry": "mead/M030/video/front/angry/level_3/016.mp4",
    "sad": "mead/M030/video/front/sad/level_3/001.mp4",
    "disgusted": "mead/M003/video/front/disgusted/level_1/015.mp4",
}
SPEECH = ("speech/angry1.wav", "speech/happy.wav", "speech/sad.wav")
SCENES = (MEAD["sad"], "hdtf/clips/WDA_KatieHill_000.mp4", "generated/edtalk/demo_EDTalk_A.mp4", "syncnet/example.avi")
SIZE, COUNT = 256, 32  # of a clip around the face


def frames(name: str, count: int, step: int = 1, start: int = 0, size: int | None = None) -> np.ndarray:
    """Every `step`-th frame from `start`, (count, H, W, 3) uint8 RGB; the middle `size` pixels, all by default."""
    read = islice(media.read_frames(SHARED / name, 25), start, start + count * step, step)
    stack = np.stack(list(read))
    if size is not None:
        top, left = (stack.shape[1] - size) // 2, (stack.shape[2] - size) // 2
        stack = np.ascontiguousarray(stack[:, top : top + size, left : left + size])
    return stack


@cache
def pairs() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(generated, real) by name: two runs of a method, two takes of a person, a film and itself half a second on."""
    return {
        "EDTalk, two of its runs": (
            frames("generated/edtalk/demo_EDTalk_A_using_weights.mp4", 2, 60),
            frames("generated/edtalk/demo_EDTalk_A.mp4", 2, 60),
        ),
        "MEAD M030, sad and angry": (frames(MEAD["sad"], 2, 30, 5, 320), frames(MEAD["angry"], 2, 30, 5, 320)),
        "TalkVid 10, half a second apart": (
            frames("talkvid/10/gt.mp4", 2, 25, 12, 256),
            frames("talkvid/10/gt.mp4", 2, 25, 0, 256),
        ),
    }


def spliced() -> np.ndarray:
    """Stretches of four films one after the other, (100, 100, 100, 3) uint8."""
    return np.concatenate([frames(name, 25, size=200)[:, ::2, ::2] for name in SCENES])


def samples(name: str) -> np.ndarray:
    """Two seconds of sound, (32,000,) int16 at 16 kHz."""
    wave = media.read_audio(SHARED / name)[:32_000].astype(np.float64)
    return np.clip(np.round(wave * 32_768), -32_768, 32_767).astype(np.int16)


@cache
def mead(emotion: str) -> ClipViews:
    """A clip of MEAD as `clip` makes it, once for all tests."""
    with TemporaryDirectory() as store:
        return clip(MEAD[emotion], Path(store))


def clip(name: str, store: Path, count: int = COUNT) -> ClipViews:
    """All views of a clip's first frames, cut around the face to SIZE, as `bench eval` makes them."""
    path = SHARED / name  # a full path stays itself
    digest = media.file_sha256(path)
    source = views.Source(path, digest, path, digest)
    found = views.survey(source, Store(store), num_frames=count)
    video = views.Video(source, found, count, SIZE)
    wave = video.waveform()
    return views._views(video, 0, np.stack(list(video.frames())), wave, aligned=True)
