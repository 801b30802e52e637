"""Clustering strength against brute force over SciPy's distances, cases with known answers, and a calibrated null."""

from __future__ import annotations

import csv
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import euclidean

from benchmark.cli import bench
from metrics import MetricError, metric
from metrics.base import ASKED
from metrics.clusters import (
    ALL,
    FORMS,
    Embeddings,
    Form,
    centroid_strength,
    gather,
    pairwise_strength,
    permutation_test,
    read,
    strengths,
)


def table(vectors: np.ndarray, emotions: list[str], identities: list[str] | None = None) -> Embeddings:
    return Embeddings(
        np.array(identities or ["A"] * len(emotions)), np.array(emotions), np.asarray(vectors, np.float64)
    )


def brute(data: Embeddings, form: Form, normalise: bool, min_size: int) -> dict[str, float]:
    """The definition with lists and loops."""
    vectors = [v / np.sqrt((v**2).sum()) if normalise else v for v in data.vectors]
    by_emotion: dict[str, list[float]] = {}
    for person in set(data.identity):
        classes: dict[str, list[np.ndarray]] = {}
        for vector, who, emotion in zip(vectors, data.identity, data.emotion, strict=True):
            if who == person:
                classes.setdefault(str(emotion), []).append(vector)
        classes = {emotion: members for emotion, members in classes.items() if len(members) >= min_size}
        if len(classes) < 2:
            continue
        for emotion, members in classes.items():
            others = [other for name, other in classes.items() if name != emotion]
            if form == "centroid":
                centre = np.mean(members, axis=0)
                intra = np.mean([euclidean(v, centre) for v in members])
                inter = np.mean([euclidean(centre, np.mean(other, axis=0)) for other in others])
            else:
                intra = np.mean([euclidean(a, b) for a, b in combinations(members, 2)])
                inter = np.mean([np.mean([euclidean(a, b) for a in members for b in other]) for other in others])
            by_emotion.setdefault(emotion, []).append(float(inter / intra))
    means = {emotion: float(np.mean(values)) for emotion, values in by_emotion.items()}
    return {**means, ALL: float(np.mean(list(means.values())))}


