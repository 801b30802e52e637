"""Trains a reference model on a prepared dataset, as `bench train eat-face`; see reference_models.training."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmark import configs, engine, footage, weights
from benchmark.errors import BenchError, writable
from pipelines import media
from reference_models.base import Footage, GenerationError
from reference_models.training import Task, Trained, TrainingError

# Names as users type them, and the modules that train them.
MODELS: dict[str, str] = {
    "dice-talk-embedder": "reference_models.dice_talk.embedder_training",
    "dice-talk": "reference_models.dice_talk.training",
    "eat-face": "reference_models.eat_face.training",
    "emotion-anchor": "reference_models.emotion_anchor.training",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What `bench train MODEL` was told; see reference_models.training.Task."""

    preset: str = ""
    stage: str = "all"
    ablation: str = ""
    steps: int | None = None
    seed: int = 0
    device: str = "cpu"
    precision: str = "no"
    resume: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)


def train(model: str, manifests: Sequence[Path], workspace: Path, settings: Settings) -> Trained:
    """Train `model` on the clips of the manifests and leave WORKSPACE/checkpoints/<model>-<preset>/<model>.safetensors;
    "-<ablation>" and "-seed<n>" are added where they are not the default.

    Raises BenchError: an unknown model, preset, stage or ablation, no clip to train on, a clip that cannot be read, or
    what the model's own check says; FitError as the training loop; ManifestError for a manifest.
    """
    module = _module(model)
    engine.check_device(settings.device)
    preset = _one_of(settings.preset or module.PRESETS[0], module.PRESETS, "--preset")
    stages = module.STAGES if settings.stage == "all" else (_one_of(settings.stage, module.STAGES, "--stage"),)
    if settings.ablation:
        _one_of(settings.ablation, module.ABLATIONS, "--ablation")
    name = "-".join(filter(None, (model, preset, settings.ablation, f"seed{settings.seed}" if settings.seed else "")))
    folder, cache = workspace / "checkpoints" / name, workspace / "checkpoints" / "cache"
    clips: dict[str, list[Footage]] = {}
    for at in manifests:
        for split, found in footage.splits(at).items():
            clips.setdefault(split, []).extend(found)
    if not clips.get("train"):
        told = ", ".join(map(str, manifests))
        raise BenchError(f"{told}: no clip in the train split; prepare the dataset with another --split")
    for place in (folder, cache):
        writable(place)
    task = Task(
        preset=preset,
        stages=tuple(stages),
        clips=clips,
        folder=folder,
        cache=cache,
        weights=_weights(module.WEIGHTS.get(preset, ())),
        ablation=settings.ablation,
        steps=settings.steps,
        seed=settings.seed,
        device=settings.device,
        precision=settings.precision,
        resume=settings.resume,
        options=settings.options,
    )
    try:
        done: Trained = module.train(task)
    except (TrainingError, GenerationError, media.MediaError) as error:
        raise BenchError(" ".join(str(error).split())) from error
    return done


def ablations(model: str) -> tuple[str, ...]:
    """Raises BenchError for an unknown model."""
    return tuple(_module(model).ABLATIONS)


def options(given: Sequence[str]) -> dict[str, Any]:
    """Options given as "name=value": true, false, a number, else text. Raises BenchError for another form."""
    found: dict[str, Any] = {}
    for words in given:
        name, equals, value = words.partition("=")
        if not (name and equals):
            raise BenchError(f"--option {words!r}; expected NAME=VALUE")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def _module(model: str) -> ModuleType:
    if model not in MODELS:
        raise BenchError(f"no model is named {model!r}; {configs.nearest(model, sorted(MODELS))}")
    return importlib.import_module(MODELS[model])


def _one_of(word: str, known: Sequence[str], option: str) -> str:
    if word not in known:
        raise BenchError(f"{option} {word!r}; {configs.nearest(word, known) if known else 'this model has none'}")
    return word


def _weights(names: Sequence[str]) -> dict[str, Path]:
    """Those of the networks that are on this machine."""
    found = {}
    for name in names:
        try:
            found[name] = weights.path(name, fetch=False)
        except weights.WeightsUnavailable:
            continue
    return found
