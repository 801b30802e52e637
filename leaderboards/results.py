"""Result rows: the only thing that passes from evaluation to tables."""

from __future__ import annotations

from dataclasses import dataclass


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
