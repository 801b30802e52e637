"""Runs a method over a protocol: one video a pair, each with a record of what made it; resumable."""

from __future__ import annotations

import errno
import fcntl
import importlib.util
import inspect
import json
import math
import os
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from tqdm import tqdm

from benchmark import checkouts, configs, engine, protocol, provenance, requests, weights
from benchmark.errors import BenchError, writable, writing
from benchmark.exchange import donors, strangers
from benchmark.protocol import Conditioning, Pair, Protocol
from pipelines import media
from pipelines.datasets import printable
from reference_models import external
from reference_models.base import GenerationError, Generator
from reference_models.external import Call, Place

RECORD_VERSION = 1
ENCODER = 2  # raise when pipelines.media.write_video writes otherwise: videos are then made again
DAY = 86_400  # s
WORDS = ("title", "licence", "driven_by", "train", "instead")  # of a method; they change no video


@dataclass(frozen=True, slots=True)
class Method:
    """One TOML file of methods/.

    generator     "module:Class" or "file.py:Class" (beside the method's file) with `generate(request)`, built as
                  Class(**options) once a process
    call          instead: how somebody's checkout is run (reference_models.external)
    kind          "baseline" rows may read the real frames whatever the conditioning
    audio         "target": the sound of the pair; "shuffled": that of another pair, cut or repeated to length
    pictures      of a baseline. "target": the real frames of the pair; "stranger": those of another person, of the
                  same emotion where there is one, cut or repeated to length
    conditioning  "target-pose" methods may read the real frames; they are never scored with one-shot ones
    driven_by     what the method is told, as DICE-Talk's tables group methods; empty: not said
    licence       of the method's code and weights, shown by `bench methods list`
    weights       arguments of the class that are files of pretrained networks: argument to name in the registry
    checkpoints   arguments that are files trained here: argument to path under WORKSPACE/checkpoints
    train         command that makes the checkpoints
    instead       method that runs where those files are missing
    """

    name: str
    title: str
    generator: str = ""
    licence: str = ""
    call: Call | None = None
    kind: Literal["baseline", "method"] = "method"
    audio: Literal["target", "shuffled"] = "target"
    pictures: Literal["target", "stranger"] = "target"
    conditioning: Conditioning = "one-shot"
    driven_by: Literal["", "audio", "audio + video", "audio + prompt"] = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)
    checkpoints: Mapping[str, str] = field(default_factory=dict)
    train: str = ""
    instead: str = ""


@dataclass(frozen=True, slots=True)
class Made:
    """What became of one pair: the file's SHA-256, or the reason why there is none.

    key      digest of everything that determines the video
    seconds  wall time of generation and encoding
    machine  the GPU that was used, else the CPU
    ram_mib  peak of the process so far; gpu_mib: peak of what torch held on the GPU, None where it used none. Of
             somebody's checkout both are its own, and exit_code is that of its command (None: it ran out of time);
             what it printed lies beside, as <pair_id>.log
    held     frames at the end that repeat the last one, where a checkout's output is short by a few
    """

    pair_id: str
    key: str
    sha256: str | None
    seconds: float
    error: str | None
    trace: str | None = None
    machine: str | None = None
    ram_mib: int | None = None
    gpu_mib: int | None = None
    exit_code: int | None = None
    held: int = 0


@dataclass(frozen=True, slots=True)
class _Plan:
    """What all pairs of a run share.

    files  the paths of its weights and checkpoints by argument, as JSON
    place  of a checkout; `inputs` is the folder of what the user has prepared for it
    gpus   what CUDA_VISIBLE_DEVICES calls them, one for each worker in turn; empty where that is left as it is
    fresh  also what another run has just made is made anew
    """

    method: Method
    files: str
    place: Place | None
    inputs: Path
    device: str
    gpus: tuple[str, ...]
    fresh: bool
    source: Path
    emotion_source: Path
    to: Path

    def generator(self) -> Generator:
        """The method's generator, built once a process. Raises BenchError."""
        if self.method.call is not None and self.place is not None:
            return checkouts.Checkout(self.method.name, self.method.call, self.place, self.inputs, self.device)
        options = json.dumps(self.method.options, sort_keys=True)
        return _generator(self.method.generator, options, self.files, self.device)


@dataclass(frozen=True, slots=True)
class _Job:
    pair: Pair
    donor: Pair  # whose sound drives the video
    shown: Pair  # whose real frames a baseline may read
    seed: int
    key: str


