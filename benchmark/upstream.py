"""Do the original entry scripts take what the TOML files of other people's methods give them?

`python -m benchmark.upstream FOLDER` (`make upstream CHECKOUTS=FOLDER`) reads each script at the commit that the TOML
file names, from a git checkout or a bare repository FOLDER/NAME or FOLDER/OWNER/NAME, and runs nothing of it. It prints
a Markdown table and exits with 1 where an argument is unknown to the original, lacks its value, or is none of its
choices; where a script, a configuration file or one of its keys is not there; or where a word for an emotion is neither
in the script nor in the name of a file of the original.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import dropwhile
from pathlib import Path

import click

from benchmark import checkouts, configs
from benchmark.generate import load_method
from reference_models.external import Call


@dataclass(frozen=True, slots=True)
class Argument:
    """One add_argument of an entry script. takes: how many values, "?" for any number; choices: empty where free."""

    names: tuple[str, ...]
    takes: int | str
    choices: tuple[str, ...]
    required: bool


def arguments(script: str) -> list[Argument]:
    """What the parsers of a script declare. Raises SyntaxError where it is no Python 3."""
    return [_argument(node) for node in ast.walk(ast.parse(script)) if _declares(node)]


def _declares(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument"


def _argument(node: ast.AST) -> Argument:
    assert isinstance(node, ast.Call)
    names = tuple(str(arg.value) for arg in node.args if isinstance(arg, ast.Constant))
    options = {key.arg: key.value for key in node.keywords}
    action = _constant(options.get("action"))
    takes: int | str = 0 if action in ("store_true", "store_false") else 1
    if "nargs" in options:
        takes = "?"
    choices: tuple[str, ...] = ()
    if isinstance(options.get("choices"), ast.List | ast.Tuple):
        choices = tuple(str(_constant(item)) for item in options["choices"].elts)  # type: ignore[attr-defined]
    required = not names[0].startswith("-") or _constant(options.get("required")) is True
    return Argument(names, takes, choices, required)


def _constant(node: ast.AST | None) -> object:
    return node.value if isinstance(node, ast.Constant) else None


def problems(command: Sequence[str], script: str) -> list[str]:
    """Why the script would not take the arguments of `command`, which follow the script's name; empty if it would."""
    declared = arguments(script)
    named = {name: one for one in declared for name in one.names if name.startswith("-")}
    free = [one for one in declared if not one.names[0].startswith("-")]
    found, given, rest = [], [], list(command)
    while rest:
        word = rest.pop(0)
        if not re.match(r"--?[A-Za-z]", word):
            given.append(word)
        elif word not in named:
            found.append(f"{word} is unknown")
        else:
            one = named[word]
            if one.takes == 0:
                continue
            if not rest or rest[0] in named:
                found.append(f"{word} lacks its value")
            elif one.choices and rest[0] not in one.choices and "{" not in rest[0]:
                found.append(f"{word} {rest[0]}: it takes {', '.join(one.choices)}")
            rest = rest[1:] if one.takes == 1 else list(dropwhile(lambda later: later not in named, rest))
    if len(given) != len(free):
        found.append(f"{len(given)} arguments without a name, the original takes {len(free)}")
    missing = [one.names[0] for one in named.values() if one.required and not set(one.names) & set(command)]
    return found + [f"{name} is required" for name in sorted(set(missing))]


class Original:
    """The files of a repository at a commit, read through git."""

    def __init__(self, folder: Path, commit: str) -> None:
        self._folder, self._commit = folder, commit
        self.files = self._git("ls-tree", "-r", "--name-only", "-z", commit).split("\0")

    def read(self, path: str) -> str:
        return self._git("show", f"{self._commit}:{path}")

    def _git(self, *command: str) -> str:
        done = subprocess.run(["git", "-C", str(self._folder), *command], capture_output=True, timeout=60, check=False)
        if done.returncode:
            raise click.ClickException(f"{self._folder}: git says {done.stderr.decode(errors='replace').strip()}")
        return done.stdout.decode("utf-8", errors="replace")


def check(call: Call, original: Original) -> list[str]:
    """All that the original would not take of a call."""
    found, scripts = [], []
    for (command, _), entry in zip(call.commands, checkouts.entries(call), strict=True):
        if entry not in original.files:
            found.append(f"{entry} is not there")
            continue
        scripts.append(original.read(entry))
        given = command[3:] if command[1] == "-m" else command[2:]
        found += [f"{Path(entry).name}: {problem}" for problem in problems(given, scripts[-1])]
    text = "\n".join(scripts)
    if call.config and call.config not in original.files:
        found.append(f"{call.config} is not there")
    elif call.config:
        keys = set(re.findall(r"^#?\s*([A-Za-z_]\w*):", original.read(call.config), re.MULTILINE))
        found += [f"{call.config} has no {key}" for key in call.settings if key not in keys]
    for word in call.emotions.values():
        used = re.search(rf"['\"]{re.escape(word)}['\"]", text)
        if not used and not any(Path(name).stem == word for name in original.files):
            found.append(f"the word {word!r} for an emotion is nowhere")
    return found


def find(repository: str, folder: Path) -> Path | None:
    """The repository's place below `folder`."""
    owner, _, name = repository.partition("/")
    return next((place for place in (folder / owner / name, folder / name) if place.is_dir()), None)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
def main(folder: Path) -> None:
    """Check the TOML files of other people's methods against the original entry scripts below FOLDER."""
    today = datetime.now(UTC).date().isoformat()
    rows, failed = [], False
    for name in sorted(configs.shipped("methods")):
        call = load_method(name, Path()).call
        if call is None:
            continue
        place = find(call.repository, folder)
        found = ["no checkout of it"] if place is None else check(call, Original(place, call.commit))
        failed |= bool(found)
        entries = ", ".join(f"`{entry}`" for entry in checkouts.entries(call))
        rows.append(
            f"| {name} | {call.repository} | `{call.commit[:12]}` | {entries} | {'; '.join(found) or 'taken'} |"
        )
    head = ["| method | repository | commit | entry script | arguments |", "|---|---|---|---|---|"]
    click.echo("\n".join([f"Checked on {today}.", "", *head, *rows]))
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
