"""The one training loop of the suite. It counts optimiser steps, never seconds, and knows nothing of models or data.

Resuming. Micro-batch `number` (0, 1, 2, ...; several make one step with `accumulate` or several processes) depends on
its number alone, and before each one every random generator is seeded from (seed, number). A run that is killed at any
moment and started again therefore ends with the same bytes as one that was not, on one machine with one number of
threads; on a GPU as far as its kernels are deterministic.

A folder holds
  step-00001000/      weights.safetensors, ema.safetensors where there is one, state.pt (optimiser, step, best value)
  best.safetensors    the weights with the highest validation value; its header says step and value
  log.jsonl           a line every `log_every` steps: means of the terms since the last line, and validation values
  events.out.*        the same for TensorBoard
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

Terms = Mapping[str, Tensor]  # scalars by name; their sum is minimised
Loss = Callable[[nn.Module, Any, torch.Generator], Terms]
Batch = Callable[[int], Any]
Validate = Callable[[nn.Module, int], float]

# What may differ between a run and its resumption without changing a weight.
FREE = ("steps", "log_every", "save_every", "keep")
REMEDY = "a smaller learning rate, a clip_norm or a longer warm-up may help"


class FitError(Exception):
    """A training that cannot start, go on or be saved; one line."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How to train.

    steps           optimiser steps
    learning_rate   constant after `warmup` steps of linear rise
    accumulate      micro-batches a step on each process
    clip_norm       largest norm of the whole gradient; 0: any
    ema             decay of the averaged weights that are validated and saved too; 0: none
    precision       of the forward and backward pass; weights and optimiser stay float32
    validate_every  steps; the last step is always validated
    keep            checkpoints that stay
    """

    steps: int
    learning_rate: float
    optimiser: Literal["adamw", "adam"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    warmup: int = 0
    accumulate: int = 1
    clip_norm: float = 0.0
    ema: float = 0.0
    precision: Literal["no", "fp16", "bf16"] = "no"
    seed: int = 0
    log_every: int = 10
    save_every: int = 500
    validate_every: int = 500
    keep: int = 2

    def __post_init__(self) -> None:
        for name in ("steps", "accumulate", "log_every", "save_every", "validate_every", "keep"):
            if getattr(self, name) < 1:
                raise FitError(f"{name} = {getattr(self, name)}; expected at least 1")
        if not (0 < self.learning_rate < math.inf and 0 <= self.ema < 1 and self.seed >= 0):
            raise FitError(
                f"learning_rate = {self.learning_rate}, ema = {self.ema}, seed = {self.seed}; expected a positive "
                "rate, a decay from 0 to below 1, and a seed of at least 0"
            )


@dataclass(frozen=True, slots=True)
class Fitted:
    """Where the weights lie: `last` of the last step (the averaged ones where there are), `best` of the step with the
    highest validation value; None where nothing was validated."""

    last: Path
    best: Path | None
    best_step: int | None
    best_value: float | None


@dataclass(slots=True)
class _Progress:
    """What a checkpoint holds beside weights and optimiser."""

    step: int = 0
    best_step: int | None = None
    best_value: float | None = None
    sums: dict[str, float] = field(default_factory=dict)  # of the terms since the last line of the log,
    count: int = 0  # over so many micro-batches
    now: dict[str, float] = field(default_factory=dict)  # learning rate and norm of the gradient; not saved


def fit(
    model: nn.Module,
    loss: Loss,
    batch: Batch,
    settings: Settings,
    folder: Path,
    *,
    validate: Validate | None = None,
    device: str = "cpu",
    about: str = "",
    resume: bool = True,
    title: str = "train",
) -> Fitted:
    """Train the parameters of `model` that require a gradient, in place, and leave checkpoints in `folder`.

    model      initialised by the caller, from the seed; its whole state_dict is saved, so leave frozen networks out
    loss       loss(model, batch, generator): named scalars. It calls `model(...)` itself, which may be a wrapper (DDP);
               `generator` lives on the device
    batch      batch(number): anything of tensors, the same for the same number; called on a thread, one ahead, so it
               must draw from generators of its own
    validate   validate(model, step) in eval mode without gradients: a value, the higher the better
    about      what else determines the weights (data digest, model configuration): a run with another is not resumed
    resume     go on from the newest checkpoint; False removes what `folder` holds of an earlier run

    Runs on one process, or on each of those that `accelerate launch` started. Raises FitError: a loss or gradient that
    is not finite, a disk that is full, a damaged checkpoint, a checkpoint of another run.
    """
    from accelerate import Accelerator
    from accelerate.utils import broadcast_object_list

    if device.startswith("cuda") and not torch.cuda.is_available():
        raise FitError(f"device {device}: torch {torch.__version__} sees no GPU here")
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision=settings.precision)
    with _saving(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if accelerator.is_main_process:
            _tidy(folder, keep=resume)
    accelerator.wait_for_everyone()
    prepared, optimiser = accelerator.prepare(model, _optimiser(model, settings))
    kept = _Checkpoints(folder, accelerator.unwrap_model(prepared), optimiser, accelerator.scaler, settings)
    kept.run["about"], kept.run["processes"] = about, accelerator.num_processes
    done = kept.load()
    if done.step > settings.steps:
        raise FitError(
            f"{folder}: holds step {done.step} already, {settings.steps} were asked; raise the number of "
            "steps, or train afresh"
        )
    main = accelerator.is_main_process
    bar = tqdm(total=settings.steps, initial=done.step, desc=title, unit="step", disable=None if main else True)
    start = done.step * settings.accumulate
    with _deterministic(), _Feed(batch, start, accelerator) as feed, _Log(folder, done.step, main) as log, bar:
        while done.step < settings.steps:
            _step(prepared, optimiser, loss, feed, settings, accelerator, done)
            kept.average()
            bar.update()
            _after_step(kept, log, settings, validate if main else None, done)
            if main and (done.step == settings.steps or done.step % settings.save_every == 0):
                kept.save(done)
            accelerator.wait_for_everyone()
    best = [done.best_step, done.best_value]  # only the main process has validated
    done.best_step, done.best_value = broadcast_object_list(best)
    return kept.result(done)


class _Feed:
    """This process's micro-batches from step `start` on, made one ahead on a thread: (number, batch) on the device."""

    def __init__(self, batch: Batch, start: int, accelerator: Any) -> None:
        self._batch, self._device, self._world = batch, accelerator.device, accelerator.num_processes
        self._number = start * self._world + accelerator.process_index
        self._pool = ThreadPoolExecutor(1)

    def __enter__(self) -> _Feed:
        self._next = self._pool.submit(self._batch, self._number)
        return self

    def __next__(self) -> tuple[int, Any]:
        from accelerate.utils import send_to_device

        number, given = self._number, self._next.result()
        self._number += self._world
        self._next = self._pool.submit(self._batch, self._number)
        return number, send_to_device(given, self._device)

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def _step(
    model: nn.Module,
    optimiser: Any,
    loss: Loss,
    feed: _Feed,
    settings: Settings,
    accelerator: Any,
    done: _Progress,
) -> None:
    """One optimiser step; counts it, and its terms, in `done`."""
    from accelerate.utils import set_seed

    rate = settings.learning_rate * min(1.0, (done.step + 1) / max(settings.warmup, 1))
    for group in optimiser.param_groups:
        group["lr"] = rate
    model.train()
    for part in range(settings.accumulate):
        number, given = next(feed)
        seed = int(np.random.SeedSequence([settings.seed, number]).generate_state(1)[0])
        set_seed(seed)
        generator = torch.Generator(accelerator.device).manual_seed(seed)
        with accelerator.no_sync(model) if part + 1 < settings.accumulate else nullcontext():
            with accelerator.autocast():
                terms = loss(model, given, generator)
            total = torch.stack([term.float() for term in terms.values()]).sum()
            if not total.isfinite():
                shown = ", ".join(f"{name} = {float(term.detach()):g}" for name, term in terms.items())
                raise FitError(f"step {done.step + 1}: the loss is not finite ({shown}); {REMEDY}")
            accelerator.backward(total / settings.accumulate)
        for name, term in terms.items():
            done.sums[name] = done.sums.get(name, 0.0) + float(term.detach())
        done.count += 1
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    norm = float(accelerator.clip_grad_norm_(trained, settings.clip_norm or math.inf))
    if not math.isfinite(norm) and settings.precision != "fp16":  # fp16's scaler leaves such a step out
        raise FitError(f"step {done.step + 1}: the gradient is not finite; {REMEDY}")
    optimiser.step()
    optimiser.zero_grad()
    done.step += 1
    done.now = {"lr": rate, "gradient": norm}


