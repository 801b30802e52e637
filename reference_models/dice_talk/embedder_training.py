"""`bench train dice-talk-embedder`: DICE-Talk's emotion embedder, by its contrastive objective."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from tqdm import tqdm

from reference_models import training
from reference_models.base import Footage
from reference_models.dice_talk import coefficients, embedder_data, embedding, priors, speech
from reference_models.dice_talk.embedder import Embedder, Gaussian, Size
from reference_models.dice_talk.embedder_data import Batch, Batches, Views
from reference_models.dice_talk.embedder_losses import info_nce, same_as
from reference_models.dice_talk.embedding import MODEL, EmotionEmbedder, network_of
from reference_models.fit import Settings, Validate, fit
from reference_models.training import Task, Trained, TrainingError, changed

STAGES = ("embedder",)
ABLATIONS: tuple[str, ...] = ()
VALIDATED = 256  # clips of the val split at most


@dataclass(frozen=True, slots=True)
class Preset:
    """coefficients and speech name the front ends; window is in frames of 25 fps; drop as embedder_data.Batches;
    shuffle_conditions: a control, as embedder_data.shuffled."""

    size: Size = Size()  # noqa: RUF009 - frozen
    coefficients: str = coefficients.MORPHABLE
    speech: str = speech.WHISPER
    window: int = 256
    classes: int = 32
    samples: int = 4
    drop: float = 0.5
    temperature: float = 0.1
    learning_rate: float = 1e-4
    steps: int = 20_000
    every: int = 500  # steps from one checkpoint, and one look at the val split, to the next
    shuffle_conditions: bool = False


_PRESETS = {
    "full": Preset(),
    "tiny": Preset(
        size=Size(feedforward=256, visual_layers=1, audio_layers=1, cross_layers=1),
        coefficients=coefficients.MESH,
        speech=speech.LOG_MEL,
        window=32,
        classes=10,
        samples=2,
        learning_rate=3e-4,
        steps=300,
        every=50,
    ),
}
PRESETS = tuple(_PRESETS)
WEIGHTS = {"full": (speech.WHISPER, coefficients.LANDMARKER), "tiny": (coefficients.LANDMARKER,)}


def train(task: Task) -> Trained:
    """Fit the front ends and train the network; keeps the step that is best on the val split, where there is one, and
    leaves priors.npz, the mean prior of each emotion, beside the model.

    Raises TrainingError, GenerationError, and FitError as the training loop.
    """
    start = time.perf_counter()
    preset = _preset(task)
    clips = list(task.clips["train"])
    if preset.shuffle_conditions:
        clips = embedder_data.shuffled(clips, task.seed)
    views, remarks = _views(task, preset, clips)
    seen, ear = views.coefficients, views.speech
    torch.manual_seed(task.seed)
    config = {
        "model": MODEL,
        "preset": task.preset,
        "size": asdict(preset.size),
        "coefficients": seen.type,
        "speech": ear.id,
        "speech_features": ear.layers * ear.width,
        "window": preset.window,
        "emotions": sorted({clip.emotion for clip in clips}),
    }
    network = network_of(config)
    fitted = fit(
        network,
        lambda model, batch, generator: _loss(model, batch, generator, preset.temperature),
        Batches(
            clips,
            views,
            classes=preset.classes,
            samples=preset.samples,
            window=preset.window,
            drop=preset.drop,
            seed=task.seed,
        ),
        Settings(
            steps=task.steps or preset.steps,
            learning_rate=preset.learning_rate,
            optimiser="adam",
            warmup=min(50, preset.every),
            clip_norm=1.0,
            precision=cast(Any, task.precision),
            seed=task.seed,
            save_every=preset.every,
            validate_every=preset.every,
        ),
        task.folder / STAGES[0],
        validate=_validate(task, views, preset),
        device=task.device,
        about=_about(preset, views, clips),
        resume=task.resume,
        title=MODEL,
    )
    path = task.folder / f"{MODEL}.safetensors"
    tensors = {f"network.{name}": tensor for name, tensor in load_file(fitted.best or fitted.last).items()}
    arrays = {name: torch.from_numpy(array) for name, array in views.arrays().items()}
    training.save(path, {**tensors, **arrays}, config)
    embedder = embedding.load(path, task.preset, weights=task.weights, cache=task.cache, device=task.device)
    made = priors.average(embedder, clips)
    if made.means:
        priors.write(made, task.folder / priors.NAME)
        remarks.append(f"mean priors of {', '.join(sorted(made.means))}: {task.folder / priors.NAME}")
    if fitted.best_step is not None and fitted.best_value is not None:
        remarks.append(f"loss on the val split {-fitted.best_value:.3f}, the lowest, at step {fitted.best_step}")
    classes = len({same_as(clip) for clip in clips})
    remarks.append(
        f"{len(clips)} clips of {classes} classes, {seen.type} and {ear.id}, {time.perf_counter() - start:.0f} s"
    )
    return Trained(path, remarks)


def _preset(task: Task) -> Preset:
    """The preset with the task's options. Raises TrainingError for one that it does not have, or of another kind."""
    preset = _PRESETS[task.preset]
    chosen = changed(preset, task.options, fixed=("size",))
    for name in task.options:
        if type(value := getattr(chosen, name)) is int and value < 1:
            raise TrainingError(f"option {name} = {value!r}; expected int, as {getattr(preset, name)!r}")
    if not 0 <= chosen.drop <= 1 or chosen.temperature <= 0 or chosen.samples < 2:
        raise TrainingError(
            f"drop = {chosen.drop}, temperature = {chosen.temperature}, samples = {chosen.samples}; expected 0 to 1, "
            "above 0, and at least 2"
        )
    return chosen


