"""What a control is trained on: clips with the sound and the emotion of others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reference_models.base import Footage
from reference_models.training import mismatched, strangers

FRAMES = 50


def clip(identity: str, emotion: str, sentence: str | None) -> Footage:
    """Two seconds: half a second of silence, a sound, half a second of silence."""
    name = f"{identity}-{emotion}-{sentence}"
    sound = np.random.default_rng(list(name.encode())).normal(0, 0.1, FRAMES * 640).astype(np.float32)
    sound[:8000] = sound[-8000:] = 0
    return Footage(
        clip_id=name, dataset="d", identity=identity, emotion=emotion, intensity=3, sentence=sentence, source="",
        key=name, num_frames=FRAMES, video=Path("none"), frames=lambda: iter(()),
        points=lambda: np.zeros((FRAMES, 478, 3), np.float32), audio=lambda: sound,
    )  # fmt: skip


CLIPS = [clip(who, emotion, words) for who in "abc" for emotion in ("neutral", "happy", "sad") for words in "xyz"]


@pytest.mark.parametrize("seed", range(20))
def test_strangers_say_something_else_in_another_emotion(seed: int) -> None:
    donors = strangers(CLIPS, seed)
    assert sorted(donors) == list(range(len(CLIPS)))
    assert all(a.emotion != CLIPS[d].emotion for a, d in zip(CLIPS, donors, strict=True))
    assert all(a.sentence != CLIPS[d].sentence for a, d in zip(CLIPS, donors, strict=True))


def test_where_there_are_no_strangers_anybody_else_is_taken() -> None:
    same = [clip("a", "happy", None), clip("b", "happy", None)]
    assert strangers(same, 0) == [1, 0]
    assert strangers(same[:1], 0) == [0]


def test_mismatched_clips_keep_their_pictures_and_hear_another_emotion() -> None:
    made, donors = mismatched(CLIPS, 3), strangers(CLIPS, 3)
    for one, other, donor in zip(CLIPS, made, donors, strict=True):
        assert (other.frames, other.points, other.identity) == (one.frames, one.points, one.identity)
        assert (other.emotion, other.sentence) == (CLIPS[donor].emotion, CLIPS[donor].sentence)
        assert other.key != one.key  # what is cached of it is another's
        assert np.array_equal(np.sort(other.audio()), np.sort(CLIPS[donor].audio()))
    assert [one.key for one in mismatched(CLIPS, 3)] == [one.key for one in made]
    assert [one.key for one in mismatched(CLIPS, 4)] != [one.key for one in made]


def test_mismatched_sounds_do_not_start_and_end_in_silence_together() -> None:
    """Silence at the ends, where mouths are shut, would tell a control something true."""
    loud = np.mean([np.abs(one.audio()).reshape(FRAMES, -1).mean(1) for one in mismatched(CLIPS * 8, 0)], axis=0)
    ends, middle = np.r_[loud[:12], loud[-12:]].mean(), loud[13:-13].mean()
    assert ends == pytest.approx(middle, rel=0.15)  # of 216 clips; with sounds as they are the ends are 0


def test_a_sound_of_another_length_goes_round() -> None:
    short = replace(CLIPS[0], num_frames=20)
    made = mismatched([short, CLIPS[-1]], 0)
    assert [len(one.audio()) for one in made] == [20 * 640, FRAMES * 640]