def load_method(name_or_path: str, workspace: Path) -> Method:
    """The method of that name or file. Raises BenchError on an unknown name, key or value, and for a file that takes
    the name of one of the package's methods: rows under that name must be those of that method."""
    path = configs.find("methods", name_or_path, workspace)
    method = configs.read(path, Method)
    taken = configs.shipped("methods").get(method.name, path)
    if not path.samefile(taken):
        raise BenchError(f"{path}: {method.name!r} is the name of a method of the package; choose another")
    if bool(method.generator) == (method.call is not None):
        raise BenchError(f"{path}: expected either generator = 'module:Class' or a table [call]")
    if not method.licence:
        raise BenchError(f"{path}: the key 'licence' is missing")
    if method.generator.partition(":")[0].endswith(".py"):
        method = replace(method, generator=str((path.parent / method.generator).resolve()))
    if method.call is not None:
        checkouts.validate(method.call, str(path))
        if method.call.repo:
            at = (path.parent / Path(method.call.repo).expanduser()).resolve()
            python = checkouts.interpreter(method.call.python, path.parent)
            method = replace(method, call=replace(method.call, repo=str(at), python=python))
    return method


def folder(method: str, asked: Protocol, workspace: Path) -> Path:
    """Where a method's videos of a protocol lie, as <pair_id>.mp4 with <pair_id>.json beside."""
    return workspace / "generated" / method / asked.name


def generate(
    method: Method,
    asked: Protocol,
    workspace: Path,
    *,
    workers: int = 1,
    fresh: bool = False,
    device: str = "cpu",
    first: int | None = None,
) -> dict[str, Made]:
    """Make what is missing or out of date (all of it with `fresh`), and return what became of every pair by id; of the
    `first` pairs only, for a trial.

    Out of date is a video made by another version of the generator's code (the file that holds its class, and of a
    model of reference_models all files of its folder; what those import is not looked at), with other options, other
    weights or checkpoints, or from other clips; of a checkout, its code, its configuration and what was prepared.
    A pair that fails is recorded with its reason and tried again next time; the others go on. With device "cuda" and
    several GPUs each worker has one of them, and there is no more than one worker a GPU. Two runs at once on one
    folder make each video once: the second waits.

    Raises BenchError when files that it needs are missing, when the generator cannot be built, when its conditioning
    is not the protocol's, when the dataset is not there, or when the videos cannot be written.
    """
    if method.kind == "method" and method.conditioning != asked.conditioning:
        raise BenchError(
            f"{method.name} is {method.conditioning}, protocol {asked.name} is {asked.conditioning}: "
            "the two are never shown in one table"
        )
    needed = files(method, workspace)
    if method.call is None:  # a checkout has an environment of its own
        engine.check_device(device)
    plan = _Plan(
        method,
        json.dumps({name: str(path) for name, path in needed.items()}),
        checkouts.place(method.name, method.call, workspace) if method.call else None,
        checkouts.prepared(method.name, workspace),
        device,
        gpus() if device == "cuda" else (),
        fresh,
        protocol.folder(asked, workspace),
        protocol.emotion_folder(asked, workspace),
        folder(method.name, asked, workspace),
    )
    generator = plan.generator()  # fails here, once, not in every worker
    if plan.place is not None:
        code = [str(checkouts.VERSION), external.fingerprint(plan.place.repo)]
    else:
        code = [media.file_sha256(path) for path in _code(type(generator))]
        code += [media.file_sha256(path) for path in needed.values()]
    members = protocol.members(asked, workspace)
    to = folder(method.name, asked, workspace)
    writable(to)
    done, todo = {}, []
    jobs: Iterable[_Job] = _jobs(members, method, asked, code, plan.inputs)
    if first is not None:
        jobs = islice((job for job in jobs if _served(method, job.pair)), first)
    for job in jobs:
        if job.pair.error is not None:
            done[job.pair.pair_id] = Made(job.pair.pair_id, job.key, None, 0.0, job.pair.error)
        elif not fresh and (made := _recorded(to, job)):
            done[job.pair.pair_id] = made
        else:
            todo.append(job)
    _tidy(to)
    make = partial(_make, plan)
    workers = min(workers, len(plan.gpus) or workers)
    progress = tqdm(
        total=len(done) + len(todo), initial=len(done), desc=f"generate {method.name}", unit="clip", disable=None
    )
    with progress:
        for outcome in engine.run(make, todo, workers=workers):
            if isinstance(outcome.error, OSError):  # of the output: the others would fail as well
                with writing(to):
                    raise outcome.error
            job, made = outcome.item, outcome.value
            if made is None:  # the worker itself died
                made = Made(job.pair.pair_id, job.key, None, 0.0, _line(outcome.error or RuntimeError()))
            done[job.pair.pair_id] = made
            progress.update()
    return done


