"""`bench train emotion-anchor`: audio codes, visual tokens, then the transformer over both."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from reference_models import training
from reference_models.base import Footage, GenerationError
from reference_models.emotion_anchor import data, losses, perceptual
from reference_models.emotion_anchor.audio import Disentangler
from reference_models.emotion_anchor.presets import EMOTIONS, MODEL, Preset, preset_of, recorded, restored
from reference_models.emotion_anchor.transformer import Autoregressor, Conditions
from reference_models.emotion_anchor.vqgan import SquareTokens, Tokens, visual
from reference_models.fit import Fitted, Settings, fit
from reference_models.training import Task, Trained, TrainingError

PRESETS = ("full", "tiny")
STAGES = ("audio", "vq", "transformer")
ABLATIONS: tuple[str, ...] = ()
WEIGHTS = {"full": (perceptual.WEIGHTS,)}
# In which sound and tokens may differ from what the transformer is trained with: they do not see it.
FREE = (
    "stages", "every", "shuffle_conditions", "layers", "heads", "width", "pkeep", "continuity", "auxiliary", "words",
    "unheard", "guidance", "top_k",
)  # fmt: skip
VALIDATED = 16  # items of the val split
SAMPLING = ("guidance", "top_k")  # fields of a preset that change no weight
SHOWN = 4096  # pictures, at most, in which components and codebook are found
T = TypeVar("T", bound=nn.Module)


def train(task: Task) -> Trained:
    """Train the stages that were asked for, and leave <stage>.safetensors of each; with the transformer, the finished
    model. Raises TrainingError."""
    preset = preset_of(task.preset, task.options)
    clips = [clip for clip in task.clips["train"] if clip.num_frames > 1]
    if not clips:
        raise TrainingError(f"{len(task.clips['train'])} clips in the train split, none of two frames or more")
    run = _Run(task, preset, clips, data.Views(task.cache, preset.size))
    path = task.folder
    for stage in task.stages:
        start = time.perf_counter()
        path = {"audio": run.audio, "vq": run.vq, "transformer": run.transformer}[stage]()
        run.remarks.append(f"{stage}: {time.perf_counter() - start:.0f} s")
    return Trained(path, run.remarks)


class _Run:
    def __init__(self, task: Task, preset: Preset, clips: Sequence[Footage], views: data.Views) -> None:
        self.task, self.preset, self.clips, self.views = task, preset, clips, views
        self.others = [clip for clip in task.clips.get("val", ()) if clip.num_frames > 1]
        self.remarks: list[str] = []
        self._sources = data.Sources([*clips, *self.others], views)

    def audio(self) -> Path:
        """E_c, E_e and G; windows are standardised by the train split."""
        network = self._made(lambda: _disentangler(self.preset))
        found = np.concatenate([np.asarray(self.views.mfcc(clip)) for clip in self.clips])
        network.mean.copy_(torch.from_numpy(found.mean(0)))
        network.spread.copy_(torch.from_numpy(found.std(0).clip(1e-3)))
        pairs = data.same_content(self.clips, self.views)
        batches = data.Sounds(self.clips, pairs, self.views, self.preset.stages["audio"].batch, self.task.seed)

        def loss(model: nn.Module, batch: Any, _: torch.Generator) -> Mapping[str, Tensor]:
            same, other = (tuple(network.standard(x) for x in batch[name]) for name in ("same", "other"))
            terms: dict[str, Tensor] = model(same, other, tuple(batch["emotions"]))
            return terms

        fitted = self._fit("audio", losses.Minimised(network, losses.disentangling), loss, batches)
        path = self._keep("audio", _part(load_file(fitted.last), "network."))
        network = self._loaded("audio", _disentangler(self.preset))
        right = [self._named(network, clip) for clip in self.others if clip.emotion in EMOTIONS]
        self.remarks.append(f"audio: {len(pairs)} pairs of clips that say the same")
        if right:
            self.remarks.append(f"audio: emotion named by sound in {np.mean(right):.2f} of the val split's clips")
        return path

    def vq(self) -> Path:
        """The VQGAN, on the faces of the train and val splits."""
        preset, lpips = self.preset, None
        if preset.square:
            return self._filled()
        if preset.perceptual:
            if perceptual.WEIGHTS not in self.task.weights:
                raise TrainingError(
                    f"{perceptual.WEIGHTS} is missing, which the {preset.name} preset's perceptual loss needs "
                    f"(`bench weights fetch {perceptual.WEIGHTS}`)"
                )
            lpips = perceptual.Lpips(self.task.weights[perceptual.WEIGHTS], self.task.device)
        network = self._made(lambda: losses.Adversaries(preset))
        faces, items = [*self.clips, *self.others], preset.stages["vq"].batch
        batches = data.Pictures(faces, self.views, preset.recolour, items, self.task.seed)

        def loss(model: nn.Module, batch: Any, _: torch.Generator) -> Mapping[str, Tensor]:
            terms: dict[str, Tensor] = model(batch["pictures"], batch["number"], preset, lpips)
            return terms

        fitted = self._fit("vq", network, loss, batches)
        path = self._keep("vq", _part(load_file(fitted.last), "vqgan."))
        self._report_usage(self._loaded("vq", visual(preset)))
        return path

    def _filled(self) -> Path:
        """Components and codebook of the same faces, evened as the transformer sees them, and mirrored."""
        faces = [*self.clips, *self.others]
        step = max(4, -(-sum(clip.num_frames for clip in faces) // SHOWN))
        pictures = torch.cat([self._shown(clip, np.s_[::step])[0] for clip in faces])
        network = SquareTokens(self.preset)
        network.fill(torch.cat([pictures, pictures.flip(-1)]), self.task.seed)
        path = self._keep("vq", network.state_dict())
        self._report_usage(self._loaded("vq", visual(self.preset)))
        return path

    def _shown(self, clip: Footage, frames: slice) -> tuple[Tensor, Tensor]:
        """Pictures (n, 3, S, S) of a clip, each evened by a source of its own where the preset does so, and by how
        much (n, 3, 1, 1)."""
        pictures = data.pixels(np.asarray(self.views.squares(clip)[frames]))
        if not self.preset.evened:
            return pictures, torch.ones(())
        random = data.rng(self.task.seed, 0)
        sources = data.pixels(np.stack([self._sources(clip, random) for _ in pictures]))
        shown, _, spread = data.evened(pictures, sources)
        return shown, spread

    def transformer(self) -> Path:
        """Anchor and transformer over the codes of the two others, which stay as they are."""
        preset, task = self.preset, self.task
        sound = self._loaded("audio", _disentangler(preset))
        vqgan = self._loaded("vq", visual(preset)).to(task.device)
        digest = _digest(self._stage("audio"))
        network = self._made(lambda: Autoregressor(preset, vqgan.codebook.entries.cpu()))
        codes = partial(self.views.codes, network=sound, digest=digest)
        batches = data.sequences(self.clips, self.views, codes, preset, task.seed, preset.stages["transformer"].batch)
        loss = partial(_sequence_loss, vqgan=vqgan, preset=preset)
        validate = None
        if self.others:
            plain = preset_of(task.preset, {**task.options, "shuffle_conditions": False})
            fixed = data.sequences(self.others, self.views, codes, plain, 0, VALIDATED)(0)
            validate = partial(_validated, batch=_moved(fixed, task.device), vqgan=vqgan, preset=preset)
        terms = partial(losses.sequence, entries=vqgan.codebook.entries)
        fitted = self._fit("transformer", losses.Minimised(network, terms), loss, batches, validate)
        if fitted.best_value is not None:
            value, step = -fitted.best_value, fitted.best_step
            self.remarks.append(f"transformer: cross-entropy of the val split {value:.3f}, the lowest, at step {step}")
        self._keep("transformer", _part(load_file(fitted.best or fitted.last), "network."))
        whole = {f"{stage}.{name}": tensor for stage in STAGES for name, tensor in self._stage(stage).items()}
        path = task.folder / f"{MODEL}.safetensors"
        words = sorted({clip.emotion for clip in self.clips} & set(EMOTIONS))
        training.save(path, whole, {**self._config(), "emotions": words})
        return path

    def _made(self, make: Callable[[], T]) -> T:
        """A network whose first weights follow from the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.task.seed)
            return make()

    def _fit(
        self,
        stage: str,
        network: nn.Module,
        loss: Any,
        batches: Any,
        validate: Any = None,
    ) -> Fitted:
        task, of = self.task, self.preset.stages[stage]
        steps = task.steps or of.steps
        settings = Settings(
            steps=steps,
            learning_rate=of.rate,
            betas=of.betas,
            optimiser="adam",
            warmup=self.preset.warmup,
            clip_norm=0.0 if stage == "vq" else 1.0,  # a common norm would tie the discriminator to the VQGAN
            ema=self.preset.ema,
            precision=task.precision,  # type: ignore[arg-type]
            seed=task.seed,
            save_every=self.preset.every,
            validate_every=self.preset.every,
        )
        return fit(
            network,
            loss,
            batches,
            settings,
            task.folder / stage,
            validate=validate,
            device=task.device,
            about=self._about(stage),
            resume=task.resume,
            title=f"{MODEL} {stage}",
        )

    def _about(self, stage: str) -> str:
        preset = {name: value for name, value in recorded(self.preset).items() if name not in SAMPLING}
        told: list[Any] = [preset, [clip.key for clip in self.clips]]
        if stage == "transformer":
            told += [_digest(self._stage(stage)) for stage in STAGES[:2]]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def _config(self) -> dict[str, Any]:
        return {"model": MODEL, "preset": self.preset.name, "configuration": recorded(self.preset)}

    def _keep(self, stage: str, tensors: Mapping[str, Tensor]) -> Path:
        path = self.task.folder / f"{stage}.safetensors"
        training.save(path, tensors, self._config())
        return path

    def _stage(self, stage: str) -> dict[str, Tensor]:
        """What a stage left. Raises TrainingError if it has not been trained, or with another configuration."""
        path = self.task.folder / f"{stage}.safetensors"
        if not path.exists():
            raise TrainingError(f"{path}: missing; train it first: `bench train {MODEL} --stage {stage}`")
        try:
            tensors, config = training.load(path, MODEL, self.preset.name)
            found = asdict(restored(config.get("configuration"), path.name))
        except GenerationError as error:
            raise TrainingError(str(error)) from error
        now = recorded(self.preset)
        other = [name for name in now if name not in FREE and found[name] != now[name]]
        if other:
            told = ", ".join(f"{name} was {found[name]!r}, now {now[name]!r}" for name in other)
            raise TrainingError(f"{path}: of another configuration ({told}); train that stage anew")
        return tensors

    def _loaded(self, stage: str, network: T) -> T:
        network.load_state_dict(self._stage(stage))
        return network.eval().requires_grad_(False)

    def _named(self, network: Disentangler, clip: Footage) -> bool:
        emotion = network.codes(np.asarray(self.views.mfcc(clip)))[1]
        return int(network.classifier(emotion).log_softmax(1).mean(0).argmax()) == EMOTIONS.index(clip.emotion)

    @torch.no_grad()
    def _report_usage(self, vqgan: Tokens) -> None:
        seen = self.others or self.clips
        tokens, apart = [], []
        for clip in seen[:: max(1, len(seen) // VALIDATED)]:
            some, spread = self._shown(clip, np.s_[:: max(1, clip.num_frames // 4)])
            made, found = vqgan(some)
            tokens.append(found.indices.flatten())
            apart.append(float(((made - some) * spread).abs().mean()))
        use = losses.usage(torch.cat(tokens), self.preset.codes)
        self.remarks.append(
            f"vq: {use['used']:.2f} of {self.preset.codes} codes occur in {len(apart)} clips, perplexity "
            f"{use['perplexity']:.0f}, mean error {np.mean(apart) * 127.5:.1f} of 255"
        )


def _sequence_loss(
    model: nn.Module, batch: Any, generator: torch.Generator, *, vqgan: Tokens, preset: Preset
) -> dict[str, Tensor]:
    terms: dict[str, Tensor] = model(
        *_conditions(batch, vqgan), batch["words"].repeat_interleave(2), batch["told"], preset, generator
    )
    return terms


def _conditions(batch: Mapping[str, Tensor], vqgan: Tokens) -> tuple[Conditions, Tensor]:
    """Conditions and codes (2 M, n) of a batch of data.Sequences."""
    with torch.no_grad():
        tokens = vqgan.tokens(batch["pictures"].flatten(0, 1)).flatten(1)
        tokens = tokens.reshape(-1, 3, tokens.shape[1])
        source = vqgan.codebook.entries[tokens[:, 0]].repeat_interleave(2, 0)
    given = Conditions(source, batch["content"].flatten(0, 1), batch["emotion"].repeat_interleave(2, 0))
    return given, tokens[:, 1:].flatten(0, 1)


def _validated(model: nn.Module, step: int, *, batch: Mapping[str, Tensor], vqgan: Tokens, preset: Preset) -> float:
    """Minus the cross-entropy on a fixed batch."""
    generator = torch.Generator(batch["words"].device).manual_seed(0)
    return -float(_sequence_loss(model, batch, generator, vqgan=vqgan, preset=preset)["codes"])


def _digest(tensors: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        found.update(name.encode() + value.contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def _disentangler(preset: Preset) -> Disentangler:
    return Disentangler(preset.audio_channels, preset.content, preset.emotion, len(EMOTIONS))


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _moved(batch: Mapping[str, Tensor], device: str) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in batch.items()}
