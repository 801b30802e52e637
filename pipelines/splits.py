"""Splits, decided by names alone, before anything is decoded: a rejected clip changes nothing.

Whole identities by default. Other units exist because papers used them; a card says plainly when they let an
identity into several splits.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pipelines.datasets import Source

SPLITS = ("train", "val", "test")
Unit = Literal["identity", "sentence", "clip"]
By = Literal["identity", "sentence", "both", "clip"]
DigestOf = Literal["identity", "clip", "video"]


class SplitError(Exception):
    """A split that cannot be made; one line with the likely cause."""


@dataclass(frozen=True, slots=True)
class Card:
    """A split: what two labs compare.

    unit         what the rule keeps whole
    assignment   clip_id -> split; the recordings that the rule leaves out are not in it, and `outside` counts them
    identities   of each split; counts of recordings by split and emotion
    without      what a split lacks of its identities: "sad", or "M030 sad" for one of them
    digest_of    what the digests are over. "identity": the names of people, so that they do not depend on which
                 recordings a lab holds; "clip" or "video": the names of what the rule picked
    digests      one for each split, so that labs whose training sets differ can compare their test sets
    """

    rule: str
    unit: Unit
    assignment: dict[str, str]
    outside: int
    identities: dict[str, tuple[str, ...]]
    counts: dict[str, dict[str, int]]
    note: str
    digest_of: DigestOf
    digest: str
    digests: dict[str, str]
    without: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def shared(self) -> tuple[str, ...]:
        """Identities in several splits, sorted."""
        splits = Counter(name for names in self.identities.values() for name in names)
        return tuple(sorted(name for name, n in splits.items() if n > 1))

    def text(self) -> str:
        """The card as lines to print."""
        shared = self.shared()
        overlap = f"identities may overlap: {len(shared)} in several splits" if shared else "no identity in two splits"
        lines = [f"split {self.rule}   digest {self.digest[:16]} over {self.digest_of} names", f"  {overlap}"]
        for split in SPLITS:
            names, counts = self.identities[split], self.counts[split]
            lines.append(f"  {split:5} {len(names):3} identities {sum(counts.values()):6} recordings   {_list(names)}")
            if counts:
                lines.append("        " + "  ".join(f"{emotion} {n}" for emotion, n in sorted(counts.items())))
            if split in self.without:
                lines.append(f"        without {', '.join(self.without[split])}")
            if names:
                lines.append(f"        digest {self.digests[split][:16]}")
        if self.outside:
            lines.append(f"  {self.outside} recordings are outside this split")
        if self.note:
            lines.append(f"  {self.note}")
        return "\n".join(lines)

    def json(self) -> str:
        """Everything but the assignment, which the manifest holds."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "assignment"}
        return json.dumps(values | {"shared_identities": self.shared()}, indent=1, sort_keys=True) + "\n"


def _list(names: Sequence[str]) -> str:
    return " ".join(names) if len(names) <= 16 else f"{' '.join(names[:16])} ... (all in split.json)"


def _sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def by_hash(seed: object, names: Iterable[str]) -> list[str]:
    """The names in an order drawn by `seed`: that of the SHA-256 of "seed:name"; equal on every machine, and the
    order of two names does not depend on the others."""
    return sorted(names, key=lambda name: (hashlib.sha256(f"{seed}:{name}".encode()).hexdigest(), name))


def _card(
    rule: str,
    unit: Unit,
    assignment: dict[str, str],
    sources: Sequence[Source],
    note: str,
    digest_of: DigestOf,
    identities: dict[str, tuple[str, ...]] | None = None,
    without: dict[str, tuple[str, ...]] | None = None,
) -> Card:
    """The card of an assignment clip_id -> split; `identities` when the rule names them, else those it took."""
    counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    people: dict[str, set[str]] = {split: set() for split in SPLITS}
    taken: dict[str, set[str]] = {split: set() for split in SPLITS}
    for source in sources:
        if (split := assignment.get(source.clip_id)) is not None:
            counts[split][source.emotion] += 1
            people[split].add(source.identity)
            taken[split].add(source.extra["origin"] if digest_of == "video" else source.clip_id)
    identities = identities or {s: tuple(sorted(names)) for s, names in people.items()}
    without = {s: cells for s, cells in (without or {}).items() if cells}
    names = identities if digest_of == "identity" else {s: tuple(sorted(found)) for s, found in taken.items()}
    content = {s: [names[s], without[s]] if s in without else names[s] for s in SPLITS}
    return Card(
        rule,
        unit,
        assignment,
        len(sources) - len(assignment),
        identities,
        {s: dict(sorted(c.items())) for s, c in counts.items()},
        note,
        digest_of,
        _sha256(content),
        {s: _sha256(content[s]) for s in SPLITS},
        without,
    )


def make_card(
    rule: str,
    split_of: Mapping[str, str],
    sources: Sequence[Source],
    note: str = "",
    *,
    others: bool = False,
    without: Mapping[str, Sequence[str]] | None = None,
) -> Card:
    """The card of an assignment identity -> split. `without` names what to leave out of a split: an emotion, or an
    identity and an emotion ("M030 sad").

    Raises SplitError for an identity that the assignment does not name, unless `others` puts it outside.
    """
    missing = {split: tuple(sorted(cells)) for split, cells in (without or {}).items()}
    assignment = {}
    for source in sources:
        split = split_of.get(source.identity)
        if split is None and not others:
            raise SplitError(f"identity {source.identity!r} is in the dataset but not in the split {rule!r}")
        if split and not {source.emotion, f"{source.identity} {source.emotion}"} & set(missing.get(split, ())):
            assignment[source.clip_id] = split
    identities = {s: tuple(sorted(i for i, where in split_of.items() if where == s)) for s in SPLITS}
    return _card(rule, "identity", assignment, sources, note, "identity", identities, missing)


