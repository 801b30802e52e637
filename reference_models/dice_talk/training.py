"""`bench train dice-talk`: the diffusion model, in one stage after the autoencoder of the preset that has its own."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from tqdm import tqdm

from reference_models import training
from reference_models.base import Footage
from reference_models.dice_talk import checkpoints, data, embedding, losses, presets, priors, tokens, vision
from reference_models.dice_talk.coefficients import LANDMARKER
from reference_models.dice_talk.conditioning import Bank
from reference_models.dice_talk.data import Batch, Example
from reference_models.dice_talk.model import STEP, DiceTalk, still
from reference_models.dice_talk.presets import Preset
from reference_models.dice_talk.sampling import Sampler, Track
from reference_models.dice_talk.speech import LOG_MEL, WHISPER, WINDOW, available
from reference_models.dice_talk.speech import speech as front_end
from reference_models.dice_talk.vision import Vision
from reference_models.fit import Settings, fit
from reference_models.training import Task, Trained, TrainingError

UNET = "svd-xt"
PRIORS = "priors.npz"  # of the emotions, beside the model: what Ours-P is told
PRESETS = tuple(presets.PRESETS)
STAGES = ("autoencoder", "diffusion")
WEIGHTS = {
    "full": (UNET, vision.VAE, vision.ENCODER, WHISPER, LANDMARKER),
    "tiny": (LANDMARKER,),
}
SWITCHES: dict[str, dict[str, Any]] = {  # rows of Table 4
    "no-bank": {"bank": "none"},
    "no-discrimination": {"discrimination": 0.0},
    "learnable-bank": {"bank": "learnable"},
    "mean-prior": {"mean_prior": True},
}
ABLATIONS = tuple(SWITCHES)
OF_ANY_LENGTH, MAY_BE_NONE = ("widths", "heads", "autoencoder", "guider"), ("shift", "warmup", "token_steps")  # options
VALIDATION = 8  # batches with the noise of their own numbers
SHOWN = 2  # validation clips that are sampled


def train(task: Task) -> Trained:
    """Raises TrainingError, GenerationError for weights that do not fit, FitError as the training loop."""
    began = time.perf_counter()
    preset = _preset(task)
    remarks: list[str] = []
    if task.preset != "tiny" and task.stages == ("autoencoder",):
        raise TrainingError(f"preset {task.preset} has no stage autoencoder: it uses {vision.VAE}")
    seen = _vision(task, preset, remarks)
    if "diffusion" not in task.stages:
        return Trained(_autoencoder_file(task), remarks)
    embedder = _embedder(task)
    whisper = task.weights.get(WHISPER)
    heard = front_end(LOG_MEL if task.preset == "tiny" else available(whisper), whisper, task.device)
    if task.preset != "tiny" and whisper is None:
        remarks.append(f"{WHISPER} is not on this machine: trained on {LOG_MEL}, another front end")

    def prepared(clip: Footage, copies: int) -> list[Example]:
        felt = embedder(clip)
        prior = felt.mean, felt.deviation
        return [data.example(clip, copy, task.cache, preset, seen, heard, prior) for copy in range(copies)]

    examples = {
        split: [
            example
            for clip in tqdm(clips, desc=f"{split} clips", unit="clip", disable=None)
            for example in prepared(clip, preset.copies if split == "train" else 1)
        ]
        for split, clips in _long_enough(task, preset, remarks).items()
    }
    torch.manual_seed(task.seed)
    model = DiceTalk(preset, heard.layers * heard.width)
    _start(model, task, remarks)
    _spread(model, examples["train"], task.seed)
    about = _digest(
        [asdict(preset), seen.id, heard.id, embedder.digest, *(f"{e.clip.key} {e.copy}" for e in examples["train"])]
    )
    if preset.token_steps:
        tokens.learn(model, examples["train"], preset, task, about)
    fitted = fit(
        model,
        lambda network, batch, generator: losses.objective(network, batch, generator, preset),
        data.batches(examples["train"], preset, seen.scaling, task.seed),
        _settings(task, preset),
        task.folder / "diffusion",
        validate=_validate(examples["val"], preset, seen, task) if examples["val"] else None,
        device=task.device,
        about=about,
        resume=task.resume,
        title=checkpoints.MODEL,
    )
    priors.write(priors.average(embedder, [e.clip for e in examples["train"] if not e.copy]), task.folder / PRIORS)
    path = task.folder / f"{checkpoints.MODEL}.safetensors"
    config = {
        "model": checkpoints.MODEL,
        "preset": task.preset,
        "fields": asdict(preset),
        "speech": heard.id,
        "speech_size": heard.layers * heard.width,
        "vision": seen.id,
        "embedder": embedder.digest,
    }
    training.save(path, load_file(fitted.last), config)
    remarks.append(f"{len(examples['train']) // preset.copies} clips, {heard.id}, {time.perf_counter() - began:.0f} s")
    return Trained(path, remarks)


def _preset(task: Task) -> Preset:
    """Raises TrainingError for an option that the preset lacks, of another kind, or that no model can be made with."""
    own = replace(presets.PRESETS[task.preset], **SWITCHES.get(task.ablation, {}))
    chosen = training.changed(own, task.options)
    for name in task.options:
        if not _fits(name, getattr(chosen, name), known := getattr(own, name)):
            raise TrainingError(
                f"option {name} = {getattr(chosen, name)!r}; expected {type(known).__name__}, as {known!r}"
            )
    if task.options:
        told = ", ".join(f"{name} = {getattr(chosen, name)!r}" for name in task.options)
        _possible(chosen, told)
    return chosen


def _fits(name: str, value: Any, own: Any) -> bool:
    """Whether a value of the right kind is as large, or a list as long, as it must be."""
    if isinstance(own, tuple):
        positive = not isinstance(own[0], int) or all(one > 0 for one in value)
        return positive and (name in OF_ANY_LENGTH or len(value) == len(own))
    if isinstance(own, int) and not isinstance(own, bool):
        least: int = 0 if name in MAY_BE_NONE else min(own, 1)
        return bool(value >= least)
    return True


def _possible(preset: Preset, told: str) -> None:
    """Raises TrainingError where a model of this preset cannot be made; `told` are the options."""
    granule = preset.factor << (len(preset.widths) - 1)
    for wrong, expected in (
        (preset.prior != priors.WIDTH, f"prior = {priors.WIDTH}, that of the embedder"),
        (preset.pixels % granule, f"pixels a multiple of {granule}"),
        (preset.latents > 3 * preset.square**2 > 0, f"latents of at most {3 * preset.square**2}, a square's numbers"),
        (min(preset.drops) < 0 or sum(preset.drops) > 1, "drops of 0 to 1 in all"),
        (preset.bank not in get_args(Bank), f"bank one of {', '.join(get_args(Bank))}"),
    ):
        if wrong:
            raise TrainingError(f"option {told}; expected {expected}")
    try:
        with torch.device("meta"):
            DiceTalk(preset, WINDOW)
    except (ValueError, RuntimeError, TypeError, IndexError, ZeroDivisionError) as error:
        raise TrainingError(f"option {told}; no model can be made so ({' '.join(str(error).split())[:160]})") from error


def _settings(task: Task, preset: Preset) -> Settings:
    return Settings(
        steps=task.steps or preset.steps,
        learning_rate=preset.learning_rate,
        optimiser="adam",
        warmup=preset.warmup,
        accumulate=preset.accumulate,
        clip_norm=1.0,
        ema=preset.ema,
        precision=task.precision,  # type: ignore[arg-type]
        seed=task.seed,
        save_every=preset.validate_every,
        validate_every=preset.validate_every,
    )


# --- what it stands on ---------------------------------------------------------------------------------------------


def _autoencoder_file(task: Task) -> Path:
    return task.folder.parent / f"{vision.NAME}-{task.preset}" / f"{vision.NAME}.safetensors"


def _vision(task: Task, preset: Preset, remarks: list[str]) -> Vision:
    """SVD's networks, or those that the tiny preset trains for itself: once for all its seeds and ablations."""
    if task.preset != "tiny":
        missing = [name for name in (vision.VAE, vision.ENCODER) if name not in task.weights]
        if missing:
            raise TrainingError(
                f"preset {task.preset} needs {' and '.join(missing)}; `bench weights add {missing[0]} FILE`"
            )
        return vision.pretrained(preset, task.weights[vision.VAE], task.weights[vision.ENCODER], task.device)
    file = _autoencoder_file(task)
    about = _digest(
        [
            preset.pixels,
            preset.steady,
            preset.square,
            preset.latents,
            preset.encoder,
            *(clip.key for clip in task.clips["train"]),
        ]
    )
    fresh = not task.resume and task.stages == ("autoencoder",)
    if fresh or not file.exists() or training.load(file, vision.NAME, task.preset)[1].get("about") != about:
        if "autoencoder" not in task.stages:
            raise TrainingError(f"{file.name} of these clips is missing; run the stage autoencoder first")
        _train_autoencoder(task, preset, file, about)
        remarks.append(f"autoencoder and image encoder: {file}")
    return vision.load(preset, task.preset, file, task.device)


