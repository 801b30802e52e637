"""What a set-level value is worth: its values on subsets of the clips, in a file beside the results."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from metrics.base import Metric, Replicates
from pipelines.media import atomic_path

SCHEMA_VERSION = "1"
SCHEMA = pa.schema(
    [
        pa.field("clips", pa.int64(), nullable=False),
        pa.field("vectors", pa.int64(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
    ]
)


def file_name(method: str, metric: str) -> str:
    """Where the draws of a row lie, relative to the folder of the row's file."""
    return f"replicates/{method}/{metric.replace('/', '_')}.parquet"


def write(found: Replicates, path: Path) -> None:
    """One row a draw, atomically; count and extrapolation in the metadata. Equal draws give equal bytes."""
    metadata = {
        "replicates_schema": SCHEMA_VERSION,
        "count": str(found.count),
        "infinite": "" if found.infinite is None else repr(found.infinite),
    }
    columns = {"clips": found.clips, "vectors": found.vectors, "value": found.values}
    table = pa.table(columns, schema=SCHEMA).replace_schema_metadata(metadata)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def halves(path: Path, clips: int) -> list[float]:
    """The values on about half of the `clips` of a row. Raises OSError, ArrowException or ValueError for a file that is
    missing, damaged or foreign."""
    table = pq.read_table(path, page_checksum_verification=True)
    if not table.schema.equals(SCHEMA) or any(column.null_count for column in table.columns):
        raise ValueError("its columns are not those of a file of draws")
    draws = table.to_pydict()
    nearer_half = 3 / 8 * clips  # the others are of a quarter
    return [value for of, value in zip(draws["clips"], draws["value"], strict=True) if of >= nearer_half]


def remark(metric: Metric, found: Replicates) -> str | None:
    """The warning that a value rests on too few vectors, with its extrapolation and the range of the draws."""
    if found.count >= metric.enough:
        return None
    line = f"{metric.name} rests on {found.count:,} feature vectors: under {metric.enough:,} it is biased upwards"
    if not len(found.values):
        return f"{line}; too few clips for subsamples"
    infinite, low, high = (
        f"{number:.{metric.digits}f}" if number is not None else None
        for number in (found.infinite, found.values.min(), found.values.max())
    )
    beyond = f"extrapolated to infinitely many: {infinite}" if infinite else "they do not allow to extrapolate"
    sizes = f"{found.vectors.min():,}-{found.vectors.max():,}"
    return f"{line}; {beyond} ({len(found.values)} seeded subsamples of {sizes} vectors: {low}-{high})"
