"""docs/parity.md: how far each metric is from independent implementations. Part of pytest, through conftest.py.

    python -m pytest -m parity --parity-report=docs/parity.md

A test that takes the fixture `parity` calls it with our numbers and somebody else's: it fails where they are further
apart than the tolerance, and leaves a line for the report.
"""

from __future__ import annotations

import datetime
import fnmatch
import json
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

CLOSED, NETWORK = 1e-6, 1e-4  # of closed forms, and of float32 networks that sum in another order
VALUE = "value"
REFERENCES = Path(__file__).with_name("references.json")
HERE = ("numpy", "scipy", "scikit-image", "opencv-contrib-python", "pillow", "torch", "jax")

TEXT = """# Every metric against an independent implementation

Made by `make parity` on {date}: {machine}; {versions}. In environments of their own ran {recorded}; their numbers
are kept in `tests/references.json`, which `python tests/references.py FOLDER` makes.

The difference is the largest one of the numbers compared, relative to the largest of the other implementation's
(absolute where those are 0). Allowed are 1e-6 for closed forms and 1e-4 for networks, unless a line says otherwise.
Lines of a part (not `value`) compare a step of the computation; a `*` stands for all metrics so named. Without
`../shared/data` the tests that need real clips are skipped, and this page cannot be made.

"""


@dataclass(frozen=True, slots=True)
class Line:
    """One comparison; `metrics` is a name, or a pattern of names."""

    metrics: str
    part: str
    against: str
    on: str
    count: int
    difference: float
    tolerance: float

    def row(self) -> str:
        numbers = f"{self.count:,} | {self.difference:.1e} | {self.tolerance:.0e}"
        return f"| {self.metrics.replace('*', chr(92) + '*')} | {self.part} | {self.against} | {self.on} | {numbers} |"


@dataclass(slots=True)
class Record:
    """What a run of the tests compared, and the tests that could not."""

    lines: list[Line] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


RECORD = pytest.StashKey[Record]()
Parity = Callable[..., None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--parity-report", type=Path, metavar="FILE", help="write what the parity tests compared")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RECORD] = Record()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "parity" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.parity)


def pytest_deselected(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("parity"):
            item.config.stash[RECORD].skipped[item.name] = "left out of this run"


@pytest.fixture
def parity(request: pytest.FixtureRequest) -> Parity:
    """parity("family/variant", against=..., on=..., ours=..., expected=..., tolerance=...): see the module's text.

    metrics   a name, or a pattern of names ("lmd/*"); each must match a metric
    part      which step is compared; "value" is the metric as users get it
    ours, expected   numbers or arrays of one shape
    """
    import metrics as library

    def compare(
        metrics: str, *, against: str, on: str, ours: Any, expected: Any, tolerance: float, part: str = VALUE
    ) -> None:
        assert fnmatch.filter(library.names(), metrics), f"no metric is named {metrics}"
        one, other = np.asarray(ours, np.float64), np.asarray(expected, np.float64)
        assert one.shape == other.shape, f"{metrics}, {part}: {one.shape} against {other.shape} of {against}"
        assert one.size, f"{metrics}, {part}: nothing was compared"
        scale = float(np.abs(other).max()) or 1.0
        difference = float(np.abs(one - other).max()) / scale  # NaN fails below
        assert difference <= tolerance, f"{metrics}, {part}: {difference:.2e} from {against} on {on}"
        request.config.stash[RECORD].lines.append(Line(metrics, part, against, on, one.size, difference, tolerance))

    return compare


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    if report.skipped and item.get_closest_marker("parity"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        item.config.stash[RECORD].skipped[item.name] = reason.removeprefix("Skipped: ")
    return report


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    path: Path | None = session.config.getoption("--parity-report")
    if path is None:
        return
    if exitstatus != 0:
        raise pytest.UsageError(f"{path} is left as it was: not every comparison held")
    waiting = path.with_name(f".{path.name}.part")
    waiting.write_text(page(session.config.stash[RECORD]))
    waiting.replace(path)


def page(record: Record) -> str:
    """The report: one table sorted by metric, then the metrics whose value was compared with nothing."""
    merged: dict[tuple[str, str, str, str], Line] = {}
    for line in record.lines:
        key = (line.metrics, line.part, line.against, line.on)
        before = merged.get(key)
        count, difference = (before.count, before.difference) if before else (0, 0.0)
        merged[key] = Line(*key, count + line.count, max(difference, line.difference), line.tolerance)
    recorded = json.loads(REFERENCES.read_text())["versions"]
    text = TEXT.format(
        date=datetime.date.today(),
        machine=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, CPU",
        versions=", ".join(f"{name} {version(name)}" for name in HERE),
        recorded=", ".join(f"{name} {number}" for name, number in recorded.items()),
    )
    head = "| metric | compared | against | on | numbers | difference | allowed |\n|---|---|---|---|---|---|---|\n"
    lines = sorted(merged.values(), key=lambda line: (line.metrics, line.part != VALUE, line.part, line.against))
    text += head + "\n".join(line.row() for line in lines) + "\n"
    absent = without_value(lines)
    if absent:
        text += "\n## Whose value could not be compared here\n\n| metric | why | parts compared |\n|---|---|---|\n"
        text += "\n".join(f"| {name} | {why} | {parts} |" for name, why, parts in absent) + "\n"
    if record.skipped:
        text += "\n## Tests that were skipped\n\n"
        text += "\n".join(f"- `{name}`: {reason}" for name, reason in sorted(record.skipped.items())) + "\n"
    return text


def without_value(lines: list[Line]) -> list[tuple[str, str, str]]:
    """(metric, reason, its parts that were compared) of each metric that no line of a value is about."""
    import metrics as library
    from benchmark import catalogue

    found = []
    for name in library.names():
        about = [line for line in lines if fnmatch.fnmatchcase(name, line.metrics)]
        if not any(line.part == VALUE for line in about):
            missing = catalogue.missing(library.metric(name))
            why = f"not on this machine: {', '.join(missing)}" if missing else "nobody else's implementation"
            found.append((name, why, ", ".join(dict.fromkeys(line.part for line in about)) or "none"))
    return found