def _train_autoencoder(task: Task, preset: Preset, file: Path, about: str) -> None:
    clips = [data.small(clip, task.cache, preset)[0] for clip in task.clips["train"]]
    torch.manual_seed(task.seed)
    model = vision.Autoencoder(preset)
    model.squares.fill(clips)
    fitted = fit(
        model,
        lambda network, batch, generator: network(*batch),
        vision.batches(clips, task.seed),
        Settings(
            steps=preset.autoencoder_steps,
            learning_rate=2e-3,
            warmup=20,
            clip_norm=1.0,
            ema=0.98,
            save_every=100,
            seed=task.seed,
        ),
        file.parent / "autoencoder",
        device=task.device,
        about=about,
        resume=task.resume,
        title=vision.NAME,
    )
    model.load_state_dict(load_file(fitted.last))
    config = {"model": vision.NAME, "preset": task.preset, "about": about}
    training.save(file, model.cpu().state_dict(), config)


def _embedder(task: Task) -> embedding.EmotionEmbedder:
    file = task.folder.parent / f"{embedding.MODEL}-{task.preset}" / f"{embedding.MODEL}.safetensors"
    if not file.exists():
        raise TrainingError(
            f"{file} is missing, from which the emotion priors come; `bench train {embedding.MODEL} "
            f"--preset {task.preset}` with the same --data makes it"
        )
    return embedding.load(file, task.preset, weights=task.weights, cache=task.cache, device=task.device)


