"""Runs somebody's own checkout of a method as a subprocess in its own environment, and finds the video it wrote.

Nothing of a checkout is imported here, and no file is made in it: the method runs in a working copy, a tree of folders
whose files are links to the checkout's. What it is given lies there under names of ours, relative and without
blanks, since many entry scripts paste paths into shell lines; `bench/` and `bench/out/` of the copy are ours too.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from reference_models import process_group
from reference_models.base import GenerationError
from reference_models.process_group import Guard

SOURCES = (".py", ".sh", ".yaml", ".yml", ".json", ".toml")  # of a checkout, in its fingerprint
# Of our own environment; a checkout must find neither our modules nor our interpreter.
OURS = (
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONSTARTUP",
    "PYTHONSAFEPATH",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "CONDA_DEFAULT_ENV",
)
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")


@dataclass(frozen=True, slots=True)
class Call:
    """How a checkout is called: the table [call] of a method's TOML file. Paths are relative to the checkout.

    command     what is run there, one item an argument, no shell. {python} is the checkout's interpreter, {emotion}
                the method's word for the emotion, {seed} a number from 1 to 2^31 - 1
    output      glob that exactly one written file matches
    repository  "owner/name" of the checkout, and `commit` at which the arguments were read
    stage       file to be made to what it is: "portrait" (.png, .jpg), "speech" (.wav, 16 kHz), "held video" (.mp4, the
                portrait with the speech at 25 fps), "emotion video" (.mp4), or "prepared": what the user has made with
                the method's own tools, as WORKSPACE/inputs/METHOD/<stem>/<pair_id><suffix>
    side        of the portrait, where the method takes one size alone, in pixels; 0: as it is
    emotions    MEAD's word to the method's; a word that is missing is a reason. Empty: {emotion} is not used
    config      YAML file of the checkout that is rewritten, under its own name, with the keys of `settings` replaced
    before      command that is run first, in the folder `before_in`
    fresh       globs of what the working copy does not take over, as what the method writes over in place: it would
                follow the link into the checkout. One that ends in "/" is a folder, made empty
    size        (width, height) of the output's pictures, where that is fixed; `crop` the (left, top, width, height) of
                the part that shows the face: empty is all
    framing     "reference": the pictures show what the portrait shows; "face": the method crops as it likes, and its
                first face is moved back onto the portrait's
    fps         of the output; 0 where it varies
    requires    files that the checkout must hold: weights, mostly
    programs    that must be on the PATH
    notes       what a new user has to know, one line each
    repo        place of the checkout and `python` its interpreter, for a method of the user's own
    timeout     s for one clip
    """

    command: tuple[str, ...]
    output: str
    stage: Mapping[str, str]
    repository: str = ""
    commit: str = ""
    side: int = 0
    emotions: Mapping[str, str] = field(default_factory=dict)
    config: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    before: tuple[str, ...] = ()
    before_in: str = ""
    fresh: tuple[str, ...] = ()
    size: tuple[int, ...] = ()
    crop: tuple[int, ...] = ()
    framing: Literal["reference", "face"] = "reference"
    fps: float = 0.0
    requires: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    repo: str = ""
    python: str = ""
    timeout: int = 3600

    @property
    def commands(self) -> list[tuple[tuple[str, ...], str]]:
        """What is run, in turn, each with the folder of the checkout in which it runs."""
        return [(self.before, self.before_in), (self.command, "")] if self.before else [(self.command, "")]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a checkout lies on this machine, and the interpreter of its environment."""

    repo: Path
    python: str


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of a run: `output` or the `error` why there is none.

    seconds  wall time; exit_code: None where it ran out of time
    ram_mib  highest sum of the resident memory of all its processes, as sampled; gpu_mib: by how much the memory
             in use on its GPU rose; None where that cannot be seen
    log      the end of what it printed
    """

    output: Path | None
    error: str | None
    exit_code: int | None
    seconds: float
    ram_mib: int | None
    gpu_mib: int | None
    log: str


def word(call: Call, emotion: str) -> str:
    """The method's word for an emotion. Raises GenerationError where it has none."""
    if not call.emotions:
        return ""
    if emotion not in call.emotions:
        raise GenerationError(f"has no word for the emotion {emotion!r}; it knows {', '.join(call.emotions)}")
    return str(call.emotions[emotion])


def fingerprint(repo: Path) -> str:
    """SHA-256 of the names and contents of a checkout's code and configuration; weights and media are left out."""
    digest = hashlib.sha256()
    for path in sorted(_files(repo)):
        if path.suffix in SOURCES:
            digest.update(f"{path.relative_to(repo).as_posix()}\0".encode(errors="surrogateescape"))
            with suppress(OSError):
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def working_copy(repo: Path, to: Path, fresh: Sequence[str]) -> None:
    """Make `to` a tree of the checkout's folders whose files are links to its files.

    Left out: what `fresh` matches, .git, and environments, which are linked whole. Links stay links. Raises
    GenerationError as ours().
    """
    for here, folders, files in os.walk(repo):
        inside = Path(here).relative_to(repo)
        (to / inside).mkdir(parents=True, exist_ok=True)
        for name in list(folders):
            path, whole = Path(here, name), _whole(Path(here, name))
            if name == ".git" or whole or _left_out(inside / name, fresh):
                folders.remove(name)
            if whole and not _left_out(inside / name, fresh):
                (to / inside / name).symlink_to(path)
        for name in files:
            if not _left_out(inside / name, fresh):
                (to / inside / name).symlink_to(Path(here, name))
    for pattern in (*fresh, "bench/", "bench/out/"):
        if pattern.endswith("/"):
            ours(to, f"{pattern}x")


