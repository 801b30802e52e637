"""The papers' own numbers, as they printed them, and what the papers' own arithmetic says of them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from importlib.resources import files
from importlib.resources.abc import Traversable
from statistics import fmean

from leaderboards.results import ResultError

DICE_TALK = (
    "arXiv:2504.18087 Disentangle Identity, Cooperate Emotion: Correlation-Aware Emotional Talking Portrait Generation"
)
EAT_FACE = "EAT-Face: Emotion-Controllable Audio-Driven Talking Face Generation via Diffusion Model"
CONDITIONINGS = ("one-shot", "target-pose", "unknown")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?%?")


@dataclass(frozen=True, slots=True)
class Value:
    """One value of a paper.

    source        arXiv id, where there is one, and title
    table         "Table 1", or the section of a number in the text
    group         dataset or condition as printed; empty where the table has none
    method        as printed; so is metric, the heading of the column
    family        our family of metrics ("fvd"), "rating" for a user study, empty for text and for derived numbers
    value         exactly as printed, with its zeros and its %
    conditioning  "one-shot" or "target-pose" where the paper says so, else "unknown"
    note          what the paper says besides
    """

    source: str
    table: str
    group: str
    method: str
    metric: str
    family: str
    value: str
    conditioning: str
    note: str


@dataclass(frozen=True, slots=True)
class Finding:
    """A number that can be computed from other numbers of its paper: as printed, and as computed."""

    source: str
    table: str
    what: str
    printed: str
    computed: str
    consistent: bool

    def __str__(self) -> str:
        said = "consistent" if self.consistent else "inconsistent in the source"
        return f"{self.table}, {self.what}: printed {self.printed}, computed {self.computed} ({said})"


def load() -> list[Value]:
    """Every published value that the package brings, in the papers' order. Raises ResultError on a damaged file."""
    folder = files("leaderboards") / "published"
    paths = sorted((path for path in folder.iterdir() if path.name.endswith(".csv")), key=lambda path: path.name)
    return [value for path in paths for value in read(path)]