def _long_enough(task: Task, preset: Preset, remarks: list[str]) -> dict[str, list[Footage]]:
    """Clips of a whole window, of the train and val splits. Raises TrainingError where none is left to train on."""
    least = STEP * (preset.window - 1) + 1
    kept = {split: [c for c in task.clips.get(split, ()) if c.num_frames >= least] for split in ("train", "val")}
    short = sum(len(task.clips.get(split, ())) for split in kept) - sum(map(len, kept.values()))
    if not kept["train"]:
        raise TrainingError(f"no clip of at least {least} frames in the train split, a window of preset {task.preset}")
    if short:
        remarks.append(f"{short} clips left out: fewer than {least} frames, a window")
    return kept


def _start(model: DiceTalk, task: Task, remarks: list[str]) -> None:
    if task.preset != "tiny" and UNET in task.weights:
        checkpoints.initialise(model, task.weights[UNET])
        return
    still(model.unet)
    nn.init.zeros_(model.unet.conv_out.weight)  # what is denoised begins as nothing, or as the reference
    if task.preset != "tiny":
        remarks.append(
            f"{UNET} is not on this machine: trained from scratch, not as published (`bench weights add {UNET} FILE`)"
        )


def _spread(model: DiceTalk, examples: Sequence[Example], seed: int) -> None:
    """Put the bank's entries where priors are, so that they part the priors from the first step on."""
    bank = model.emo_model.codebook
    rng = np.random.default_rng([seed, 4])
    chosen = rng.choice(
        len(examples), bank.codebook.num_embeddings, replace=len(examples) < bank.codebook.num_embeddings
    )
    means = torch.from_numpy(np.stack([examples[i].prior[0] for i in chosen]))
    with torch.no_grad():
        bank.codebook.weight.copy_(bank.fc(means))


# --- validation ----------------------------------------------------------------------------------------------------


def _validate(examples: Sequence[Example], preset: Preset, seen: Vision, task: Task) -> Any:
    """Minus the denoising loss on fixed batches of the val split; the first windows of a few clips, real above sampled,
    go to samples/step-N.png."""
    batch = data.batches(examples, replace(preset, drops=(0, 0, 0, 0), shuffle_conditions=False), seen.scaling, 0)
    fixed = [batch(number) for number in range(VALIDATION)]
    shown = examples[:: max(1, len(examples) // SHOWN)][:SHOWN]

    def validate(model: nn.Module, step: int) -> float:
        assert isinstance(model, DiceTalk)
        device = next(model.parameters()).device
        found = []
        for number, one in enumerate(fixed):
            generator = torch.Generator(device).manual_seed(number)
            given = Batch(*(tensor.to(device) for tensor in one))
            found.append(float(losses.objective(model, given, generator, preset)["denoising"]))
        rows = [_row(model, preset, example, seen, str(device)) for example in shown]
        to = task.folder / "samples"
        to.mkdir(exist_ok=True)
        Image.fromarray(np.concatenate(rows)).save(to / f"step-{step:08d}.png")
        return -float(np.mean(found))

    return validate


def _row(model: DiceTalk, preset: Preset, example: Example, seen: Vision, device: str) -> np.ndarray[Any, Any]:
    """A window's frames side by side, real above generated, from the clip's own first frame: (2 H, F W, 3) uint8."""
    frames = STEP * np.arange(preset.window)
    track = Track(
        frames=preset.window,
        image=np.array(example.latents[0]),
        seen=np.array(example.embeddings[0]),
        mask=example.masks[0],
        heard=lambda numbers: np.stack([example.features[2 * STEP * i : 2 * STEP * i + WINDOW] for i in numbers]),
        felt=lambda numbers: np.repeat(example.prior[0][None], len(numbers), 0),
    )
    made = torch.from_numpy(np.array(Sampler(model, preset, device=device).latents(track, 0)))
    real = torch.from_numpy(np.float32(seen.scaling) * (example.latents[frames] - preset.from_reference * track.image))
    return np.concatenate([np.concatenate(list(seen.decoded(one, track.image)), 1) for one in (real, made)])


def _digest(of: Any) -> str:
    return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()
