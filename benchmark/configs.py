"""TOML files of methods and protocols: where they are found, and strict reading into a dataclass."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from importlib.resources import files
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from benchmark.errors import BenchError

Kind = Literal["methods", "protocols"]
T = TypeVar("T")

LISTED = 16  # words in a hint

# Names become folder names, file names and table cells.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")


def shipped(kind: Kind) -> dict[str, Path]:
    """Name to file of the methods or protocols of the package."""
    return _in(Path(str(files("benchmark"))) / kind)


def available(kind: Kind, workspace: Path) -> dict[str, Path]:
    """Name to file of every method or protocol: the package's, over which the workspace's own win."""
    return shipped(kind) | _in(workspace / kind)


def _in(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.glob("[!.]*.toml"))}


def find(kind: Kind, name_or_path: str, workspace: Path) -> Path:
    """The file behind a name, or behind a path that ends in .toml. Raises BenchError with the nearest name."""
    if name_or_path.endswith(".toml"):
        path = Path(name_or_path)
        if not path.is_file():
            raise BenchError(f"{name_or_path}: no such file; --{kind[:-1]} takes a name or the path of a TOML file")
        return path
    known = available(kind, workspace)
    if name_or_path not in known:
        raise BenchError(f"no {kind[:-1]} is named {name_or_path!r}; {nearest(name_or_path, sorted(known))}")
    return known[name_or_path]


def read(path: Path, cls: type[T]) -> T:
    """Build the dataclass `cls` from a TOML file. Raises BenchError naming the file, the key and what it takes."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BenchError(f"{path}: not a TOML file ({error})") from None
    built = _build(table, cls, str(path))
    name = getattr(built, "name", "")
    if not NAME.fullmatch(name):
        raise BenchError(f"{path}: name = {name!r} must be letters, digits and . _ + - (it becomes a file name)")
    if name != path.stem:
        raise BenchError(f"{path}: name = {name!r}; expected {path.stem!r}, that of the file")
    return built


def digest(value: Any) -> str:
    """SHA-256 of anything that JSON can hold, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def nearest(word: str, known: Sequence[str]) -> str:
    """A hint for an error: the known word that is meant, or all of them, of many the first."""
    near = difflib.get_close_matches(word, known, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    more = f" and {len(known) - LISTED} more" if len(known) > LISTED else ""
    return f"known: {', '.join(known[:LISTED])}{more}"


def _build(table: Mapping[str, Any], cls: type[T], where: str) -> T:
    assert is_dataclass(cls)
    hints = get_type_hints(cls)
    known = {field.name: field for field in fields(cls)}
    for key in table:
        if key not in known:
            raise BenchError(f"{where}: unknown key {key!r}; {nearest(key, sorted(known))}")
    for field in known.values():
        if field.name not in table and field.default is MISSING and field.default_factory is MISSING:
            raise BenchError(f"{where}: the key {field.name!r} is missing")
    return cls(**{key: _convert(value, hints[key], f"{where}: {key}") for key, value in table.items()})


def _convert(value: Any, hint: Any, where: str) -> Any:
    """`value` as the annotation says; TOML arrays become tuples and sub-tables dataclasses."""
    origin = get_origin(hint)
    if origin is UnionType:  # a sub-table that may be left out
        return _convert(value, get_args(hint)[0], where)
    if is_dataclass(hint) and isinstance(hint, type) and isinstance(value, dict):
        return _build(value, hint, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_convert(item, get_args(hint)[0], where) for item in value)
    if origin is Literal:
        if value in get_args(hint):
            return value
        raise BenchError(f"{where} = {value!r}; it takes {' or '.join(map(repr, get_args(hint)))}")
    if origin is not None and isinstance(value, dict) and issubclass(origin, Mapping):
        return value
    if origin is None and type(value) is hint:  # exact: a bool is no int here
        return value
    raise BenchError(f"{where} = {value!r}; expected {getattr(hint, '__name__', hint)}")
