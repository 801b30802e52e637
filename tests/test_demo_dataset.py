"""The demo dataset: its names, its media, and what can be measured on the faces that it renders."""

import re
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest

from benchmark import engine
from pipelines import faces, media
from pipelines.datasets import demo, demo_motion, demo_speech
from pipelines.datasets.demo_face import MOVES, Face, Pose

MEAD = re.compile(
    r"(M|W)\d{3}/video/front/(angry|contempt|disgusted|fear|happy|neutral|sad|surprised)/level_[123]/\d{3}\.mp4"
)
HAPPY_LOW, HAPPY, ANGRY = ("W101", "happy", 1, 1), ("W101", "happy", 3, 1), ("W107", "angry", 3, 3)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips, made one after the other in this process."""
    root = tmp_path_factory.mktemp("demo")
    for clip in (HAPPY_LOW, HAPPY, ANGRY):
        demo.render_clip(demo.Job(root, *clip))
    return root


@cache
def tracked(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks (T, 478, 2) at 25 fps with every face found, and the RMS of the sound of each frame (T,)."""
    found = faces.track(lambda: media.read_frames(path))
    assert found.detected.all()
    points = found.points[..., :2]
    audio = media.read_audio(path, 16_000)
    audio = np.pad(audio, (0, max(0, 640 * len(points) - len(audio))))[: 640 * len(points)]
    return points, np.sqrt((audio.reshape(-1, 640) ** 2).mean(1))


def opening(points: np.ndarray) -> np.ndarray:
    lips = np.linalg.norm(points[:, 13] - points[:, 14], axis=1)
    return lips / np.linalg.norm(points[:, 10] - points[:, 152], axis=1)


def smile(points: np.ndarray) -> float:
    """Width of the mouth in eye distances."""
    width = np.linalg.norm(points[:, 61] - points[:, 291], axis=1)
    return float(np.mean(width / np.linalg.norm(points[:, 33] - points[:, 263], axis=1)))


def correlation(one: np.ndarray, other: np.ndarray, lag: int = 0) -> float:
    """Pearson's r of one[t + lag] and other[t]."""
    n = min(len(one), len(other))
    one, other = one[:n], other[:n]
    return float(np.corrcoef(one[max(0, lag) : n + min(0, lag)], other[max(0, -lag) : n - max(0, lag)])[0, 1])


def test_tree_is_meads() -> None:
    everything = demo.jobs(Path("raw"))
    assert len({job.name for job in everything}) == len(everything)
    assert all(MEAD.fullmatch(job.name) for job in everything)
    assert {job.level for job in everything if job.emotion == "neutral"} == {1}
    assert len(demo.IDENTITIES) >= 6
    sentences = {(job.identity, job.emotion): set() for job in everything}
    for job in everything:
        sentences[job.identity, job.emotion].add(demo.sentence(job.number))
    assert len(sentences) == 5 * len(demo.IDENTITIES)
    assert all(said == set(demo.SENTENCES) for said in sentences.values())
    assert set(demo.subset(Path("raw"))) <= set(everything)
    with pytest.raises(ValueError, match="expected 1 to 6"):
        demo.sentence(7)


def test_splits_share_no_identity_and_no_morph_weight() -> None:
    splits = demo.splits()
    for one in ("train", "val", "test"):
        others = [i.look for i in demo.IDENTITIES.values() if i.split != one]
        for look in (i.look for i in demo.IDENTITIES.values() if i.split == one):
            assert look.shape not in {other.shape for other in others}
            assert look.texture not in {other.texture for other in others}
    subset = [splits[name] for name in demo.SUBSET_IDENTITIES]
    assert len(subset) >= 6
    assert subset.count("test") >= 2
    assert set(subset) == {"train", "val", "test"}
    assert "same two public-domain portraits" in demo.CARD


def test_media_is_2997_fps_with_48_khz_sound(root: Path) -> None:
    path = demo.Job(root, *HAPPY).path
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert container.streams.video[0].average_rate == Fraction(30_000, 1001)
        assert container.streams.audio[0].rate == 48_000
        assert sorted(s.type for s in container.streams) == ["audio", "video"]
    seconds = len(media.frame_times(path)) / 25
    assert 1.2 < seconds < 4
    assert abs(len(media.read_audio(path, 48_000)) / 48_000 - seconds) < 0.08


@pytest.mark.usefixtures("one_pool")
def test_bytes_depend_on_the_job_alone(root: Path, tmp_path: Path) -> None:
    """Rendered third in this process or first in another: the same file."""
    (outcome,) = engine.run(demo.render_clip, [demo.Job(tmp_path, *ANGRY)], workers=1)
    assert outcome.error is None
    assert outcome.item.path.read_bytes() == demo.Job(root, *ANGRY).path.read_bytes()


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    job = demo.Job(tmp_path, *HAPPY)
    job.path.parent.mkdir(parents=True)
    job.path.write_bytes(b"already here")
    demo.render_clip(job)
    assert job.path.read_bytes() == b"already here"


