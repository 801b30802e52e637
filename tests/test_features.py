from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from samples import tone
from tiny import pictures

from benchmark.features import Key, Store
from pipelines import media

KEY = Key("fid-inception@7ff4a85c", ("aa", "bb"), {"views": ["frames:5"], "frames": 75})


def test_arrays_come_back_as_they_were(tmp_path: Path) -> None:
    store = Store(tmp_path)
    arrays = {"features": np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32), "n": np.array(3)}
    assert store.get(KEY) is None
    store.put(KEY, arrays)
    found = store.get(KEY)
    assert found is not None
    assert {name: array.dtype for name, array in found.items()} == {"features": np.float32, "n": np.int64}
    assert all(np.array_equal(found[name], arrays[name]) for name in arrays)
    assert store.path(KEY).parent.parent == tmp_path / KEY.extractor


@pytest.mark.parametrize(
    "other",
    [
        Key("fid-inception@other", KEY.digests, KEY.views),
        Key(KEY.extractor, ("bb", "aa"), KEY.views),  # a pair is ordered
        Key(KEY.extractor, KEY.digests, {**KEY.views, "frames": 74}),
    ],
)
def test_whatever_changes_the_arrays_changes_the_key(tmp_path: Path, other: Key) -> None:
    store = Store(tmp_path)
    store.put(KEY, {"x": np.zeros(1)})
    assert store.get(other) is None


def test_the_hash_does_not_depend_on_the_process() -> None:
    code = f"from benchmark.features import Key; print({KEY!r}.hash)"
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        shown = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        assert shown.stdout.strip() == KEY.hash


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 not a zip", None])
def test_a_damaged_file_counts_as_missing_and_is_noted(tmp_path: Path, damage: bytes | None) -> None:
    store = Store(tmp_path)
    store.put(KEY, {"x": np.arange(1000.0)})
    path = store.path(KEY)
    whole = path.read_bytes()
    path.write_bytes(damage if damage is not None else whole[:500] + b"\xff" + whole[501:])
    assert store.get(KEY) is None
    assert "damaged" in store.damaged[0]
    store.put(KEY, {"x": np.arange(1000.0)})
    assert path.read_bytes() == whole


def test_a_changed_byte_anywhere_is_noted_or_harmless(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(KEY, {"x": np.arange(3.0), "n": np.array(3)})
    path = store.path(KEY)
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
        noted = len(store.damaged)
        found = store.get(KEY)
        if found is None:
            assert len(store.damaged) == noted + 1
        else:
            assert np.array_equal(found["x"], np.arange(3.0))
            assert found["n"] == 3
    assert len(store.damaged) > len(whole) / 2


def test_nothing_that_runs_code_is_stored_or_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(TypeError, match="object array"):
        store.put(KEY, {"x": np.array([{}])})
    store.path(KEY).parent.mkdir(parents=True)
    np.savez(store.path(KEY), x=np.array([{}]))
    assert store.get(KEY) is None


def test_an_extractor_id_never_leaves_the_store(tmp_path: Path) -> None:
    path = Store(tmp_path).path(Key("../../up/x y", (), {}))
    assert path.parent.parent.parent == tmp_path


def test_many_writers_of_one_key_leave_one_whole_file(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: store.put(KEY, {"x": np.arange(5000)}), range(32)))
    assert [path.name for path in store.path(KEY).parent.iterdir()] == [store.path(KEY).name]
    found = store.get(KEY)
    assert found is not None
    assert np.array_equal(found["x"], np.arange(5000))


def test_the_digest_of_pictures_ignores_the_sound_and_nothing_else(tmp_path: Path) -> None:
    def write(name: str, seed: int, audio: np.ndarray | None, fps: float = 25) -> str:
        media.write_video(tmp_path / name, pictures(seed, 12), fps, audio=audio)
        return media.picture_sha256(tmp_path / name)

    plain = write("plain.mp4", 0, None)
    assert write("low.mp4", 0, tone(0.5, hertz=200)) == plain
    assert write("high.mp4", 0, tone(0.5, hertz=900)) == plain
    assert write("other.mp4", 1, None) != plain
    assert write("slow.mp4", 0, None, fps=20) != plain
    one, two = (np.stack(list(media.read_frames(tmp_path / name))) for name in ("plain.mp4", "high.mp4"))
    assert np.array_equal(one, two)
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(media.MediaError, match="empty"):
        media.picture_sha256(tmp_path / "empty.mp4")