def ours(copy: Path, name: str) -> Path:
    """The path of a file that we write into a working copy, in a folder that is there and with nothing in its place.
    Raises GenerationError where a folder on the way is a link of the checkout's: what lies behind it is the user's."""
    path = copy / name
    if not path.parent.resolve().is_relative_to(copy.resolve()):
        raise GenerationError(f"{name} would be written through a link of the checkout; make a folder of that link")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # a link to the checkout's
    return path


def _whole(folder: Path) -> bool:
    return folder.is_symlink() or (folder / "pyvenv.cfg").exists() or (folder / "conda-meta").exists()


def _left_out(path: Path, fresh: Sequence[str]) -> bool:
    return any(fnmatchcase(path.as_posix(), pattern.rstrip("/")) for pattern in fresh)


def _files(repo: Path) -> Iterator[Path]:
    for here, folders, files in os.walk(repo):
        folders[:] = [name for name in folders if name != ".git" and not _whole(Path(here, name))]
        yield from (Path(here, name) for name in files)


def set_keys(text: str, settings: Mapping[str, Any]) -> str:
    """A YAML file of top-level keys with those of `settings` replaced or added; values are written as JSON, which is
    YAML. Nothing else of the text changes."""
    kept: list[str] = []
    dropping = False
    for line in text.splitlines():
        key = re.match(r"([^\s#:][^:]*):(\s|$)", line)
        if key or (line.strip() and not line[0].isspace() and not line.startswith(("#", "-"))):
            dropping = key is not None and key[1].strip("\"'") in settings
        if not dropping:
            kept.append(line)
    kept += [f"{key}: {json.dumps(value)}" for key, value in settings.items()]
    return "\n".join(kept) + "\n"


def run(call: Call, place: Place, copy: Path, words: Mapping[str, str], gpu: str | None, guard: Guard) -> Ran:
    """Run a call in its working copy, in which everything that it is given already lies.

    words   what {emotion} and {seed} stand for
    gpu     CUDA_VISIBLE_DEVICES of the method: "" hides all GPUs, None leaves it as it is
    guard   of the working copy

    A method that fails, hangs or writes nothing is a Ran with an `error`. Raises OSError where no log can be written,
    and GenerationError as ours().
    """
    told = {**words, "python": place.python}
    if call.config:
        path = copy / call.config
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as reason:
            return Ran(None, f"{call.config} of the checkout cannot be read ({reason})", None, 0.0, None, None, "")
        ours(copy, call.config).write_text(set_keys(text, call.settings), encoding="utf-8")
    log = copy / "bench" / "log.txt"
    env = environment(place.python, gpu)
    memory = process_group.Memory(gpu=env.get("CUDA_VISIBLE_DEVICES"))
    started = time.monotonic()
    code, error, output = None, None, None
    for command, inside in call.commands:
        filled = [_filled(part, told) for part in command]
        deadline = started + call.timeout
        code, error = process_group.run(filled, copy / inside, env, log, deadline, memory, guard)
        if error:
            break
    text = process_group.tail(log)
    if error is None:
        output, error = _found(copy, call, words)
    if error and (last := _last_line(text)):
        error = f"{error}; its last words: {last}"
    seconds = round(time.monotonic() - started, 3)
    return Ran(output, error, code, seconds, memory.ram_mib, memory.gpu_mib, text)


def _filled(part: str, words: Mapping[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: words.get(found[1], found[0]), part)


def environment(python: str, gpu: str | None) -> dict[str, str]:
    """Our environment without what leads to our own modules and interpreter, and with the checkout's first."""
    env = {key: value for key, value in os.environ.items() if key not in OURS}
    for name in THREADS:  # set to 1 for our own workers (benchmark.engine)
        if env.get(name) == "1":
            del env[name]
    here = Path(sys.executable).parent
    path = [part for part in env.get("PATH", os.defpath).split(os.pathsep) if Path(part) != here]
    if os.sep in python:
        path.insert(0, str(Path(python).parent))
    env |= {"PATH": os.pathsep.join(path), "PYTHONUNBUFFERED": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    if gpu is not None:
        env["CUDA_VISIBLE_DEVICES"] = gpu
    return env


def _found(copy: Path, call: Call, words: Mapping[str, str]) -> tuple[Path | None, str | None]:
    """The one file that was written; links are files of the checkout, left by earlier runs."""
    pattern = _filled(call.output, words)
    made = sorted(path for path in copy.glob(pattern) if path.is_file() and not path.is_symlink())
    if not made:
        return None, f"ended with exit code 0, but wrote no {pattern}"
    if len(made) > 1:
        names = ", ".join(path.relative_to(copy).as_posix() for path in made[:4])
        return None, f"wrote {len(made)} files that {pattern} matches, expected one: {names}"
    return made[0], None


def _last_line(text: str) -> str:
    last = deque((line.strip() for line in text.splitlines() if line.strip()), maxlen=1)
    return last[0][:160] if last else ""