def _tidy(to: Path) -> None:
    """Remove what a killed run left, when it is old: another run may be at work here now."""
    for left in to.glob(".part-*"):
        if time.time() - left.stat().st_mtime > DAY:
            left.unlink(missing_ok=True)


def files(method: Method, workspace: Path) -> dict[str, Path]:
    """The weights and checkpoints that the method's class takes, by argument. Raises BenchError that names all that are
    missing, how each is had, and the method that runs without them."""
    found, missing = {}, []
    for argument, name in method.weights.items():
        try:
            found[argument] = weights.path(name, fetch=False)
        except weights.WeightsUnavailable as error:
            missing.append(f"{name} (`{error.command}`)")
    for argument, name in method.checkpoints.items():
        found[argument] = workspace / "checkpoints" / name
        if not found[argument].is_file():
            missing.append(f"{found[argument]}" + (f" (`{method.train}`)" if method.train else ""))
    if missing:
        instead = f"; {method.instead} runs without them" if method.instead else ""
        raise BenchError(f"{method.name}: {len(missing)} files are missing: {', '.join(missing)}{instead}")
    return found


def described(method: Method) -> dict[str, Any]:
    """The method as records hold it: not where its file or checkout lies."""
    about = asdict(method) | {"generator": method.generator.rpartition("/")[2]}
    if method.call is not None:
        about["call"] = checkouts.contents(about["call"])
    return about


def _served(method: Method, pair: Pair) -> bool:
    """Whether a trial may use this pair: it has all it needs, and a word that the method knows."""
    words = method.call.emotions if method.call else {}
    return pair.error is None and (not words or pair.prompt in words)


def gpus() -> tuple[str, ...]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES calls them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(name.strip() for name in visible.split(",") if name.strip())
    import torch

    return tuple(map(str, range(torch.cuda.device_count())))


def _code(generator: type) -> list[Path]:
    path = Path(inspect.getfile(generator))
    model = path.parent.parent.name == "reference_models" and (path.parent / "__init__.py").exists()
    return sorted(path.parent.glob("*.py")) if model else [path]


def build(method: Method, workspace: Path, device: str = "cpu") -> Generator:
    """The generator of a method of this package, in this process. Raises BenchError as generate()."""
    told = json.dumps({name: str(path) for name, path in files(method, workspace).items()})
    return _generator(method.generator, json.dumps(method.options, sort_keys=True), told, device)


def cost(made: Iterable[Made]) -> dict[str, Any] | None:
    """What videos cost: their number, seconds in all, machines, and the highest peaks; None for none that was made."""
    done = [one for one in made if one.sha256 is not None]
    if not done:
        return None
    return {
        "clips": len(done),
        "seconds": round(math.fsum(one.seconds for one in done), 3),
        "machines": sorted({one.machine for one in done if one.machine}),
        "ram_mib": max((one.ram_mib for one in done if one.ram_mib is not None), default=None),
        "gpu_mib": max((one.gpu_mib for one in done if one.gpu_mib is not None), default=None),
    }


def _jobs(
    members: Sequence[Pair], method: Method, asked: Protocol, code: Sequence[str], prepared: Path
) -> Iterator[_Job]:
    given = {pair.pair_id: pair for pair in members}
    if method.audio == "shuffled":
        given = donors(members, asked.seed)
    seen = {pair.pair_id: pair for pair in members}
    if method.pictures == "stranger":
        seen = strangers(members, asked.seed)
    contents = {k: v for k, v in described(method).items() if k not in WORDS}
    for pair in members:
        donor, shown, target = given[pair.pair_id], seen[pair.pair_id], pair.target
        seed = protocol.seeded(asked.seed, pair.pair_id) % 2**31
        inputs = {
            "reference": pair.reference.sha256 if pair.reference else None,
            "audio": donor.target.audio_sha256,
            "target": shown.target.sha256,
            "emotion": [pair.prompt, target.intensity],
            "emotion_video": pair.emotion_video.sha256 if pair.emotion_video else None,
            "frames": [target.num_frames, target.fps],
            "seed": seed,
        }
        if method.call is not None:
            given_files = checkouts.prepared_files(method.call, prepared, pair.pair_id)
            inputs |= {name: media.file_sha256(path) for name, path in given_files.items() if path.is_file()}
        yield _Job(pair, donor, shown, seed, configs.digest([RECORD_VERSION, ENCODER, code, contents, inputs]))


