"""Result rows: the only thing that passes from evaluation to tables."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from leaderboards.grid import plain

SCHEMA_VERSION = "1"


class ResultError(ValueError):
    """A result file or row that cannot be trusted; the message is one line."""


@dataclass(frozen=True, slots=True)
class Result:
    """One value of one metric, long format.

    method, dataset, protocol   who was scored, on what, by which evaluation protocol
    metric, metric_version      "family/variant" and the version of its definition
    clip_id, identity, group    None where the value is of the whole set; group = an emotion, say
    value, error                exactly one of them is set; error is a one-line reason
    n_used, n_expected          clips that entered the value, clips that should have
    replicates                  file of resampled values beside the results, or None
    run_id                      key of the run record (`runs/<run_id>.json`) with versions and digests
    """

    method: str
    dataset: str
    protocol: str
    metric: str
    metric_version: int
    clip_id: str | None
    identity: str | None
    group: str | None
    value: float | None
    error: str | None
    n_used: int
    n_expected: int
    replicates: str | None
    run_id: str


SCHEMA = pa.schema(
    [
        pa.field("method", pa.string(), nullable=False),
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("protocol", pa.string(), nullable=False),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("metric_version", pa.int32(), nullable=False),
        pa.field("clip_id", pa.string()),
        pa.field("identity", pa.string()),
        pa.field("group", pa.string()),
        pa.field("value", pa.float64()),
        pa.field("error", pa.string()),
        pa.field("n_used", pa.int64(), nullable=False),
        pa.field("n_expected", pa.int64(), nullable=False),
        pa.field("replicates", pa.string()),
        pa.field("run_id", pa.string(), nullable=False),
    ],
    metadata={"result_schema": SCHEMA_VERSION},
)


def write(rows: Iterable[Result], path: Path) -> None:
    """Write rows as Parquet, atomically and in a fixed order, so that equal rows give equal bytes.

    Raises ResultError on a row or a set of rows that `check` refuses.
    """
    ordered = check(rows, str(path))
    table = pa.Table.from_pylist([asdict(row) for row in ordered], schema=SCHEMA)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".part-", suffix=".parquet", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)
        temporary.chmod(0o644)  # mkstemp gives 0600, which a group on a cluster could not read
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read(path: Path) -> list[Result]:
    """The rows of one file. Raises ResultError when it is truncated, foreign or of another schema version."""
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        rows = table.to_pylist()
        version = (table.schema.metadata or {}).get(b"result_schema", b"none").decode()
    except (pa.ArrowException, OSError, ValueError, RuntimeError) as error:  # RuntimeError: NotImplementedError too
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ResultError(f"{path}: not a readable result file ({reason})") from None
    if version != SCHEMA_VERSION:
        raise ResultError(f"{path}: result schema {version}, this version reads {SCHEMA_VERSION}; evaluate again")
    if not table.schema.equals(SCHEMA):
        raise ResultError(f"{path}: its columns are not those of a result file; evaluate again")
    return check((Result(**row) for row in rows), str(path))


def check(rows: Iterable[Result], where: str = "results") -> list[Result]:
    """The rows sorted, each valid and each said once; equal duplicates are merged.

    Raises ResultError on a row with both or neither of value and error, a NaN, counts that cannot be, or two
    rows that give one (method, protocol, metric, clip, group) different contents.
    """
    unique: dict[tuple[str, ...], Result] = {}
    for row in rows:
        problem = _problem(row)
        if problem:
            raise ResultError(f"{where}: {_named(row)}: {problem}")
        if unique.setdefault(_key(row), row) != row:
            raise ResultError(f"{where}: {_named(row)}: {_difference(unique, row)}")
    return [unique[key] for key in sorted(unique)]


def _named(row: Result) -> str:
    return plain(f"{row.method} {row.metric} {row.clip_id or 'set'}")


def _key(row: Result) -> tuple[str, ...]:
    return (row.method, row.dataset, row.protocol, row.metric, row.clip_id or "", row.group or "")


def _difference(unique: dict[tuple[str, ...], Result], row: Result) -> str:
    first = unique[_key(row)]
    names = [f.name for f in fields(Result) if getattr(first, f.name) != getattr(row, f.name)]
    return f"two rows contradict each other in {', '.join(names)}"


def _problem(row: Result) -> str | None:
    if (row.value is None) == (row.error is None):
        return f"exactly one of value and error must be set, got {row.value!r} and {row.error!r}"
    if row.value is not None and math.isnan(row.value):
        return "the value is NaN; a score that cannot be computed is an error row"
    if row.error is not None and (not row.error or "\n" in row.error):
        return "the error must be one line that gives the reason"
    if not 0 <= row.n_used <= row.n_expected or row.n_expected < 1:
        return f"n_used {row.n_used} and n_expected {row.n_expected} cannot be"
    if (row.value is None) != (row.n_used == 0):
        return f"n_used is {row.n_used} for value {row.value!r}"
    return None
