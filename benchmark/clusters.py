"""What `bench clusters` does: the clustering strength of an embedding table in both forms, as text and as CSV; and the
reports of several tables, as `bench leaderboard --layout dice-talk-table-5 --clusters` takes them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from benchmark.errors import BenchError, writing
from leaderboards import clusterings
from leaderboards.clusterings import Report
from leaderboards.results import ResultError
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


def write(found: dict[Form, list[Strength]], path: Path, embeddings: Path, **options: object) -> None:
    """The same in full precision, with how it was measured (the options of `measure`) and of which table: the columns
    of leaderboards.clusterings. Raises BenchError where it cannot be written."""
    from pipelines.media import atomic_path, file_sha256

    made = {**options, "embeddings_sha256": file_sha256(embeddings)}
    columns = ["form", *(field.name for field in fields(Strength))]
    with writing(path.parent), atomic_path(path) as temporary, temporary.open("w", newline="") as out:
        table = csv.writer(out, lineterminator="\n")
        table.writerow([*("strength" if name == "value" else name for name in columns), *made])
        table.writerows([form, *asdict(row).values(), *made.values()] for form, rows in found.items() for row in rows)


def reports(given: Sequence[str]) -> list[Report]:
    """Reports given as "name=file", under the names that a table shows.

    Raises BenchError for a text that is not so, a name given twice, a file that is no report, and for reports that were
    measured with different options.
    """
    found: dict[str, Report] = {}
    for words in given:
        name, equals, file = words.partition("=")
        if not (name.strip() and equals and file):
            raise BenchError(f'--clusters {words!r}; expected NAME=FILE.csv, as "audio=audio.csv"')
        if name in found:
            raise BenchError(f"--clusters names {name!r} twice")
        try:
            found[name] = clusterings.read(Path(file), name)
        except ResultError as error:
            raise BenchError(str(error)) from None
        if field := clusterings.differing(found.values()):
            first = next(iter(found))
            raise BenchError(f"--clusters {first} and {name} were measured with different {field}; measure one again")
    return list(found.values())
