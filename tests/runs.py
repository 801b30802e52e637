"""Results as eval writes them: rows, and the record of the run that they name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmark import provenance
from leaderboards import results
from leaderboards.results import Result


def recorded(rows: Sequence[Result], metrics: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """A record that fits the rows, which are of one method."""
    row = rows[0]
    protocol = {"name": row.protocol, "dataset": row.dataset, "digest": "d", "title": row.protocol.upper(), "seed": 0}
    return {
        "code": {"version": "1", "git": {"commit": "abc", "modified": False}},
        "device": "cpu",
        "protocol": {**protocol, "columns": [], "metrics": list(metrics), "pairing": {}},
        "pairs": "same",
        "split": {"rule": "ratio", "digest": "s"},
        "method": {"name": row.method, "title": row.method.title(), "kind": "method"},
        "metrics": {name: of for name, of in metrics.items() if name in {r.metric for r in rows}},
        "extractors": {},
        "weights": {"net": "w"},
        "views": ["survey@1", 2],
        "clips": {r.clip_id: {} for r in rows if r.clip_id is not None},
    } | changes


def write_run(folder: Path, rows: Sequence[Result], record: Mapping[str, Any], **circumstances: Any) -> Path:
    """The file of the rows' method, and the record under the id that its contents give; returns the record's path."""
    run_id = provenance.run_id(record)
    results.write([replace(row, run_id=run_id) for row in rows], folder / f"{rows[0].method}.parquet")
    return provenance.write(folder / "runs", run_id, record, {"hardware": {"cpu": "c"}, "workers": 1, **circumstances})
