"""Clustering strength: how far the emotions of a person lie apart in an embedding, against how wide each of them is.

DICE-Talk, Table 5: d_cls = d_inter / d_intra with "different emotions of the same identity as categories", and no
more. What it leaves open is fixed here. One vector a clip; Euclidean distances; the ratio is taken for each emotion
of each identity, then averaged over identities, and "all" is the mean over emotions. Both readings of the distances:

centroid   d_intra: mean distance of an emotion's vectors from their mean; d_inter: mean distance of that mean from
           the means of the identity's other emotions
pairwise   d_intra: mean distance of two vectors of the emotion; d_inter: mean distance of a vector of the emotion and
           one of another, averaged within each other emotion first

With few vectors a class the centroid form lies above 1 where there is no structure at all, so a value is read against
its permutation null: the emotions of each identity shuffled among its vectors.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from metrics.base import ASKED, Features, Metric, MetricError, register
from metrics.emotion import SPACES

Form = Literal["centroid", "pairwise"]
FORMS: tuple[Form, ...] = get_args(Form)
ALL = "all"
LARGEST = 1e150  # of an embedding's numbers: squares of larger ones overflow
MIN_SIZE = 2  # vectors of an emotion; one alone has no width

Vectors = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Embeddings:
    """(N, D) vectors, one a clip, of any real type (kept as float64), with N identities and N emotions.

    Raises MetricError for different lengths, no vectors, and vectors that are NaN, infinite or huge.
    """

    identity: NDArray[np.str_]
    emotion: NDArray[np.str_]
    vectors: Vectors

    def __post_init__(self) -> None:
        object.__setattr__(self, "vectors", np.asarray(self.vectors, np.float64))
        count = len(self.vectors)
        if not count:
            raise MetricError("there are no embeddings")
        if self.vectors.ndim != 2 or len(self.identity) != count or len(self.emotion) != count:
            raise MetricError(
                f"embeddings of shape {self.vectors.shape} with {len(self.identity)} identities and "
                f"{len(self.emotion)} emotions; expected (N, D), N and N"
            )
        bad = np.flatnonzero(~(np.abs(self.vectors) < LARGEST).all(axis=1))
        if len(bad):
            raise MetricError(f"{len(bad)} of {count} embeddings are NaN, infinite or huge, the first in row {bad[0]}")


@dataclass(frozen=True, slots=True)
class Strength:
    """d_inter / d_intra of an emotion, or of all of them.

    identities, vectors   that entered
    null_mean             mean under shuffled emotions; null_low and null_high hold 95 % of it (percentiles 2.5, 97.5)
    p                     (1 + shuffles with at least this value) / (1 + shuffles)
    """

    emotion: str
    identities: int
    vectors: int
    value: float
    null_mean: float
    null_low: float
    null_high: float
    p: float


@dataclass(frozen=True, slots=True)
class _Person:
    """One identity's vectors (n, D), the distances between them (n, n), and their classes (n,), numbers into
    `emotions`; every class is large enough."""

    vectors: Vectors
    distances: Vectors
    classes: NDArray[np.int64]
    emotions: tuple[str, ...]


def read(path: Path) -> Embeddings:
    """An embedding table: Parquet with the columns identity, emotion (strings) and embedding (lists of one length);
    others, such as intensity, may be there. One row a clip: where there is a clip_id, each may stand there once.

    Raises MetricError, in one line, for a file that is no such table.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise MetricError(f"{path}: not a Parquet file that can be read ({str(error).splitlines()[0]})") from None
    missing = [name for name in ("identity", "emotion", "embedding") if name not in table.column_names]
    if missing:
        raise MetricError(f"{path}: no column {', '.join(missing)}; it has {', '.join(table.column_names)}")
    if not table.num_rows:
        raise MetricError(f"{path}: no rows")
    for name in ("identity", "emotion", "embedding"):
        if table[name].null_count:
            raise MetricError(f"{path}: {table[name].null_count} of {table.num_rows} rows have no {name}")
    kind = table.schema.field("embedding").type
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not lists or not (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
        raise MetricError(f"{path}: the column embedding holds {kind}; expected lists of numbers")
    lengths = pc.unique(pc.list_value_length(table["embedding"])).to_pylist()
    if len(lengths) > 1 or not lengths[0]:
        raise MetricError(
            f"{path}: embeddings of {', '.join(map(str, sorted(lengths)[:3]))} numbers; expected one length"
        )
    if "clip_id" in table.column_names and len(table["clip_id"].unique()) < table.num_rows:
        repeated = table.num_rows - len(table["clip_id"].unique())
        raise MetricError(f"{path}: {repeated} rows repeat a clip_id; average the frames of a clip first")
    flat = pc.list_flatten(table["embedding"]).to_numpy().astype(np.float64)
    try:
        return Embeddings(
            np.array([str(word) for word in table["identity"].to_pylist()]),
            np.array([str(word) for word in table["emotion"].to_pylist()]),
            flat.reshape(table.num_rows, lengths[0]),
        )
    except MetricError as error:
        raise MetricError(f"{path}: {error}") from None


def strengths(embeddings: Embeddings, form: Form, *, normalise: bool, min_size: int = MIN_SIZE) -> dict[str, float]:
    """d_inter / d_intra of each emotion (sorted), and of "all": their mean.

    normalise   every vector is scaled to length 1 first
    min_size    vectors that an emotion of an identity must have; smaller ones are left out, as are identities that
                then have fewer than two emotions

    Raises MetricError where no identity has two such emotions, and where the vectors of one are all the same.
    """
    return _measured(_people(embeddings, normalise, min_size), form)


def permutation_test(
    embeddings: Embeddings,
    form: Form,
    *,
    normalise: bool,
    min_size: int = MIN_SIZE,
    permutations: int = 1000,
    seed: int = 0,
) -> list[Strength]:
    """What `strengths` gives, "all" last, each against its null: within each identity the emotions are shuffled among
    the vectors, so sizes stay. Same seed, same result; errors as there."""
    people = _people(embeddings, normalise, min_size)
    values = _measured(people, form)
    rng = np.random.default_rng(seed)
    null: dict[str, list[float]] = {name: [] for name in values}
    for _ in range(permutations):
        shuffled = [replace(person, classes=rng.permutation(person.classes)) for person in people]
        for name, value in _average([_ratios(person, form) for person in shuffled]).items():
            null[name].append(value)
    return [_against(name, value, np.array(null[name]), people) for name, value in values.items()]


def _against(name: str, value: float, null: Vectors, people: Iterable[_Person]) -> Strength:
    within = [person for person in people if name in (ALL, *person.emotions)]
    sizes = [len(p.classes) if name == ALL else int((p.classes == p.emotions.index(name)).sum()) for p in within]
    # Orders of summation differ between equal partitions: equal up to rounding counts as equal.
    reached = int((null >= value * (1 - 1e-9)).sum())
    low, high = np.percentile(null, (2.5, 97.5)) if len(null) else (np.nan, np.nan)
    mean = float(null.mean()) if len(null) else np.nan
    p = (1 + reached) / (1 + len(null))
    return Strength(name, len(within), sum(sizes), value, mean, float(low), float(high), p)


def _people(embeddings: Embeddings, normalise: bool, min_size: int) -> list[_Person]:
    if min_size < MIN_SIZE:
        raise MetricError(f"a minimum class size of {min_size}; at least {MIN_SIZE}, for one vector alone has no width")
    vectors = embeddings.vectors
    if normalise:
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if (lengths == 0).any():
            row = int(np.flatnonzero(lengths[:, 0] == 0)[0])
            raise MetricError(f"the embedding in row {row} is zero and cannot be scaled to length 1")
        vectors = vectors / lengths
    people = []
    for identity in np.unique(embeddings.identity):
        of = embeddings.identity == identity
        emotions, sizes = np.unique(embeddings.emotion[of], return_counts=True)
        kept = emotions[sizes >= min_size]
        if len(kept) >= 2:
            rows = of & np.isin(embeddings.emotion, kept)
            classes = np.searchsorted(kept, embeddings.emotion[rows])
            people.append(_Person(vectors[rows], _distances(vectors[rows]), classes, tuple(map(str, kept))))
            _require_width(people[-1], str(identity))
    if not people:
        raise MetricError(
            f"no identity has two emotions with {min_size} vectors each ({len(embeddings.vectors)} vectors, "
            f"{len(np.unique(embeddings.identity))} identities, {len(np.unique(embeddings.emotion))} emotions)"
        )
    return people


def _require_width(person: _Person, identity: str) -> None:
    for number, emotion in enumerate(person.emotions):
        members = person.vectors[person.classes == number]
        if (members == members[0]).all():
            raise MetricError(
                f"the {len(members)} vectors of {emotion} of identity {identity} are all the same: d_intra is 0"
            )


def _measured(people: Iterable[_Person], form: Form) -> dict[str, float]:
    values = _average([_ratios(person, form) for person in people])
    if not np.isfinite(list(values.values())).all():
        raise MetricError("the embeddings are so small that their distances vanish; scale them to numbers about 1")
    return values


def _ratios(person: _Person, form: Form) -> dict[str, float]:
    """d_inter / d_intra by emotion; infinite where shuffling has put equal vectors together."""
    intra, inter = (_centroid if form == "centroid" else _pairwise)(person)
    with np.errstate(divide="ignore", invalid="ignore"):
        return dict(zip(person.emotions, (inter / intra).tolist(), strict=True))


def _centroid(person: _Person) -> tuple[Vectors, Vectors]:
    member = person.classes[:, None] == np.arange(len(person.emotions))  # (n, classes)
    sizes = member.sum(axis=0)
    centroids = member.T.astype(np.float64) @ person.vectors / sizes[:, None]
    away = np.linalg.norm(person.vectors - centroids[person.classes], axis=1)
    intra = np.bincount(person.classes, away) / sizes
    apart = np.linalg.norm(centroids[:, None] - centroids, axis=2)
    return intra, apart.sum(axis=1) / (len(sizes) - 1)


def _pairwise(person: _Person) -> tuple[Vectors, Vectors]:
    member = (person.classes[:, None] == np.arange(len(person.emotions))).astype(np.float64)
    sizes = member.sum(axis=0)
    total = member.T @ person.distances @ member  # sums over ordered pairs, (classes, classes)
    intra = np.diag(total) / (sizes * (sizes - 1))
    mean = total / np.outer(sizes, sizes)
    return intra, (mean.sum(axis=1) - np.diag(mean)) / (len(sizes) - 1)


def _distances(vectors: Vectors) -> Vectors:
    """Euclidean, (n, n): by differences, for the identity |a|^2 + |b|^2 - 2ab loses close pairs."""
    found = np.empty((len(vectors), len(vectors)))
    for row, vector in enumerate(vectors):
        found[row] = np.linalg.norm(vectors - vector, axis=1)
    return found


def _average(people: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Mean over identities by emotion, and over emotions."""
    of: dict[str, list[float]] = defaultdict(list)
    for person in people:
        for emotion, value in person.items():
            of[emotion].append(value)
    values = {emotion: float(np.mean(of[emotion])) for emotion in sorted(of)}
    return values | {ALL: float(np.mean(list(values.values())))}


# --- on generated videos -----------------------------------------------------------------------------------------


def gather(clips: Iterable[Features], asked: Iterable[Features]) -> Embeddings:
    """The mean embedding of each clip's frames that show a face, with the asked emotion and the identity.

    clips   {"embedding": (T, D), "found": (T,)} each;  asked   {"identity": str, "emotion": str} each

    Raises MetricError for a clip without a face, and as Embeddings.
    """
    means, identities, emotions = [], [], []
    for seen, wanted in zip(clips, asked, strict=True):
        found = seen["found"].astype(bool)
        if not found.any():
            raise MetricError(f"no face found in {len(found)} of {len(found)} frames")
        means.append(seen["embedding"][found].astype(np.float64).mean(axis=0))
        identities.append(str(wanted["identity"]))
        emotions.append(str(wanted["emotion"]))
    return Embeddings(np.array(identities), np.array(emotions), np.array(means))


def centroid_strength(clips: Iterable[Features], asked: Iterable[Features]) -> float:
    """Clustering strength of the asked emotions in what a network sees in the videos: d_inter / d_intra, d_intra the
    mean distance of an emotion's clips from their mean, d_inter that of this mean from the means of the identity's
    other emotions; Euclidean, of mean embeddings of clips, not normalised; averaged over identities, then emotions.
    At least two clips of an emotion of an identity enter. Raises MetricError where no identity has two emotions so.
    """
    return strengths(gather(clips, asked), "centroid", normalise=False)[ALL]


def pairwise_strength(clips: Iterable[Features], asked: Iterable[Features]) -> float:
    """Clustering strength as the centroid form, with d_intra the mean distance of two clips of the emotion, and
    d_inter that of a clip of the emotion and one of another of the same identity."""
    return strengths(gather(clips, asked), "pairwise", normalise=False)[ALL]


def _register(network: str, form: Form, compute: Callable[..., Any], label: str) -> None:
    register(
        Metric(
            name=f"cluster-strength/{network}-{form}",
            version=1,
            needs=(("generated", network), ASKED),
            level="set",
            unit="",
            direction="higher",
            compute=compute,
            label=label,
            digits=2,
            source="the ratio of DICE-Talk (Tan et al. 2025), Table 5, there of its own emotion prior",
            emotions=tuple(SPACES["mead"]),
        )
    )


for _network in ("fer-cnn", "mini-xception"):
    _register(_network, "centroid", centroid_strength, f"Clustering ({_network})")
    _register(_network, "pairwise", pairwise_strength, f"Clustering, pairs ({_network})")
