"""Decoding, the 25 fps grid, sound, encoding."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import portrait, tone

from pipelines import media

NTSC = Fraction(30_000, 1001)


def numbered(path: Path, times: list[Fraction], size: int = 64) -> Path:
    """A lossless video whose frame i has grey value 2 i, shown at times[i]."""
    container = av.open(str(path), "w")
    stream = container.add_stream("ffv1", rate=25)
    stream.width = stream.height = size
    stream.pix_fmt = "bgr0"
    stream.codec_context.time_base = Fraction(1, 90_000)
    for i, time in enumerate(times):
        frame = av.VideoFrame.from_ndarray(np.full((size, size, 3), 2 * i, np.uint8), "rgb24").reformat(format="bgr0")
        frame.pts, frame.time_base = int(time * 90_000), Fraction(1, 90_000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
    container.close()
    return path


def shown(path: Path, **options: object) -> list[int]:
    return [int(frame[0, 0, 0]) // 2 for frame in media.read_frames(path, **options)]


@pytest.mark.parametrize(
    "fps", [Fraction(24), Fraction(30), Fraction(30_000, 1001), Fraction(60), Fraction(25), Fraction(10)]
)
def test_grid_takes_the_nearest_source_frame(tmp_path: Path, fps: Fraction) -> None:
    times = [i / fps for i in range(100)]
    got = shown(numbered(tmp_path / "a.mkv", times))
    # Matroska keeps milliseconds, so two frames may be equally near up to 1 ms.
    assert abs(len(got) - float(100 / fps * 25)) <= 1
    for k, i in enumerate(got):
        best = min(abs(t - Fraction(k, 25)) for t in times)
        assert abs(times[i] - Fraction(k, 25)) <= best + Fraction(2, 1000)


def test_25_fps_is_passed_through(tmp_path: Path) -> None:
    assert shown(numbered(tmp_path / "a.mkv", [Fraction(i, 25) for i in range(60)])) == list(range(60))


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(10, 200), min_size=5, max_size=40))
def test_variable_rate_keeps_the_clock(tmp_path_factory: pytest.TempPathFactory, steps: list[int]) -> None:
    """Irregular frame times in ms: each output frame is within half a source step of its time, in order."""
    times = [Fraction(t, 1000) for t in np.cumsum([0, *steps]).tolist()]
    got = shown(numbered(tmp_path_factory.mktemp("vfr") / "a.mkv", times))
    assert got == sorted(got)
    for k, i in enumerate(got):
        assert min(abs(t - Fraction(k, 25)) for t in times) == abs(times[i] - Fraction(k, 25))
    whole = int((times[-1] + times[-1] - times[-2]) * 25 + Fraction(25, 1000))
    assert whole <= len(got) <= whole + 1  # a frame that starts before the last source frame is never dropped


def test_a_late_first_frame_is_time_zero(tmp_path: Path) -> None:
    assert shown(numbered(tmp_path / "a.mkv", [Fraction(1, 2) + Fraction(i, 25) for i in range(20)])) == list(range(20))


def test_ffv1_is_exact_and_h264_is_visually_lossless(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    smooth = cv2.GaussianBlur(rng.integers(0, 255, (128, 128, 3), np.uint8), (0, 0), 3)
    frames = [np.roll(smooth, k, axis=1) for k in range(10)]
    for codec, least in (("ffv1", np.inf), ("h264", 42.0)):
        path = tmp_path / f"a{media.SUFFIX[codec]}"
        assert media.write_video(path, frames, codec=codec) == 10
        back = list(media.read_frames(path))
        mse = np.mean([(a.astype(float) - b) ** 2 for a, b in zip(frames, back, strict=True)])
        assert (10 * np.log10(255**2 / mse) if mse else np.inf) >= least


@pytest.mark.parametrize("codec", ["h264", "ffv1"])
def test_equal_frames_give_equal_bytes(tmp_path: Path, codec: media.Codec) -> None:
    frames = [np.full((64, 64, 3), 10 * k, np.uint8) for k in range(8)]
    digests = set()
    for name in ("one", "two"):
        path = tmp_path / f"{name}{media.SUFFIX[codec]}"
        media.write_video(path, frames, codec=codec, audio=tone(0.32))
        digests.add(media.file_sha256(path))
    assert len(digests) == 1


def test_colours_survive_whatever_the_matrix(tmp_path: Path) -> None:
    """Saturated colours from a BT.709 and a BT.601 file come back; the wrong matrix is off by 20 or more."""
    colours = np.zeros((64, 64, 3), np.uint8)
    colours[:32, :32], colours[:32, 32:], colours[32:] = (230, 20, 20), (20, 230, 20), (20, 20, 230)
    ours = tmp_path / "601.mp4"
    media.write_video(ours, [colours] * 3)
    hd = tmp_path / "709.mp4"
    container = av.open(str(hd), "w")
    stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
    stream.width = stream.height = 64
    stream.pix_fmt = "yuv420p"
    stream.codec_context.colorspace = 1
    for k in range(3):
        frame = av.VideoFrame.from_ndarray(colours, "rgb24").reformat(format="yuv420p", dst_colorspace="ITU709")
        frame.pts, frame.time_base = k, Fraction(1, 25)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
    container.close()
    for path in (ours, hd):
        frame = next(media.read_frames(path))
        for y, x in ((16, 16), (16, 48), (48, 32)):
            assert np.abs(frame[y, x].astype(int) - colours[y, x]).max() <= 4, path.name
    # OpenCV agrees on our own files: other tools see the same picture.
    assert np.abs(cv2.VideoCapture(str(ours)).read()[1][16, 16, ::-1].astype(int) - colours[16, 16]).max() <= 4


def test_rotation_is_honoured(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:, :48] = (255, 0, 0)  # left half red
    media.write_video(path, [picture] * 5)
    data = bytearray(path.read_bytes())
    # The display matrix of the track header: a quarter turn clockwise, as phones write it.
    tkhd = data.index(b"tkhd")
    matrix = tkhd + 4 + 40
    turned = np.array([0, 0x10000, 0, -0x10000, 0, 0, 96 << 16, 0, 0x40000000], ">i4").tobytes()
    data[matrix : matrix + 36] = turned
    path.write_bytes(bytes(data))
    info = media.probe(path)
    frame = next(media.read_frames(path))
    assert (info.width, info.height) == (64, 96)
    assert frame.shape == (96, 64, 3)
    top, bottom = frame[20, 32], frame[76, 32]
    assert top[0] > 200  # turned clockwise, the left side is on top
    assert bottom[0] < 60


def click_and_flash(path: Path, at: float, seconds: float, fps: Fraction, rate: int) -> Path:
    count = round(seconds * fps)
    flash = round(at * float(fps))
    frames = [np.full((64, 64, 3), 255 if k == flash else 16, np.uint8) for k in range(count)]
    audio = np.zeros(round(seconds * rate), np.float32)
    start = round(flash / float(fps) * rate)
    audio[start : start + rate // 200] = 0.9
    media.write_video(path, frames, fps, audio=audio, sample_rate=rate)
    return path


@pytest.mark.parametrize(
    ("fps", "rate"), [(Fraction(25), 16_000), (Fraction(30_000, 1001), 48_000), (Fraction(24), 44_100)]
)
def test_click_and_flash_stay_together(tmp_path: Path, fps: Fraction, rate: int) -> None:
    """Through AAC (with its priming), the container and the grid, sound and picture stay within a frame."""
    path = click_and_flash(tmp_path / "a.mp4", at=1.2, seconds=3, fps=fps, rate=rate)
    flash = int(np.argmax([frame.mean() for frame in media.read_frames(path)])) / 25
    audio = media.read_audio(path)
    click = int(np.argmax(np.abs(audio))) / 16_000
    assert abs(click - flash) <= 1 / 25


def test_a_late_audio_track_keeps_its_offset(tmp_path: Path) -> None:
    path = tmp_path / "late.mkv"
    container = av.open(str(path), "w")
    video = container.add_stream("ffv1", rate=25)
    video.width = video.height = 64
    video.pix_fmt = "bgr0"
    sound = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
    for k in range(50):
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24").reformat(format="bgr0")
        frame.pts, frame.time_base = k, Fraction(1, 25)
        container.mux(video.encode(frame))
    container.mux(video.encode(None))
    block = av.AudioFrame.from_ndarray((tone(1.0) * 32767).astype(np.int16)[None], format="s16", layout="mono")
    block.sample_rate, block.pts, block.time_base = 16_000, 8_000, Fraction(1, 16_000)
    container.mux(sound.encode(block))
    container.close()
    audio, start = media.read_audio_at(path)
    assert start == pytest.approx(0.5, abs=0.002)
    assert int(np.argmax(np.abs(audio) > 0.01)) / 16_000 == pytest.approx(0.5, abs=0.005)


def test_resampling_keeps_tones_and_removes_what_would_alias(tmp_path: Path) -> None:
    rate = 48_000
    t = np.arange(rate) / rate
    for hertz, kept in ((1000.0, True), (11_000.0, False)):
        path = tmp_path / f"{hertz:.0f}.wav"
        media.write_wav(path, (0.5 * np.sin(2 * np.pi * hertz * t)).astype(np.float32), rate)
        audio = media.read_audio(path)
        assert len(audio) == 16_000
        rms = float(np.sqrt(np.mean(audio[800:-800] ** 2)))
        assert rms == pytest.approx(0.5 / np.sqrt(2), rel=1e-3) if kept else rms < 1e-4


def test_wav_round_trip(tmp_path: Path) -> None:
    audio = np.clip(np.random.default_rng(0).normal(0, 0.5, 16_000), -1, 1).astype(np.float32)
    media.write_wav(tmp_path / "a.wav", audio)
    assert (
        np.abs(media.read_audio(tmp_path / "a.wav") - audio).max() <= 1 / 32768
    )  # full scale itself is clipped by one step


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.mp4", b"", "empty"),
        ("text.mp4", b"this is not a video" * 50, "not_media"),
        ("pointer.mp4", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "lfs_pointer"),
        ("zeros with spaces é.mp4", bytes(4096), "not_media"),
    ],
)
def test_what_is_not_media(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    for reader in (media.probe, media.read_audio, lambda p: list(media.read_frames(p))):
        with pytest.raises(media.MediaError) as caught:
            reader(path)
        assert caught.value.reason == reason
        assert name in str(caught.value)


def test_missing_tracks(tmp_path: Path, make_video) -> None:
    silent = make_video("silent.mp4", audio=False)
    with pytest.raises(media.MediaError, match="no audio track"):
        media.read_audio(silent)
    media.write_wav(tmp_path / "only.wav", tone(1.0))
    with pytest.raises(media.MediaError, match="no video track"):
        media.probe(tmp_path / "only.wav")


def test_a_playlist_opens_no_other_file(tmp_path: Path, make_video) -> None:
    target = make_video("secret.mp4")
    playlist = tmp_path / "list.m3u8"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{target}\n#EXT-X-ENDLIST\n")
    concat = tmp_path / "list.mp4"
    concat.write_text(f"ffconcat version 1.0\nfile '{target}'\n")
    for path in (playlist, concat):
        with pytest.raises(media.MediaError):
            list(media.read_frames(path))


def test_broken_timestamps_are_not_filled_with_hours(tmp_path: Path) -> None:
    times = [Fraction(k, 25) + (40_000 if k > 10 else 0) for k in range(20)]
    path = numbered(tmp_path / "a.mkv", times)
    with pytest.raises(media.MediaError, match="nothing for 40000 s after") as caught:
        list(media.read_frames(path))
    assert caught.value.reason == "timestamps"


def test_a_longer_sound_is_not_the_length_of_the_picture(tmp_path: Path) -> None:
    frames = [np.full((64, 64, 3), k, np.uint8) for k in range(50)]
    path = tmp_path / "a.mkv"
    media.write_video(path, frames, codec="ffv1", audio=tone(3.0))
    assert media.probe(path).duration == pytest.approx(2.0, abs=0.05)


def test_a_file_that_may_not_be_read(tmp_path: Path, make_video, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_video("a.mp4")

    def refuse(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(media.MediaError, match=r"a\.mp4: cannot be read \(Permission denied\)"):
        media.probe(path)


def test_kept_pictures_are_those_that_would_be_decoded_again(tmp_path: Path) -> None:
    path = numbered(tmp_path / "a.mkv", [Fraction(k, 30) for k in range(60)])
    fresh = list(media.read_frames(path))
    for keep in (0, 64 * 64 * 3 * 10, media.KEEP):  # none, some, all
        pictures = media.Pictures(path, keep=keep)
        assert sum(1 for _ in pictures.read(shrink=2)) == len(fresh)
        for count in (None, 7):
            again = list(pictures.read(num_frames=count))
            assert all(np.array_equal(a, b) for a, b in zip(fresh[:count], again, strict=True))


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    def frames():
        yield np.zeros((64, 64, 3), np.uint8)
        raise RuntimeError("the generator broke")

    with pytest.raises(RuntimeError, match="the generator broke"):
        media.write_video(tmp_path / "a.mp4", frames())
    with pytest.raises(ValueError, match="frame 1 is"):
        media.write_video(tmp_path / "a.mp4", [np.zeros((64, 64, 3), np.uint8), np.zeros((32, 64, 3), np.uint8)])
    with pytest.raises(ValueError, match="no frame"):
        media.write_video(tmp_path / "a.mp4", [])
    with pytest.raises(ValueError, match="even sides"):
        media.write_video(tmp_path / "a.mp4", [np.zeros((63, 64, 3), np.uint8)])
    assert list(tmp_path.iterdir()) == []


def test_real_files(real) -> None:
    """Every container and codec among the real clips; lengths as their headers say, to one frame."""
    for name in ("grid/bbaf2n.mpg", "syncnet/example.avi", "lrs3/QoT0S2vu9m4_00002.mp4", "talkvid/10/gt.mp4"):
        path = real(name)
        info = media.probe(path)
        frames = sum(1 for _ in media.read_frames(path, shrink=2))
        assert frames / 25 == pytest.approx(info.duration, abs=1 / 25)
        assert len(media.read_audio(path)) / 16_000 == pytest.approx(info.duration, abs=0.08)


def test_thirty_fps_lasts_as_long(real) -> None:
    path = real("mead/M030/video/front/sad/level_3/001.mp4")
    times = media.frame_times(path)
    assert len(times) / 25 == pytest.approx(media.probe(path).duration, abs=1 / 25)
    assert max(abs(float(t) - k / 25) for k, t in enumerate(times)) <= 0.5 / 30 + 1e-3


@pytest.mark.parametrize("side", [224, 240])
def test_equal_pictures_give_equal_bytes(tmp_path: Path, side: int) -> None:
    """x264 reads past the edge of such pictures unless told not to: what lies there differs from run to run."""
    frames = [cv2.resize(frame, (side, side)) for frame in portrait(0.5)]
    digests = set()
    for k in range(20):
        del_me = [np.full(k * 1000 + i * 64, k, np.uint8) for i in range(5)]  # another heap for each
        media.write_video(tmp_path / "a.mp4", frames, 25)
        digests.add(media.file_sha256(tmp_path / "a.mp4"))
        del del_me
    assert len(digests) == 1
