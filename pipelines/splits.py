"""Identity-disjoint splits, decided by names alone, before anything is decoded: a rejected clip changes nothing."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.datasets import Source

SPLITS = ("train", "val", "test")


class SplitError(Exception):
    """A split that cannot be made; one line with the likely cause."""


@dataclass(frozen=True, slots=True)
class Card:
    """A split: what two labs compare. `identities` of each split; `counts` of recordings by split and emotion;
    `digest` over the assignment alone, so that it does not depend on which recordings a lab holds."""

    rule: str
    identities: dict[str, tuple[str, ...]]
    counts: dict[str, dict[str, int]]
    note: str
    digest: str

    def split_of(self) -> dict[str, str]:
        """identity -> split."""
        return {name: split for split, names in self.identities.items() for name in names}

    def text(self) -> str:
        """The card as lines to print."""
        lines = [f"split {self.rule}   digest {self.digest[:16]}"]
        for split in SPLITS:
            names, counts = self.identities[split], self.counts[split]
            lines.append(f"  {split:5} {len(names):3} identities {sum(counts.values()):6} recordings   {_list(names)}")
            if counts:
                lines.append("        " + "  ".join(f"{emotion} {n}" for emotion, n in sorted(counts.items())))
        if self.note:
            lines.append(f"  {self.note}")
        return "\n".join(lines)

    def json(self) -> str:
        fields = {
            "rule": self.rule,
            "digest": self.digest,
            "identities": self.identities,
            "counts": self.counts,
            "note": self.note,
        }
        return json.dumps(fields, indent=1, sort_keys=True) + "\n"


def _list(names: Sequence[str]) -> str:
    return " ".join(names) if len(names) <= 16 else f"{' '.join(names[:16])} ... (all in split.json)"


def make_card(rule: str, split_of: Mapping[str, str], sources: Iterable[Source], note: str = "") -> Card:
    """The card of an assignment identity -> split. Raises SplitError for an identity that it does not name."""
    identities = {s: tuple(sorted(i for i, where in split_of.items() if where == s)) for s in SPLITS}
    counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    for source in sources:
        if source.identity not in split_of:
            raise SplitError(f"identity {source.identity!r} is in the dataset but not in the split {rule!r}")
        counts[split_of[source.identity]][source.emotion] += 1
    digest = hashlib.sha256(json.dumps(identities, sort_keys=True).encode()).hexdigest()
    return Card(rule, identities, {s: dict(sorted(c.items())) for s, c in counts.items()}, note, digest)


def ratio(sources: Sequence[Source], fractions: tuple[float, float, float], seed: int) -> Card:
    """Assign whole identities to train, val and test so that each emotion comes near its share in each.

    Identities are taken in an order drawn by `seed` and each goes where the recordings by emotion then lie
    nearest to the fractions (least squares). Every split with a positive fraction gets an identity where there
    are enough: test first, then train, then val.

    Raises SplitError for fractions that are negative or do not add up to 1.
    """
    if not all(0 <= f <= 1 for f in fractions) or abs(sum(fractions) - 1) > 1e-6:
        raise SplitError(f"the ratio {fractions} must be three numbers from 0 to 1 that add up to 1")
    counts: dict[str, Counter[str]] = {}
    for source in sources:
        counts.setdefault(source.identity, Counter())[source.emotion] += 1
    total = {e: sum(c[e] for c in counts.values()) for e in sorted({e for c in counts.values() for e in c})}
    target = {s: {e: f * n for e, n in total.items()} for s, f in zip(SPLITS, fractions, strict=True)}
    filled: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    order = sorted(counts, key=lambda i: hashlib.sha256(f"{seed}:{i}".encode()).hexdigest())
    owed = [s for s in ("test", "train", "val") if target[s] and fractions[SPLITS.index(s)] > 0][: len(order)]

    def distance(split: str, identity: str) -> float:
        def gap(s: str, extra: Mapping[str, int]) -> float:
            return sum((filled[s][e] + extra.get(e, 0) - target[s][e]) ** 2 for e in total)

        return gap(split, counts[identity]) - gap(split, {})

    split_of = {}
    for k, identity in enumerate(order):
        open_splits = owed if len(order) - k <= len(owed) else [s for s, f in zip(SPLITS, fractions, strict=True) if f]
        best = min(open_splits, key=lambda s: (distance(s, identity), SPLITS.index(s)))
        split_of[identity] = best
        filled[best] += counts[identity]
        if best in owed:
            owed.remove(best)
    shares = "/".join(f"{f:g}" for f in fractions)
    return make_card(f"ratio {shares} seed {seed}", split_of, sources)


def from_list(sources: Sequence[Source], path: Path) -> Card:
    """Read `identity,split` lines (CSV with that header). Identities that are in the dataset but not in the list,
    listed twice, or in an unknown split raise SplitError."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise SplitError(f"{path}: the split list cannot be read ({error})") from error
    if not rows or not {"identity", "split"} <= set(rows[0]):
        raise SplitError(f"{path}: expected a CSV with the header identity,split")
    split_of: dict[str, str] = {}
    for number, row in enumerate(rows, 2):
        identity, split = (row["identity"] or "").strip(), (row["split"] or "").strip()
        if split not in SPLITS:
            raise SplitError(f"{path}, line {number}: {split!r} is none of {', '.join(SPLITS)}")
        if split_of.setdefault(identity, split) != split:
            raise SplitError(f"{path}, line {number}: {identity!r} is in {split_of[identity]!r} already")
    return make_card(f"list {path.name}", split_of, sources)