@st.composite
def embeddings(draw: st.DrawFn) -> Embeddings:
    """One to three people with up to four emotions of up to five vectors; the first has two emotions of five."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    sizes = st.dictionaries(st.sampled_from(["angry", "fear", "happy", "sad"]), st.integers(1, 5))
    people = [{"angry": 5, "sad": 5}, *draw(st.lists(sizes, max_size=2))]
    labels = [(str(k), e) for k, person in enumerate(people) for e, n in person.items() for _ in range(n)]
    labels = [labels[k] for k in rng.permutation(len(labels))]
    vectors = rng.normal(size=(len(labels), draw(st.integers(1, 6)))) + 0.1
    return table(vectors, [emotion for _, emotion in labels], [identity for identity, _ in labels])


@given(embeddings(), st.sampled_from(FORMS), st.integers(2, 5))
@settings(max_examples=60, deadline=None)
def test_brute_force(data: Embeddings, form: Form, min_size: int) -> None:
    """1e-9: sums in another order. Normalised vectors of one dimension are +-1 and may coincide, so two at least."""
    normalise = data.vectors.shape[1] > 1
    found = strengths(data, form, normalise=normalise, min_size=min_size)
    assert list(found) == [*sorted(set(found) - {ALL}), ALL]
    assert found == pytest.approx(brute(data, form, normalise, min_size), rel=1e-9)


@given(embeddings(), st.sampled_from(FORMS), st.floats(0.01, 100), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_shifts_scales_and_turns_change_nothing(data: Embeddings, form: Form, gain: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = data.vectors.shape[1]
    turn, _ = np.linalg.qr(rng.normal(size=(size, size)))
    moved = table(gain * data.vectors @ turn + rng.normal(size=size), list(data.emotion), list(data.identity))
    expected = strengths(data, form, normalise=False)
    assert strengths(moved, form, normalise=False) == pytest.approx(expected, rel=1e-6)


def test_known_answers() -> None:
    """Two emotions of two vectors on a line, at -1, 1 and 9, 11."""
    data = table(np.array([[-1.0], [1], [9], [11]]), ["sad", "sad", "happy", "happy"])
    assert strengths(data, "centroid", normalise=False) == {"happy": 10.0, "sad": 10.0, ALL: 10.0}
    assert strengths(data, "pairwise", normalise=False) == {"happy": 5.0, "sad": 5.0, ALL: 5.0}
    # Corners of a square of side 2, emotions on opposite sides: intra 1 (2 as a pair), inter 2 ((2 + sqrt 8) / 2).
    square = table(np.array([[-1.0, -1], [1, -1], [-1, 1], [1, 1]]), ["sad", "sad", "happy", "happy"])
    assert strengths(square, "centroid", normalise=False)[ALL] == pytest.approx(2)
    assert strengths(square, "pairwise", normalise=False)[ALL] == pytest.approx((2 + np.sqrt(8)) / 4)
    # Scaled to length 1, vectors at 0, 60 and 180, 240 degrees: pairs 1 apart, opposite ones 2, 2, and sqrt 3 twice.
    angles = np.radians([0, 60, 180, 240])
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.array([[1], [5], [0.1], [3]])
    expected = (2 + 2 + np.sqrt(3) + np.sqrt(3)) / 4
    found = strengths(table(circle, ["sad", "sad", "happy", "happy"]), "pairwise", normalise=True)
    assert found[ALL] == pytest.approx(expected)


def test_identities_are_apart() -> None:
    """How far people lie from each other says nothing: each is a copy of the other, far away."""
    one = np.array([[-1.0], [1], [9], [11]])
    data = table(np.concatenate([one, one + 1e6]), ["sad", "sad", "happy", "happy"] * 2, ["A"] * 4 + ["B"] * 4)
    for form, expected in (("centroid", 10.0), ("pairwise", 5.0)):
        assert strengths(data, form, normalise=False)[ALL] == pytest.approx(expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", FORMS)
def test_null(form: Form) -> None:
    rng = np.random.default_rng(3)
    emotions = [word for word in ("angry", "happy", "sad") for _ in range(6)] * 2
    people = ["A"] * 18 + ["B"] * 18
    noise = rng.normal(size=(36, 5))
    place = np.array([["angry", "happy", "sad"].index(word) for word in emotions])[:, None]
    apart = permutation_test(table(noise + 4 * place, emotions, people), form, normalise=False, permutations=99, seed=1)
    assert [row.emotion for row in apart] == ["angry", "happy", "sad", ALL]
    assert [(row.identities, row.vectors) for row in apart] == [(2, 12)] * 3 + [(2, 36)]
    overall = apart[-1]
    assert overall.value == strengths(table(noise + 4 * place, emotions, people), form, normalise=False)[ALL]
    assert overall.p == 0.01  # no shuffle of 99 reaches it
    assert overall.null_low < overall.null_mean < overall.null_high < overall.value
    again = permutation_test(table(noise + 4 * place, emotions, people), form, normalise=False, permutations=99, seed=1)
    assert again == apart
    other = permutation_test(table(noise + 4 * place, emotions, people), form, normalise=False, permutations=99, seed=2)
    assert other[-1].null_mean != overall.null_mean
    assert other[-1].null_mean == pytest.approx(overall.null_mean, rel=0.1)


@pytest.mark.parametrize("form", FORMS)
def test_null_is_calibrated(form: Form) -> None:
    """Where emotions mean nothing, p is uniform: of 200 tables 10 +- 3.1 fall to 0.05 and below, 100 +- 7.1 to 0.5."""
    rng = np.random.default_rng(11)
    emotions = ["angry"] * 4 + ["sad"] * 3
    found = [
        permutation_test(table(rng.normal(size=(7, 3)), emotions), form, normalise=False, permutations=39, seed=k)[-1].p
        for k in range(200)
    ]
    assert 1 <= np.sum(np.array(found) <= 0.05) <= 22
    assert 75 <= np.sum(np.array(found) <= 0.5) <= 125


def test_equal_partitions_count_as_reached() -> None:
    """Three shuffles of four vectors are all there are, one of them as found: p cannot fall below about 1/3."""
    data = table(np.array([[-1.0], [1.1], [9], [11.3]]), ["sad", "sad", "happy", "happy"])
    for form in FORMS:
        assert permutation_test(data, form, normalise=False, permutations=400)[-1].p == pytest.approx(1 / 3, abs=0.08)


def test_bad_input_is_refused() -> None:
    good = np.random.default_rng(0).normal(size=(4, 3))
    two = ["sad", "sad", "happy", "happy"]

    def measure(vectors: np.ndarray, emotions: list[str], **options: object) -> dict[str, float]:
        return strengths(table(vectors, emotions), "centroid", **{"normalise": False, **options})  # type: ignore[arg-type]

    with pytest.raises(MetricError, match="there are no embeddings"):
        measure(np.empty((0, 3)), [])
    with pytest.raises(
        MetricError, match=r"no identity has two emotions with 2 vectors each \(4 vectors, 1 identities"
    ):
        measure(good, ["sad"] * 4)
    with pytest.raises(MetricError, match="no identity has two emotions with 3 vectors each"):
        measure(good, two, min_size=3)
    with pytest.raises(MetricError, match="a minimum class size of 1; at least 2"):
        measure(good, two, min_size=1)
    for bad in (np.nan, np.inf):
        with pytest.raises(MetricError, match="1 of 4 embeddings are NaN, infinite or huge, the first in row 2"):
            measure(np.where(np.arange(12).reshape(4, 3) == 7, bad, good), two)
    with pytest.raises(MetricError, match="the embedding in row 1 is zero and cannot be scaled"):
        measure(good * np.array([[1], [0], [1], [1]]), two, normalise=True)
    with pytest.raises(MetricError, match="the 2 vectors of happy of identity A are all the same: d_intra is 0"):
        measure(good[[0, 1, 2, 2]], two)
    with pytest.raises(MetricError, match="4 of 4 embeddings are NaN, infinite or huge"):
        measure(good * 1e200, two)
    with pytest.raises(MetricError, match="so small that their distances vanish"):
        measure(good * 1e-200, two)
    with pytest.raises(MetricError, match=r"embeddings of shape \(4, 3\) with 4 identities and 3 emotions"):
        Embeddings(np.array(["A"] * 4), np.array(["sad"] * 3), good)


# --- tables --------------------------------------------------------------------------------------------------------


def write(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_read(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(4, 3))
    words = {"identity": ["A", "A", "B", "B"], "emotion": ["sad", "contempt", "sad", "sad"]}
    kinds = (pa.list_(pa.float64()), pa.list_(pa.float32()), pa.large_list(pa.float16()), pa.list_(pa.float32(), 3))
    for kind, accuracy in zip(kinds, (0, 1e-6, 1e-2, 1e-6), strict=True):
        dtype = kind.value_type.to_pandas_dtype()
        rows = pa.array(list(vectors.astype(dtype)), kind)
        got = read(write(tmp_path / "t.parquet", **words, embedding=rows, intensity=[1, 2, 3, 3], clip_id=list("abcd")))
        assert got.vectors.dtype == np.float64
        np.testing.assert_allclose(got.vectors, vectors, atol=accuracy)
        assert got.identity.tolist() == words["identity"]
        assert got.emotion.tolist() == words["emotion"]


def test_float16_tables_are_measured_in_float64() -> None:
    """Distances of 300: their squares do not fit into float16."""
    data = np.array([[0.0], [100], [300], [400]], np.float16)
    assert strengths(Embeddings(np.array(["A"] * 4), np.array(list("aabb")), data), "centroid", normalise=False)[
        ALL
    ] == pytest.approx(6)


def test_tables_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    words = {"identity": ["A", "A"], "emotion": ["sad", "happy"]}
    vectors = [[1.0, 2.0], [3.0, 4.0]]
    faults: dict[str, dict[str, object]] = {
        "no column embedding; it has identity, emotion": words,
        "no rows": {"identity": pa.array([], "string"), "emotion": pa.array([], "string"), "embedding": pa.array([])},
        "1 of 2 rows have no emotion": {**words, "emotion": ["sad", None], "embedding": vectors},
        "1 of 2 rows have no embedding": {**words, "embedding": [[1.0], None]},
        "holds string; expected lists of numbers": {**words, "embedding": ["[1, 2]", "[3, 4]"]},
        "holds list<.*string>; expected lists of numbers": {**words, "embedding": [["1"], ["2"]]},
        "embeddings of 1, 2 numbers; expected one length": {**words, "embedding": [[1.0], [2.0, 3.0]]},
        "embeddings of 0 numbers; expected one length": {
            **words,
            "embedding": pa.array([[], []], pa.list_(pa.float32())),
        },
        "1 of 2 embeddings are NaN, infinite or huge, the first in row 0": {**words, "embedding": [[np.nan], [1.0]]},
        "1 of 2 embeddings are NaN, infinite or huge, the first in row 1": {**words, "embedding": [[1.0], [None]]},
        "1 rows repeat a clip_id; average the frames": {**words, "embedding": vectors, "clip_id": ["a", "a"]},
    }
    for reason, columns in faults.items():
        with pytest.raises(MetricError, match=f"t.parquet: .*{reason}") as caught:
            read(write(path, **columns))
        assert "\n" not in str(caught.value)
    path.write_bytes(b"identity,emotion,embedding\n")
    with pytest.raises(MetricError, match="not a Parquet file that can be read") as caught:
        read(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(MetricError, match="not a Parquet file that can be read"):
        read(tmp_path / "missing.parquet")


def random_table(path: Path) -> Path:
    rng = np.random.default_rng(4)
    emotions = ["sad"] * 5 + ["happy"] * 5
    rows = rng.normal(size=(10, 4)) + np.array([[k >= 5] for k in range(10)]) * 3
    return write(path, identity=["A"] * 10, emotion=emotions, embedding=list(rows))


def test_command(tmp_path: Path) -> None:
    file, out = random_table(tmp_path / "prior.parquet"), tmp_path / "strength.csv"
    done = CliRunner().invoke(bench, ["clusters", str(file), "--permutations", "50", "--out", str(out)])
    assert done.exit_code == 0, done.output
    rows = list(csv.DictReader(out.open()))
    assert [(row["form"], row["emotion"]) for row in rows] == [
        (form, emotion) for form in FORMS for emotion in ("happy", "sad", ALL)
    ]
    for form in FORMS:
        expected = permutation_test(read(file), form, normalise=False, permutations=50)
        for row, found in zip([r for r in rows if r["form"] == form], expected, strict=True):
            assert float(row["strength"]) == found.value
            assert float(row["null_high"]) == found.null_high
            assert float(row["p"]) == found.p
            assert f"{found.value:.2f}" in done.output
    scaled = CliRunner().invoke(bench, ["clusters", str(file), "--normalise", "--permutations", "0"])
    assert f"{strengths(read(file), 'centroid', normalise=True)[ALL]:.2f}" in scaled.output
    lost = CliRunner().invoke(bench, ["clusters", str(file), "--min-size", "6"])
    assert lost.exit_code == 1
    assert "Error: no identity has two emotions with 6 vectors each" in lost.output


# --- generated videos ----------------------------------------------------------------------------------------------


def test_clips_enter_by_the_mean_of_their_faces() -> None:
    places = [-1.0, 1, 9, 11]
    clips, asked = [], []
    for place, emotion in zip(places, ["sad", "sad", "happy", "happy"], strict=True):
        frames = np.array([[place - 0.5], [place + 0.5], [1000.0]], np.float32)
        clips.append({"embedding": frames, "found": np.array([True, True, False])})
        asked.append({"identity": np.array("A"), "emotion": np.array(emotion)})
    assert gather(clips, asked).vectors[:, 0].tolist() == places
    assert centroid_strength(iter(clips), iter(asked)) == pytest.approx(10)
    assert pairwise_strength(iter(clips), iter(asked)) == pytest.approx(5)
    clips[0]["found"][:] = False
    with pytest.raises(MetricError, match="no face found in 3 of 3 frames"):
        centroid_strength(clips, asked)
    found = metric("cluster-strength/fer-cnn-centroid")
    assert found.needs == (("generated", "fer-cnn"), ASKED)
    assert "calm" not in (found.emotions or ())
