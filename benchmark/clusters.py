"""What `bench clusters` does: the clustering strength of an embedding table in both forms, as text and as CSV."""

from __future__ import annotations

import csv
from dataclasses import asdict, fields
from pathlib import Path

from benchmark.errors import writing
from metrics import clusters
from metrics.clusters import Form, Strength


def measure(path: Path, *, normalise: bool, min_size: int, permutations: int, seed: int) -> dict[Form, list[Strength]]:
    """Both forms of the strength, per emotion and over all. Raises MetricError as metrics.clusters."""
    table = clusters.read(path)
    options = {"min_size": min_size, "permutations": permutations, "seed": seed}
    return {form: clusters.permutation_test(table, form, normalise=normalise, **options) for form in clusters.FORMS}


def text(found: dict[Form, list[Strength]]) -> str:
    """A line an emotion and form."""
    head = (
        f"{'form':10}{'emotion':12}{'people':>7}{'vectors':>9}{'strength':>10}{'null':>8}{'95 % of null':>17}{'p':>9}"
    )
    lines = [
        f"{form:10}{row.emotion:12}{row.identities:7}{row.vectors:9}{row.value:10.2f}{row.null_mean:8.2f}"
        f"{row.null_low:9.2f} ..{row.null_high:5.2f}{row.p:9.4f}"
        for form, rows in found.items()
        for row in rows
    ]
    return "\n".join([head, *lines])


def write(found: dict[Form, list[Strength]], path: Path) -> None:
    """The same in full precision. Raises BenchError where it cannot be written."""
    from pipelines.media import atomic_path

    columns = ["form", *(field.name for field in fields(Strength))]
    with writing(path.parent), atomic_path(path) as temporary, temporary.open("w", newline="") as out:
        table = csv.writer(out, lineterminator="\n")
        table.writerow(["strength" if name == "value" else name for name in columns])
        table.writerows([form, *asdict(row).values()] for form, rows in found.items() for row in rows)