def test_lips_follow_the_speech(root: Path) -> None:
    clips = [tracked(demo.Job(root, *clip).path) for clip in (HAPPY, ANGRY)]
    (lips_1, sound_1), (lips_2, sound_2) = [(opening(points), sound) for points, sound in clips]
    own = [correlation(lips_1, sound_1), correlation(lips_2, sound_2)]
    swapped = [correlation(lips_1, sound_2), correlation(lips_2, sound_1)]
    assert min(own) > 0.5
    assert np.mean(own) > np.mean(swapped) + 0.2
    for lips, sound in ((lips_1, sound_1), (lips_2, sound_2)):
        assert max(range(-6, 7), key=lambda lag: correlation(lips, sound, lag)) in (-1, 0, 1)


def test_smile_grows_with_the_level(root: Path) -> None:
    low, high = (smile(tracked(demo.Job(root, *clip).path)[0]) for clip in (HAPPY_LOW, HAPPY))
    angry = smile(tracked(demo.Job(root, *ANGRY).path)[0])
    assert high > low + 0.04
    assert low > angry


def test_expressions_grow_with_the_level() -> None:
    times = np.arange(40) / 30
    mouth = np.zeros((40, 5), np.float32)
    for emotion, parts in demo_motion.EXPRESSIONS.items():
        apex = [
            demo_motion.expression_moves(emotion, amount, mouth, times, np.random.default_rng(4)).max(0)
            for amount in (0.0, *demo.AMOUNT.values())
        ]
        for name in set(parts) - {"lid_close", "brow_out"}:  # blinks, and a brow that goes down
            amounts = [float(moves[MOVES.index(name)]) for moves in apex]
            assert amounts == sorted(amounts), (emotion, name)
            assert amounts[-1] > amounts[1] > 0, (emotion, name)


def test_mouth_shows_teeth_only_when_open() -> None:
    face = Face(demo.IDENTITIES["W101"].look)
    still = Pose(0, 0, 0, 0, 0, 1)
    closed, opened = np.zeros(len(MOVES)), np.zeros(len(MOVES))
    opened[MOVES.index("open")] = 1.0
    where = face.rest[[78, 308, 0, 17], :2]
    left, right, top, bottom = where[0, 0], where[1, 0], where[2, 1], where[3, 1] + 0.18 * face.unit
    region = (slice(int(top), int(bottom)), slice(int(left), int(right)))
    before, after = (face.draw(moves, still)[region].mean(-1) for moves in (closed, opened))
    assert (after < 60).sum() > 5 * (before < 60).sum()  # the cavity
    assert face.draw(opened, still).shape == (384, 384, 3)
    assert np.array_equal(face.draw(opened, still), face.draw(opened, still))


def test_phonemes_are_in_order_and_have_shapes() -> None:
    how = demo_speech.Prosody(rate=170, pitch=50, range=40, gain=0.5)
    for text in demo.SENTENCES:
        said = demo_speech.speak(text, "en-us+f2", how, seed=1)
        starts = np.array([p.start for p in said.phonemes])
        assert (np.diff(starts) >= 0).all()
        assert all(p.end >= p.start for p in said.phonemes)
        assert starts[0] >= demo_speech.LEAD - 1e-9
        assert said.phonemes[-1].end <= said.seconds
        spoken = [p for p in said.phonemes if p.symbol]
        assert len(spoken) > 15
        assert all(sign in demo_speech.VISEMES for p in spoken for sign in p.symbol), [p.symbol for p in spoken]
        track = demo_speech.mouth_track(said, np.array([(p.start + p.end) / 2 for p in spoken]))
        lips = [k for k, p in enumerate(spoken) if p.symbol[0] in "pbm"]
        assert lips
        assert (track[lips, demo_speech.CLOSE] > 0.85).all()
        assert (track[lips, demo_speech.OPEN] < 0.1).all()


def test_speech_is_the_same_whatever_was_said_before() -> None:
    how = demo_speech.Prosody(rate=170, pitch=50, range=40, gain=0.5)
    first = demo_speech.speak(demo.SENTENCES[0], "en-us+f2", how, seed=1)
    demo_speech.speak(demo.SENTENCES[1], "en-us+m3", how, seed=2)
    again = demo_speech.speak(demo.SENTENCES[0], "en-us+f2", how, seed=1)
    assert np.array_equal(first.audio, again.audio)
    with pytest.raises(RuntimeError, match="no voice"):
        demo_speech.speak("Hello.", "no-such-voice", how, seed=1)


def test_emotions_sound_different() -> None:
    rng = np.random.default_rng(0)
    mean = {
        emotion: np.mean([demo_speech.prosody(emotion, 1.0, 0, rng).gain for _ in range(20)])
        for emotion in demo.EMOTIONS
    }
    assert mean["angry"] > mean["happy"] > mean["neutral"] > mean["sad"]


def test_a_foreign_take_is_listed(tmp_path: Path) -> None:
    for take in ("001", "007"):
        path = tmp_path / f"W107/video/front/happy/level_3/{take}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    index = demo.index(tmp_path)
    assert [source.sentence for source in index.sources] == [demo.sentence(1)]
    assert [rejected.reason for rejected in index.rejected] == ["take"]