def _after_step(kept: _Checkpoints, log: _Log, settings: Settings, validate: Validate | None, done: _Progress) -> None:
    ends = done.step == settings.steps
    if ends or done.step % settings.log_every == 0:
        log.line(done.step, {**{name: total / done.count for name, total in done.sums.items()}, **done.now})
        done.sums, done.count = {}, 0
    if validate is not None and (ends or done.step % settings.validate_every == 0):
        with kept.averaged(), torch.no_grad():
            kept.model.eval()
            value = float(validate(kept.model, done.step))
            log.line(done.step, {"validation": value})
            if done.best_value is None or value > done.best_value:
                done.best_step, done.best_value = done.step, value
                kept.save_best(done)


class _Checkpoints:
    """The state of a run in memory and on the disk."""

    def __init__(self, folder: Path, model: nn.Module, optimiser: Any, scaler: Any, settings: Settings) -> None:
        self.folder, self.model, self._optimiser, self._scaler = folder, model, optimiser, scaler
        self._keep, self._decay = settings.keep, settings.ema
        self.run: dict[str, Any] = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(settings).items()
            if key not in FREE
        }
        self._ema = {key: value.detach().clone() for key, value in self._tensors().items()} if self._decay else {}

    def _tensors(self) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = self.model.state_dict()
        return tensors

    @torch.no_grad()
    def average(self) -> None:
        """Move the averaged weights towards the present ones; what is no real number is copied."""
        now = self._tensors()
        for key, mean in self._ema.items():
            if mean.is_floating_point():
                mean.lerp_(now[key].to(mean.dtype), 1 - self._decay)
            else:
                mean.copy_(now[key])

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The model with the averaged weights, where there are such."""
        own = {key: value.detach().clone() for key, value in self._tensors().items()} if self._ema else {}
        if self._ema:
            self.model.load_state_dict(self._ema)
        try:
            yield
        finally:
            if own:
                self.model.load_state_dict(own)

    def save(self, done: _Progress) -> None:
        """Write step-N, whole or not at all, and remove what is older than the last few."""
        path = self.folder / _name(done.step)
        partial = path.with_name(f".{path.name}.partial")
        with _saving(self.folder):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            save_file(_flat(self._tensors()), partial / "weights.safetensors")
            if self._ema:
                save_file(_flat(self._ema), partial / "ema.safetensors")
            progress = {key: value for key, value in asdict(done).items() if key != "now"}
            state = {"run": self.run, "progress": progress, "optimiser": self._optimiser.state_dict()}
            if self._scaler is not None:
                state["scaler"] = self._scaler.state_dict()
            torch.save(state, partial / "state.pt")
            shutil.rmtree(path, ignore_errors=True)
            partial.rename(path)
            for old in _steps(self.folder)[: -self._keep]:
                shutil.rmtree(old)

    def save_best(self, done: _Progress) -> None:
        """Write the weights that the model has now, the averaged ones where there are such."""
        # One key only: the order of several in the header changes from run to run.
        note = {"best": json.dumps({"step": done.best_step, "value": done.best_value})}
        partial = self.folder / ".best.partial"
        with _saving(self.folder):
            save_file(_flat(self._tensors()), partial, note)
            partial.replace(self.folder / "best.safetensors")

    def load(self) -> _Progress:
        """Go on from the newest checkpoint, where there is one. Raises FitError if it is damaged or another run's."""
        found = _steps(self.folder)
        if not found:
            return _Progress()
        path = found[-1]
        try:
            state = torch.load(path / "state.pt", weights_only=True, map_location="cpu")
            run, progress = dict(state["run"]), _Progress(**state["progress"])
            other = sorted(key for key in run.keys() | self.run.keys() if run.get(key) != self.run.get(key))
            if not other:
                self.model.load_state_dict(load_file(path / "weights.safetensors"))
                if self._ema:
                    averaged = load_file(path / "ema.safetensors")
                    self._ema = {key: averaged[key].to(value.device) for key, value in self._ema.items()}
                self._optimiser.load_state_dict(state["optimiser"])
                if self._scaler is not None:
                    self._scaler.load_state_dict(state["scaler"])
        except Exception as error:  # a damaged or hostile file raises nearly anything
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise FitError(
                f"{path}: damaged, or of another model ({reason}); remove it to go on from the one before, "
                "or train afresh"
            ) from error
        if other:
            told = "; ".join(f"{key} was {run.get(key)!r}, now {self.run.get(key)!r}" for key in other)
            raise FitError(f"{self.folder}: holds another run ({told}); train afresh, or in another folder")
        return progress

    def result(self, done: _Progress) -> Fitted:
        newest = self.folder / _name(done.step)
        last = newest / ("ema.safetensors" if self._ema else "weights.safetensors")
        best = self.folder / "best.safetensors" if done.best_step is not None else None
        return Fitted(last, best, done.best_step, done.best_value)


