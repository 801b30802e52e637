"""Parts of longer videos: where reading begins, what box is cut, and what a list may get wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from samples import portrait, tone

from pipelines import media, stages
from pipelines.datasets import Cut, Source

CODE = 6  # bits of the frame number, drawn as black and white blocks


def numbered(frames: int, size: tuple[int, int] = (96, 64)) -> Iterator[np.ndarray]:
    """Frames that show their number in blocks of 16 pixels, which survive any codec."""
    for k in range(frames):
        picture = np.zeros((size[1], size[0], 3), np.uint8)
        for bit in range(CODE):
            picture[:, bit * 16 : bit * 16 + 16] = 255 * (k >> bit & 1)
        yield picture


def number(frame: np.ndarray) -> int:
    return sum((frame[:, bit * 16 + 4 : bit * 16 + 12].mean() > 127) << bit for bit in range(CODE))


@pytest.mark.parametrize("fps", [25, Fraction(30_000, 1001)])
@pytest.mark.parametrize("codec", ["h264", "ffv1"])
def test_a_part_is_what_the_whole_shows_there(tmp_path: Path, fps: Fraction | int, codec: media.Codec) -> None:
    path = tmp_path / f"a{media.SUFFIX[codec]}"
    sound = tone(60 / float(fps), 48_000)
    media.write_video(path, numbered(60), fps, codec=codec, audio=sound, sample_rate=48_000)
    whole = list(map(number, media.read_frames(path)))
    for k in (1, 7, 26, 31):
        part = [number(frame) for frame in media.read_frames(path, start=Fraction(k, 25), num_frames=12)]
        assert part == whole[k : k + 12]
    heard = media.read_audio(path)
    for start in (0.2, 1.24):
        wave, _ = media.read_audio_at(path, start=start, seconds=0.5)
        assert len(wave) == 8000
        # Both are cut to a sample of 16 kHz after resampling: at 220 Hz and 0.3 that is at most 0.03 apart.
        assert np.abs(wave[100:-100] - heard[round(start * 16_000) :][100:7900]).max() < 0.03


def test_a_part_beyond_the_end_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    media.write_video(path, numbered(30), 25)
    assert len(list(media.read_frames(path, start=1.0, num_frames=12))) == 5
    assert list(media.read_frames(path, start=3.0)) == []


def test_an_index_that_leads_too_far_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mkv"
    media.write_video(path, numbered(60), 25, codec="ffv1")  # every frame is a key frame

    def too_far(container: object, stream: object, time: Fraction) -> None:
        container.seek(int((time + Fraction(1, 5)) / stream.time_base), stream=stream)  # type: ignore[attr-defined]

    monkeypatch.setattr(media, "_seek", too_far)
    assert [number(f) for f in media.read_frames(path, start=1.6, num_frames=3)] == [40, 41, 42]


@pytest.mark.parametrize("path", ["grid/bbaf2n.mpg", "syncnet/example.avi", "hdtf/clips/WDA_KatieHill_000.mp4"])
def test_real_containers(real: Callable[[str], Path], path: str) -> None:
    whole = list(media.read_frames(real(path), num_frames=60))
    part = list(media.read_frames(real(path), start=1.4, num_frames=20))
    assert all(np.array_equal(a, b) for a, b in zip(part, whole[35:55], strict=True))


def recording(cut: Cut | None, name: str = "film.mp4") -> Source:
    return Source("clip", "hdtf", "who", "unlabelled", None, "front", None, "0", name, None, cut)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3 s of a swaying face at the right of a wide picture; a click at 1.5 s."""
    root = tmp_path_factory.mktemp("raw film ü")
    sound = tone(3.0, 48_000) * 0.01
    sound[72_000:72_048] = 0.9
    frames = (np.concatenate([np.full((256, 128, 3), 90, np.uint8), face], axis=1) for face in portrait(3.0, 25))
    media.write_video(root / "film.mp4", frames, 25, audio=sound, sample_rate=48_000)
    return root


def prepared(film: Path, out: Path, cut: Cut | None) -> stages.Clip:
    return stages.prepare_clip(recording(cut), film, out, stages.Settings(codec="ffv1"), "test", "0")


def test_a_clip_is_cut_in_time_and_space(film: Path, tmp_path: Path) -> None:
    clip = prepared(film, tmp_path, Cut(1.0, 2.4, (128, 0, 256, 256), 256))
    assert (clip.num_frames, clip.av_start) == (35, 0.0)
    wave = media.read_audio(tmp_path / clip.audio)
    assert len(wave) == 35 * 640
    click = int(np.argmax(np.abs(wave)))
    assert abs(click - 8000) <= 640  # 0.5 s after the cut, to a frame
    alone = film / "alone.mp4"
    media.write_video(alone, list(portrait(3.0, 25))[25:60], 25, audio=tone(1.4, 48_000), sample_rate=48_000)
    other = stages.prepare_clip(
        recording(None, "alone.mp4"), film, tmp_path / "o", stages.Settings(codec="ffv1"), "test", "0"
    )
    one, two = (
        np.stack(list(media.read_frames(path))).astype(int)
        for path in (tmp_path / clip.video, tmp_path / "o" / other.video)
    )
    assert one.shape == two.shape
    assert np.abs(one - two).mean() < 4  # the face that was filmed from 1.0 s on, coded twice


@pytest.mark.parametrize(
    ("cut", "reason"),
    [
        (Cut(0.0, 3.8), "times"),  # lists give whole seconds: half a second is forgiven
        (Cut(3.2, None), "times"),
        (Cut(0.0, 2.0, (0, 0, 256, 256), 720), "resolution"),
        (Cut(0.0, 2.0, (200, 0, 256, 256), 256), "crop_outside"),
        (Cut(0.0, 2.0, (-1, 0, 256, 256), None), "crop_outside"),
        (Cut(0.0, 2.0, (0, 0, 32, 32), None), "small_picture"),
        (Cut(0.0, 2.0, (0, 0, 128, 128), None), "no_face"),
        (Cut(1.0, 1.1), "too_short"),
    ],
)
def test_what_a_list_may_get_wrong_is_a_reason(film: Path, tmp_path: Path, cut: Cut, reason: str) -> None:
    with pytest.raises(stages.Reject) as caught:
        prepared(film, tmp_path, cut)
    assert caught.value.reason == reason
    assert "\n" not in str(caught.value)


def test_fractions_are_of_the_picture(film: Path, tmp_path: Path) -> None:
    pixels = prepared(film, tmp_path / "a", Cut(1.0, 1.4, (128, 0, 256, 256), 256))
    shares = prepared(film, tmp_path / "b", Cut(1.0, 1.4, fractions=(1 / 3, 0.0, 2 / 3, 1.0)))
    assert pixels.sha256 == shares.sha256


def test_half_a_second_beyond_the_end_is_forgiven(film: Path, tmp_path: Path) -> None:
    assert prepared(film, tmp_path, Cut(1.0, 3.3)).num_frames == 50
