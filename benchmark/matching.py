"""Somebody's folder of videos against the ids of a protocol."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipelines.datasets import printable

SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".webm"})


@dataclass(frozen=True, slots=True)
class Match:
    """exact, fuzzy: the file of each pair id. ambiguous: what speaks against choosing one, by pair id.
    missing: ids without any file. extra: files that belong to no pair, or to several."""

    exact: dict[str, Path]
    fuzzy: dict[str, Path]
    ambiguous: dict[str, tuple[Path, ...]]
    missing: tuple[str, ...]
    extra: tuple[Path, ...]

    @property
    def found(self) -> dict[str, Path]:
        return self.exact | self.fuzzy

    def report(self, most: int = 5) -> str:
        """Lines for a person: counts, and the first `most` names of what did not match."""

        def some(names: Iterable[object]) -> str:
            texts = [printable(str(name)) for name in names]
            return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")

        lines = [f"matched {len(self.found)} pairs: {len(self.exact)} by exact name, {len(self.fuzzy)} by part of it"]
        lines += [f"  {printable(path.name)} taken for {pair_id}" for pair_id, path in list(self.fuzzy.items())[:most]]
        if self.ambiguous:
            lines.append(f"ambiguous, not scored: {len(self.ambiguous)} pairs")
            for pair_id, files in list(self.ambiguous.items())[:most]:
                lines.append(f"  {pair_id}: {some(path.name for path in files)}")
        if self.missing:
            lines.append(f"without a video: {len(self.missing)} pairs ({some(self.missing)})")
        if self.extra:
            lines.append(f"files of no pair: {len(self.extra)} ({some(path.name for path in self.extra)})")
        return "\n".join(lines)


def videos(folder: Path) -> list[Path]:
    """Every file below `folder` with the suffix of a video, sorted; hidden files are not looked at."""
    return sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )


def match(pair_ids: Iterable[str], files: Iterable[Path]) -> Match:
    """Find the video of each pair, independent of the order of `files`.

    A file whose stem is the id wins. Otherwise case, accents' encoding and the kind of separators do not count,
    and words may stand before or after the id (`ours-<id>_out.mp4`); where a name holds several ids the longest
    counts if it contains the others (`a_1` in `a_10`: no, ids end where words end). Two files for one id, or
    two ids in one name, are never chosen between.
    """
    ids, pool = sorted(set(pair_ids)), sorted(files)
    stems: dict[str, list[Path]] = defaultdict(list)
    for path in pool:
        stems[path.stem].append(path)
    exact = {i: stems[i][0] for i in ids if len(stems.get(i, ())) == 1}
    ambiguous = {i: tuple(stems[i]) for i in ids if len(stems.get(i, ())) > 1}
    words = {i: _words(i) for i in ids}
    named = set(ids)
    candidates: dict[str, list[Path]] = defaultdict(list)
    unclear: dict[str, list[Path]] = defaultdict(list)
    extra = []
    for path in (path for path in pool if path.stem not in named):
        stem = _words(path.stem)
        inside = [i for i in ids if words[i] in stem]
        longest = [i for i in inside if not any(words[i] in words[o] and words[i] != words[o] for o in inside)]
        free = [i for i in longest if i not in exact and i not in ambiguous]
        for i in free:
            (candidates if len(longest) == 1 else unclear)[i].append(path)
        if not free or len(longest) > 1:
            extra.append(path)
    fuzzy = {}
    for i in ids:
        if i in exact or i in ambiguous or not (candidates[i] or unclear[i]):
            continue
        if len(candidates[i]) == 1:
            fuzzy[i] = candidates[i][0]
        else:
            ambiguous[i] = tuple(sorted({*candidates[i], *unclear[i]}))
    missing = tuple(i for i in ids if not (i in exact or i in fuzzy or i in ambiguous))
    return Match(exact, fuzzy, ambiguous, missing, tuple(extra))


def _words(name: str) -> str:
    """The words of a name between single underscores, in one spelling of case and accents."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return "_" + re.sub(r"[\W_]+", "_", folded).strip("_") + "_"