def _views(task: Task, preset: Preset, clips: Sequence[Footage]) -> tuple[Views, list[str]]:
    """The front ends, fitted to these clips, and what a person should be told; the clips' arrays are stored."""
    landmarker, whisper = (task.weights.get(name) for name in (coefficients.LANDMARKER, speech.WHISPER))
    id, told = preset.speech, []
    if preset.shuffle_conditions:
        told.append("every clip has the sound and the emotion of another: a control")
    if id == speech.WHISPER:
        id = speech.available(whisper)
        if whisper is None:
            told.append(f"{speech.WHISPER} is not on this machine: trained on {id}, another front end")
    ear = speech.speech(id, whisper, task.device)
    seen = coefficients.fit(preset.coefficients, clips, task.cache, landmarker)
    views = embedder_data.fit(seen, ear, clips, task.cache)
    for clip in tqdm([*clips, *_validated(task)], desc="clips", unit="clip", disable=None):
        views(clip)
    return views, told


def _loss(model: nn.Module, batch: Batch, generator: torch.Generator, temperature: float) -> dict[str, Tensor]:
    found: Gaussian = model(batch["coefficients"], batch["speech"], batch["mask"])
    return {"contrastive": info_nce(found.sample(generator), batch["classes"], temperature)}


def _validated(task: Task) -> list[Footage]:
    """Clips of the val split, evenly chosen, of which some pair is alike and some is not; else none."""
    every = task.clips.get("val", ())
    chosen = [every[index] for index in range(0, len(every), -(-len(every) // VALIDATED) or 1)]
    classes = {same_as(clip) for clip in chosen}
    return chosen if 1 < len(classes) < len(chosen) else []


def _validate(task: Task, views: Views, preset: Preset) -> Validate | None:
    clips = _validated(task)
    if not clips:
        return None
    numbers: dict[Hashable, int] = {}
    classes = torch.tensor([numbers.setdefault(same_as(clip), len(numbers)) for clip in clips])

    def validate(model: nn.Module, step: int) -> float:
        assert isinstance(model, Embedder)
        embedder = EmotionEmbedder(model, views, preset.window, "", task.device)
        means = torch.stack([torch.from_numpy(embedder(clip).mean) for clip in clips])
        return -float(info_nce(means, classes, preset.temperature))

    return validate


def _about(preset: Preset, views: Views, clips: Sequence[Footage]) -> str:
    told = {**asdict(preset), "steps": 0, "every": 0, "speech": views.speech.id}
    digest = hashlib.sha256(json.dumps([told, *(clip.key for clip in clips)], sort_keys=True).encode())
    for array in views.arrays().values():
        digest.update(array.tobytes())
    return digest.hexdigest()