class _Log:
    """log.jsonl and TensorBoard's file. Lines beyond step `start`, of a run that was killed, are taken back."""

    def __init__(self, folder: Path, start: int, write: bool) -> None:
        self._folder, self._path, self._start, self._write = folder, folder / "log.jsonl", start, write

    def __enter__(self) -> _Log:
        if self._write:
            from tensorboardX.event_file_writer import EventsWriter
            from tensorboardX.proto.event_pb2 import Event, SessionLog

            # The writer below tensorboardX's SummaryWriter: that one hangs when the disk is full.
            with _saving(self._folder):
                self._path.touch()
                lines = [line for line in self._path.read_text(encoding="utf-8").splitlines() if _at(line, self._start)]
                partial = self._path.with_name(".log.partial")
                partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
                partial.replace(self._path)
                self._events = EventsWriter(str(self._folder / "events"))
                begin = SessionLog(status=SessionLog.START)
                self._events.write_event(Event(wall_time=time.time(), step=self._start + 1, session_log=begin))
        return self

    def line(self, step: int, values: Mapping[str, float]) -> None:
        if not self._write:
            return
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        with _saving(self._folder):
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")
            for name, value in values.items():
                self._events.write_event(Event(wall_time=time.time(), step=step, summary=scalar(name, value)))
            self._events.flush()

    def __exit__(self, *_: object) -> None:
        if self._write:
            with suppress(OSError):  # every line is on the disk already, or was complained of
                self._events.close()


def _at(line: str, step: int) -> bool:
    try:
        return int(json.loads(line)["step"]) <= step
    except (ValueError, KeyError, TypeError):  # torn when the run was killed
        return False


def _optimiser(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise FitError("no parameter of the model requires a gradient")
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[settings.optimiser]
    made: torch.optim.Optimizer = kind(
        parameters, lr=settings.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay
    )
    return made


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _steps(folder: Path) -> list[Path]:
    """Checkpoints, the oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def _flat(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().cpu().contiguous() for key, value in tensors.items()}


def _tidy(folder: Path, keep: bool) -> None:
    """Remove what a killed run left half-written, and, unless `keep`, everything of it."""
    patterns = (".*.partial",) if keep else (".*.partial", "step-*", "best.safetensors", "log.jsonl", "events.out.*")
    for path in [path for pattern in patterns for path in folder.glob(pattern)]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


@contextmanager
def _saving(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:  # torch.save reports a full disk as a RuntimeError
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:160]
        raise FitError(
            f"{folder}: cannot be written ({reason}); make room there, then the same command goes on"
        ) from error


@contextmanager
def _deterministic() -> Iterator[None]:
    """Full float32 where `precision` is "no", and the same kernels in every run."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
