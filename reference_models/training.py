"""What `bench train` asks of a reference model, the same for all of them.

A model's training module (`reference_models.<model>.training`) has
  PRESETS   names of its configurations, the first is the default
  STAGES    names of its stages in their order
  ABLATIONS names of its switches, each a row of the paper's ablation
  WEIGHTS   by preset, the pretrained networks that a training starts from, as the registry calls them
  train     train(task) -> Trained
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from reference_models.base import FPS, SAMPLE_RATE, Footage, GenerationError

P = TypeVar("P", bound=Any)
TRIES = 100  # partners that a clip is tried with


class TrainingError(Exception):
    """A training that cannot start: one line, what was found and expected."""


@dataclass(frozen=True, slots=True)
class Task:
    """A training that was asked for.

    clips     by split ("train", "val", "test")
    folder    of this model, preset and ablation: checkpoints go to `folder`/<stage>, the finished model beside them
    cache     folder for what is computed once a clip; shared by all models and runs
    weights   files of the pretrained networks of WEIGHTS that are on this machine, by name
    steps     optimiser steps of each stage; None: the preset's
    options   further fields of the preset to replace, by name
    """

    preset: str
    stages: tuple[str, ...]
    clips: Mapping[str, Sequence[Footage]]
    folder: Path
    cache: Path
    weights: Mapping[str, Path] = field(default_factory=dict)
    ablation: str = ""
    steps: int | None = None
    seed: int = 0
    device: str = "cpu"
    precision: str = "no"
    resume: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Trained:
    """The finished model's file, and what a person should be told: losses, what was left out, how long."""

    path: Path
    remarks: list[str]


def changed(preset: P, options: Mapping[str, Any], fixed: Collection[str] = ()) -> P:
    """The preset, a dataclass, with fields replaced, none of the `fixed` ones; lists stand for tuples, whole
    numbers for floats. Raises TrainingError for a field that it has not, and for values of another kind."""
    known = [field.name for field in fields(preset) if field.name not in fixed]
    found: dict[str, Any] = {}
    for name, value in options.items():
        if name not in known:
            raise TrainingError(f"option {name!r}; expected one of {', '.join(known)}")
        own = getattr(preset, name)
        if isinstance(own, tuple):
            value = tuple(value) if isinstance(value, list) else value
            like = type(value) is tuple and all(_alike(one, own[0]) for one in value if own)
        else:
            value = float(value) if isinstance(own, float) and type(value) is int else value
            like = _alike(value, own)
        if not like:
            raise TrainingError(f"option {name} = {value!r}; expected {type(own).__name__}, as {own!r}")
        found[name] = value
    made: P = replace(preset, **found)
    return made


def refuse(preset: Any, names: str, expected: str) -> NoReturn:
    """Raises TrainingError for the values of these fields."""
    given = ", ".join(f"{name} = {getattr(preset, name)!r}" for name in names.split())
    raise TrainingError(f"option {given}; expected {expected}")


def check_ranges(preset: Any, positive: Sequence[str], shares: Sequence[str]) -> None:
    """Raises TrainingError where a field that must be positive is below 1, or a share not of 0 to 1."""
    for name in positive:
        if getattr(preset, name) < 1:
            refuse(preset, name, "1 or more")
    for name in shares:
        if not 0 <= getattr(preset, name) <= 1:
            refuse(preset, name, "a share, 0 to 1")


def _alike(value: Any, own: Any) -> bool:
    if isinstance(own, float):
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is type(own)


def save(path: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Write a finished model with its configuration in the header, whole or not at all; equal input, equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")  # several processes may end a training at once
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(whole, partial, {"config": json.dumps(config, sort_keys=True)})
    partial.replace(path)


def load(path: Path, model: str, preset: str | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and configuration of a file that save() wrote, of that `model` and `preset`, as config names them; of any
    preset where none is given.

    Raises GenerationError for a damaged file, or one of another model or preset.
    """
    try:
        with safe_open(path, framework="pt") as file:
            config = json.loads((file.metadata() or {})["config"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        found = (config["model"], config["preset"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise GenerationError(f"{path.name}: no checkpoint of {model}, or damaged ({reason}); train it anew") from error
    if found != (model, preset or found[1]):
        raise GenerationError(
            f"{path.name}: is of {found[0]}, preset {found[1]}; expected {model}, preset {preset or 'any'}: "
            "give the checkpoint of that preset, or train it"
        )
    return tensors, config


def mismatched(clips: Sequence[Footage], seed: int) -> list[Footage]:
    """For a control: every clip with the sound and the emotion of another, which says something else in another emotion
    as far as there is such a one. The sound begins at a random place and goes round: clips start and end in silence
    with the mouth shut, and from that alone a control would learn to hear."""
    rng = np.random.default_rng([seed, 2])
    out = []
    for clip, donor in zip(clips, strangers(clips, seed), strict=True):
        other, start = clips[donor], float(rng.random())
        sound = partial(_round, other.audio, start, round(clip.num_frames * SAMPLE_RATE / FPS))
        key = f"{clip.key}+{other.key}+{start:.6f}"
        out.append(replace(clip, audio=sound, emotion=other.emotion, sentence=other.sentence, key=key))
    return out


def _round(audio: Callable[[], NDArray[np.float32]], start: float, length: int) -> NDArray[np.float32]:
    """`length` samples from the share `start` of a sound, over and over."""
    sound = audio()
    return np.resize(np.roll(sound, -int(start * len(sound))), length)


def strangers(clips: Sequence[Footage], seed: int) -> list[int]:
    """Of each clip another's number, every one once; one that says something else in another emotion as far as there
    are such."""

    def alike(one: int, other: int) -> int:
        a, b = clips[one], clips[other]
        return 9 * (one == other) + (a.emotion == b.emotion) + (a.sentence is not None and a.sentence == b.sentence)

    rng, count = np.random.default_rng([seed, 1]), len(clips)
    found: list[int] = rng.permutation(count).tolist()
    for one in [*range(count)] * 3:  # what one round left, a partner of the next may mend
        for other in rng.integers(count, size=TRIES * bool(alike(one, found[one]))).tolist():
            now = alike(one, found[one]) + alike(other, found[other])
            if alike(one, found[other]) + alike(other, found[one]) < now:
                found[one], found[other] = found[other], found[one]
            if not alike(one, found[one]):
                break
    return found


def cached(folder: Path, clip: Footage, kind: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    """An array that is computed once a clip and then mapped from the disk. `kind` names everything beside the clip
    that determines it (size, network, version)."""
    name = hashlib.sha256(f"{clip.key} {kind}".encode()).hexdigest()[:32]
    path = folder / f"{name}.npy"
    if not path.exists():
        made = make()
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{name}.{os.getpid()}.partial"
        with partial.open("wb") as file:
            np.save(file, made, allow_pickle=False)
        partial.replace(path)
    try:
        read: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise TrainingError(f"{path}: damaged; remove it, and the same command computes it again") from error
    return read