def _recorded(to: Path, job: _Job) -> Made | None:
    """The record of an earlier run, if it is of this very job and its video is untouched."""
    try:
        made = Made(**json.loads((to / f"{job.pair.pair_id}.json").read_text(encoding="utf-8")))
        whole = made.sha256 == media.file_sha256(to / f"{job.pair.pair_id}.mp4")
    except (OSError, ValueError, TypeError):
        return None
    return made if made.key == job.key and whole else None


def _module(name: str) -> ModuleType:
    """The module of that name, or of that file."""
    if not name.endswith(".py"):
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(Path(name).stem, name)
    if spec is None or spec.loader is None or not Path(name).is_file():
        raise ImportError(f"{name}: no such file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where inspect looks for it
    spec.loader.exec_module(module)
    return module


@lru_cache(maxsize=1)
def _generator(spec: str, options: str, paths: str, device: str) -> Generator:
    module, _, name = spec.rpartition(":")
    arguments = {**json.loads(options), **{key: Path(path) for key, path in json.loads(paths).items()}}
    try:
        cls = getattr(_module(module), name)
        if "device" in inspect.signature(cls).parameters:
            arguments["device"] = device
        made: Generator = cls(**arguments)
    except GenerationError as error:
        raise BenchError(str(error)) from error
    except Exception as error:  # somebody's module and class may raise anything
        raise BenchError(f"generator {spec!r} cannot be built: {_line(error)}") from error
    return made


def _make(plan: _Plan, job: _Job) -> Made:
    """_generated(), unless another run makes this very video now: then it is waited for and taken. Runs in a worker.
    Raises OSError where `to` cannot be written."""
    if plan.gpus:  # before anything asks for CUDA in this process
        os.environ["CUDA_VISIBLE_DEVICES"] = plan.gpus[engine.worker() % len(plan.gpus)]
    with _alone(plan.to, job.pair.pair_id):
        made = None if plan.fresh else _recorded(plan.to, job)
        return made or _generated(plan, job)


@contextmanager
def _alone(to: Path, pair_id: str) -> Iterator[None]:
    """Keep other runs from working on the same pair: a lock on one byte of a file beside the folder, which the system
    lifts when the process ends, however it ends. On a disk without locks (some clusters') two runs may do the same
    work; every file is still whole."""
    with to.with_name(f".{to.name}.lock").open("a+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX, 1, protocol.seeded(0, pair_id) >> 1)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
        yield


def _generated(plan: _Plan, job: _Job) -> Made:
    pair, to, started = job.pair, plan.to, time.perf_counter()
    video = to / f"{pair.pair_id}.mp4"
    made = Made(pair.pair_id, job.key, None, 0.0, None)
    generator: Generator | None = None
    try:
        sees = plan.method.kind == "baseline" or plan.method.conditioning == "target-pose"
        request = requests.build(
            pair, job.donor, job.shown, job.seed, plan.source, plan.emotion_source, sees_target=sees
        )
        generator = plan.generator()
        frames = requests.checked(generator.generate(request), request.num_frames)
        media.write_video(video, frames, request.fps, audio=request.audio, sample_rate=request.sample_rate)
        made = replace(made, sha256=media.file_sha256(video))
    except Exception as error:  # somebody's generator may raise anything: a row with the reason
        if isinstance(error, OSError) and Path(str(error.filename)).absolute().parent == to.absolute():
            raise
        video.unlink(missing_ok=True)  # an older video must not pass for this job's
        made = replace(made, error=_line(error), trace=traceback.format_exc())
    made = replace(made, seconds=round(time.perf_counter() - started, 3), **provenance.peaks())
    if isinstance(generator, checkouts.Checkout):
        made = replace(made, **generator.record)
        media.write_bytes(to / f"{pair.pair_id}.log", generator.log.encode())
    with media.atomic_path(to / f"{pair.pair_id}.json") as temporary:
        temporary.write_text(json.dumps(asdict(made), indent=1) + "\n", encoding="utf-8")
    return made


def _line(error: BaseException) -> str:
    text = printable(" ".join(str(error).split()))[:300]
    if isinstance(error, media.MediaError):  # "PATH: reason"; rows must not depend on where a workspace lies
        path, _, reason = text.partition(": ")
        return f"{Path(path).name}: {reason}"
    if isinstance(error, GenerationError | BenchError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