def read(path: Traversable) -> list[Value]:
    """The values of one CSV file.

    Raises ResultError, naming the line, when the file is not UTF-8, lacks a column or a field, gives a value twice,
    or has a value of a metric that is no number.
    """
    try:
        lines = list(csv.reader(io.StringIO(path.read_bytes().decode("utf-8")), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ResultError(f"{path}: not a readable file of published values ({error})") from None
    names = [field.name for field in fields(Value)]
    if not lines or lines[0] != names:
        raise ResultError(f"{path}: the first line must be {','.join(names)}")
    found: list[Value] = []
    seen: set[tuple[str, ...]] = set()
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(names):
            raise ResultError(f"{path}: line {number} has {len(line)} fields; expected {len(names)}")
        value = Value(*line)
        problem = _problem(value)
        if astuple(value)[:5] in seen:
            problem = f"{value.method}, {value.metric} is given twice"
        if problem:
            raise ResultError(f"{path}: line {number}: {problem}")
        seen.add(astuple(value)[:5])
        found.append(value)
    return found


def number(text: str) -> float:
    """A printed number; percent stay percent."""
    return float(text.removesuffix("%"))


def _problem(value: Value) -> str | None:
    for name in ("source", "table", "method", "metric", "value"):
        if not getattr(value, name):
            return f"{name} is empty"
    if value.conditioning not in CONDITIONINGS:
        return f"conditioning {value.conditioning!r}; it is {', '.join(CONDITIONINGS)}"
    if value.family and not _NUMBER.fullmatch(value.value):
        return f"{value.value!r} is no number, but a value of {value.family}"
    return None


def check(values: Iterable[Value]) -> list[Finding]:
    """Numbers of DICE-Talk and EAT-Face recomputed from others of the same paper. What disagrees is told, not mended:
    a slip of ours differs from the paper's text, a slip of the paper's stays as the paper has it.

    A number is consistent when it is within half a unit of its last digit of what the printed inputs give; Emo-Score,
    whose inputs are themselves rounded, within 1e-4. What cannot be computed from `values` is left out.
    """
    table = {(v.source, v.table, v.group, v.method, v.metric): v for v in values}
    return [*_emo_scores(table), *_dice_talk(table), *_eat_face(table)]


_Table = Mapping[tuple[str, str, str, str, str], Value]


def _emo_scores(table: _Table) -> Iterator[Finding]:
    """Emo-Score is the mean over neutral and three other emotions (DICE-Talk, section 4.2)."""
    for (source, where, group, method, metric), score in table.items():
        if metric == "Emo-Score":
            neutral, other = (table.get((source, where, group, method, m)) for m in ("Neutral", "Non-neutral"))
            if neutral and other:
                computed = (number(neutral.value) + 3 * number(other.value)) / 4
                yield _finding(score, f"{method}, {group}: Emo-Score", computed, digits=6, within=1e-4)


def _dice_talk(table: _Table) -> Iterator[Finding]:
    claim = table.get((DICE_TALK, "Section 4.4", "Out of Domain", "Ours", "improvement of Emotion"))
    ratings = sorted(
        number(v.value) for v in table.values() if (v.source, v.table, v.metric) == (DICE_TALK, "Table 3", "Emotion")
    )
    if claim and len(ratings) > 1:
        yield _finding(claim, "improvement of Emotion over the second best", 100 * (ratings[-1] / ratings[-2] - 1))
    for metric in ("Emo-Score", "Neutral", "Non-neutral"):
        again = table.get((DICE_TALK, "Table 4", "Out of Domain", "Ours", metric))
        first = table.get((DICE_TALK, "Table 1", "Out of Domain Emotion Testset", "Ours-V", metric))
        if again and first:
            yield _finding(again, f"Ours: {metric} of Ours-V in Table 1", number(first.value), digits=4)


def _eat_face(table: _Table) -> Iterator[Finding]:
    own = "EAT-Face(Ours)"
    average = table.get((EAT_FACE, "Table II", "Average Emo-Acc.", own, "Emo-Acc."))
    emotions = [
        number(v.value) for v in table.values() if (v.source, v.table) == (EAT_FACE, "Table II") and v is not average
    ]
    if average and emotions:
        yield _finding(average, "mean Emo-Acc. of the eight emotions", fmean(emotions))
    for where, group, method, metric, of in (
        ("Table IV", "MEAD", "Ours", "Emo-Acc.", average),
        ("Section IV-C", "MEAD", own, "average Emo-Acc.", average),
        ("Section IV-D", "MEAD", own, "average Tend.", table.get((EAT_FACE, "Table IV", "MEAD", "Ours", "Tend."))),
    ):
        claim = table.get((EAT_FACE, where, group, method, metric))
        if claim and of:
            yield _finding(claim, f"{metric} of {of.table}", number(of.value))
    for key, claim in table.items():
        before, _, rival = key[4].partition("reduction of FID over ")
        if not before and rival:
            cuts = [cut for group in ("MEAD", "CREMA-D") if (cut := _cut(table, group, own, rival)) is not None]
            if cuts:
                yield _finding(claim, f"mean reduction of FID over {rival} in Table I", 100 * fmean(cuts))


def _cut(table: _Table, group: str, own: str, rival: str) -> float | None:
    """The share by which a method's FID is below a rival's."""
    fids = {k[3].partition("[")[0]: v for k, v in table.items() if k[1:3] == ("Table I", group) and k[4] == "FID"}
    if own not in fids or rival not in fids:
        return None
    return 1 - number(fids[own].value) / number(fids[rival].value)


def _finding(
    value: Value, what: str, computed: float, *, digits: int | None = None, within: float | None = None
) -> Finding:
    decimals = len(value.value.removesuffix("%").partition(".")[2])
    within = within if within is not None else 0.5 * 10**-decimals
    sign = "%" if value.value.endswith("%") else ""
    text = f"{computed:.{decimals if digits is None else digits}f}{sign}"
    consistent = abs(number(value.value) - computed) <= within + 1e-9  # floats of decimals
    return Finding(value.source, value.table, what, value.value, text, consistent)


def of(values: Sequence[Value], source: str, table: str) -> list[Value]:
    """The values of one table of one paper."""
    return [value for value in values if (value.source, value.table) == (source, table)]