def pick_card(
    rule: str,
    unit: Unit,
    assignment: Mapping[str, str],
    sources: Sequence[Source],
    note: str = "",
    *,
    digest_of: Literal["clip", "video"] = "clip",
) -> Card:
    """The card of an assignment clip_id -> split; the other recordings are outside."""
    return _card(rule, unit, dict(assignment), sources, note, digest_of)


def hold_out(card: Card, sources: Sequence[Source], emotions: Sequence[str]) -> Card:
    """The same split, but train and val are without these emotions: they stay in test alone.

    Raises SplitError for an emotion of which the test split has no recording.
    """
    for emotion in emotions:
        if not card.counts["test"].get(emotion):
            known = ", ".join(sorted(card.counts["test"])) or "nothing"
            raise SplitError(f"--hold-out-emotion {emotion}: the test split has none of it; it has {known}")
    out = {s.clip_id for s in sources if s.emotion in emotions and card.assignment.get(s.clip_id) != "test"}
    kept = {clip_id: split for clip_id, split in card.assignment.items() if clip_id not in out}
    without = {s: tuple(sorted({*card.without.get(s, ()), *emotions})) for s in ("train", "val")}
    rule = f"{card.rule} held out {' '.join(sorted(set(emotions)))}"
    named = card.identities if card.digest_of == "identity" else None
    return _card(rule, card.unit, kept, sources, card.note, card.digest_of, named, card.without | without)


_KEY: dict[Unit, Callable[[Source], str | None]] = {
    "identity": lambda source: source.identity,
    "sentence": lambda source: source.sentence,
    "clip": lambda source: source.clip_id,
}


def shares(sources: Sequence[Source], fractions: tuple[float, float, float], seed: int, unit: Unit) -> dict[str, str]:
    """Assign whole units to train, val and test so that each emotion comes near its share in each: unit -> split.

    Units are taken in an order drawn by `seed` and each goes where the recordings by emotion then lie nearest to
    the fractions (least squares). Every split with a positive fraction gets a unit where there are enough: test
    first, then train, then val.

    Raises SplitError for fractions that are negative or do not add up to 1, and for recordings without a sentence
    when that is the unit.
    """
    if not all(0 <= f <= 1 for f in fractions) or abs(sum(fractions) - 1) > 1e-6:
        raise SplitError(f"the ratio {fractions} must be three numbers from 0 to 1 that add up to 1")
    counts: dict[str, Counter[str]] = {}
    for source in sources:
        key = _KEY[unit](source)
        if key is None:
            raise SplitError(
                f"{source.dataset} does not tell which sentence is said (a take's number is none), so that no split "
                "by sentence can be made; use --split-by identity"
            )
        counts.setdefault(key, Counter())[source.emotion] += 1
    total: Counter[str] = sum(counts.values(), Counter())
    share = dict(zip(SPLITS, fractions, strict=True))
    filled: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    order = by_hash(seed, counts)
    owed = [s for s in ("test", "train", "val") if share[s] > 0][: len(order)]

    def distance(split: str, new: Mapping[str, int]) -> float:
        """By how much the squared distance to the target grows; emotions that `new` lacks do not change it."""
        return sum(n * (2 * (filled[split][e] - share[split] * total[e]) + n) for e, n in sorted(new.items()))

    split_of = {}
    for k, key in enumerate(order):
        open_splits = owed if len(order) - k <= len(owed) else [s for s in SPLITS if share[s] > 0]
        best = min(open_splits, key=lambda s: (distance(s, counts[key]), SPLITS.index(s)))
        split_of[key] = best
        filled[best] += counts[key]
        if best in owed:
            owed.remove(best)
    return split_of


def ratio(sources: Sequence[Source], fractions: tuple[float, float, float], seed: int, by: By = "identity") -> Card:
    """Split by shares of train, val and test, near the same for every emotion (see `shares`).

    by   identity   no person is in two splits
         sentence   no sentence is; people are
         both       neither: people and sentences are split apart from each other, and the recordings where the two
                    disagree are outside
         clip       each recording for itself: people, sentences and other views of a take are in several splits

    Raises SplitError as `shares`.
    """
    rule = f"ratio {'/'.join(f'{f:g}' for f in fractions)} seed {seed}"
    if by == "identity":
        return make_card(rule, shares(sources, fractions, seed, "identity"), sources)
    if by == "clip":
        return pick_card(f"{rule} by clip", "clip", shares(sources, fractions, seed, "clip"), sources)
    said = shares(sources, fractions, seed, "sentence")
    who = shares(sources, fractions, seed, "identity") if by == "both" else {}
    assignment = {}
    for source in sources:
        split = said[str(source.sentence)]
        if who.get(source.identity, split) == split:
            assignment[source.clip_id] = split
    number = Counter(said.values())
    note = "sentences: " + ", ".join(f"{split} {number[split]}" for split in SPLITS)
    return pick_card(f"{rule} by {by}", "sentence", assignment, sources, note)


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
