"""`bench train eat-face`: the stages of the paper in their order, through the suite's training loop.

  vae, speech, pair   only a preset with encoders of its own (tiny)
  tfr                 the reconstructor, eq. 5
  eve                 the adapters, eq. 10
  controlnet          the controller, with everything else frozen, eq. 11
  finetune            the U-Net (with F_a) and the controller together, eq. 11

An ablation leaves stages out and shares those before them with the whole method, whose folder lies beside its own.
Every finished stage is a file of its own, beside the folder of its checkpoints.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from reference_models.base import Footage
from reference_models.eat_face import data, losses, model, own
from reference_models.eat_face.networks import ABLATIONS as ABLATIONS
from reference_models.eat_face.networks import Ablation, Networks, fill, fresh, write
from reference_models.eat_face.presets import EMOTIONS, MODEL, preset_of, recorded
from reference_models.eat_face.presets import PRESETS as _PRESETS
from reference_models.eat_face.presets import WEIGHTS as WEIGHTS
from reference_models.eat_face.validation import Validation, denoise, joint_pairs
from reference_models.fit import Loss, Settings, fit
from reference_models.training import Task, Trained, TrainingError, load, mismatched, save

PRESETS = tuple(_PRESETS)
OWN = ("vae", "speech", "pair")
SAMPLING = ("guidance", "ddim_steps", "smooth")  # fields of a preset that change no weight
LATE = ("adapter", "alpha", "temperature")  # and those that no stage before "eve" sees
SAVE_EVERY = 500  # steps from one checkpoint to the next
STAGES = (*OWN, "tfr", "eve", "controlnet", "finetune")
SKIPPED: dict[str, tuple[str, ...]] = {
    "": (),
    "wo-eve": ("eve",),
    "wo-fec": ("eve", "controlnet"),
    "wo-emo": ("eve", "controlnet"),
}
# Of Networks, what a stage trains.
TRAINED: dict[str, tuple[str, ...]] = {
    "vae": ("codec",),
    "speech": ("speech",),
    "pair": ("pair",),
    "tfr": ("reconstructor",),
    "eve": ("joint",),
    "controlnet": ("controller",),
    "finetune": ("reconstructor", "controller"),
}


def train(task: Task) -> Trained:
    """See reference_models.training. Raises TrainingError, FitError, GenerationError and what reading clips raises."""
    return _Run(task).all()


class _Run:
    def __init__(self, task: Task) -> None:
        self._task = task
        self._preset = preset_of(task.preset, task.options)
        self._ablation: Ablation = task.ablation  # type: ignore[assignment]  # the command has checked it
        lacking = [name for name in WEIGHTS.get(task.preset, ())[:3] if name not in task.weights]
        if lacking:
            raise TrainingError(
                f"eat-face, preset {task.preset}, needs {', '.join(lacking)}: "
                f"`bench weights fetch {' '.join(lacking)}`, or `bench weights add`; --preset tiny runs without"
            )
        self._remarks: list[str] = []
        if task.preset == "full" and "sd15-unet" not in task.weights:
            self._remarks.append("sd15-unet is not here: the U-Net starts from random weights")
        self._clips: dict[str, list[Footage]] = {}
        for split in ("train", "val"):
            self._clips[split], told = data.usable(task.clips.get(split, ()))
            self._remarks += told
        if not self._clips["train"]:
            raise TrainingError(f"no clip of the train split shows one of EAT-Face's emotions: {', '.join(EMOTIONS)}")
        if self._clips["val"] and not any(clip.emotion == data.NEUTRAL for clip in self._clips["val"]):
            self._remarks.append("nothing is validated: the val split has no clip of emotion neutral")
        if self._preset.shuffle_conditions:
            self._clips["train"] = mismatched(self._clips["train"], task.seed)
            self._remarks.append("control: every training clip has the sound and the emotion of another")
        torch.manual_seed(task.seed)
        self._networks = fresh(self._preset, self._ablation, task.weights)
        self._items: dict[str, data.Draw] = {}

    def all(self) -> Trained:
        left_out = SKIPPED[self._ablation] + (() if self._preset.own_encoders else OWN)
        wanted = [stage for stage in self._task.stages if stage not in left_out]
        if not wanted:
            raise TrainingError(
                f"--stage {self._task.stages[0]}: preset {self._preset.name}"
                f"{f', ablation {self._ablation}' * bool(self._ablation)}, has no such stage"
            )
        path = self._task.folder
        for stage in (stage for stage in STAGES if stage not in left_out):
            if stage in wanted:
                path = self._stage(stage)
            elif STAGES.index(stage) < STAGES.index(wanted[-1]):
                self._load(stage)
        if wanted[-1] == STAGES[-1]:
            path = self._task.folder / f"{MODEL}.safetensors"
            write(path, self._networks)
        return Trained(path, self._remarks)

    # --- stages --------------------------------------------------------------------------------------------------

    def _stage(self, stage: str) -> Path:
        """Train it, and leave its weights in the networks and in a file."""
        task, networks, began = self._task, self._networks.frozen(self._task.device), time.perf_counter()
        if stage == "controlnet":  # it starts as a copy of the encoder that "tfr" has trained
            torch.manual_seed(task.seed)
            networks.controller = model.Controller(networks.reconstructor.unet, self._preset).to(task.device)
        trained = _Trained(self._parts(stage)).requires_grad_(True)
        batch, loss = self._work(stage)
        settings, folder, about = self._settings(stage), self._folder(stage), self._about(stage)
        done = fit(
            trained, loss, batch, settings, folder,
            validate=self._validation(stage), device=task.device, about=about, title=stage,
            resume=task.resume or folder.parent != task.folder,  # an ablation never undoes the whole method's stages
        )  # fmt: skip
        trained.load_state_dict(load_file(done.last))
        if stage == "vae":
            own.set_scale(networks.codec, batch(0)[0].to(task.device))
        networks.frozen(task.device)
        path = self._file(stage)
        config = {"model": MODEL, "preset": self._preset.name, "stage": stage, "about": about}
        save(path, trained.state_dict(), config)
        line = json.loads((folder / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
        shown = ", ".join(
            f"{name} {value:.4g}" for name, value in line.items() if name not in ("step", "lr", "gradient")
        )
        self._remarks.append(f"{stage}: {settings.steps} steps, {shown}, {time.perf_counter() - began:.0f} s")
        return path

    def _validation(self, stage: str) -> Validation | None:
        if stage in OWN or not any(clip.emotion == data.NEUTRAL for clip in self._clips["val"]):
            return None
        schedule = model.scheduler(self._preset)
        return Validation(stage, self._networks, self._draw("val"), self._folder(stage), schedule, self._task.device)

    def _settings(self, stage: str) -> Settings:
        task, preset, asked = self._task, self._preset, self._preset.stages[stage]
        return Settings(
            steps=task.steps or asked.steps,
            learning_rate=asked.rate,
            weight_decay=preset.weight_decay,
            warmup=preset.warmup,
            clip_norm=1.0,
            ema=preset.ema,
            precision=task.precision,  # type: ignore[arg-type]  # the command's choices
            seed=task.seed + STAGES.index(stage),
            log_every=10,
            save_every=SAVE_EVERY,
            validate_every=preset.validate_every,
        )

    def _work(self, stage: str) -> tuple[Callable[[int], Any], Loss]:
        """(batch, loss) of the stage."""
        task, preset, networks = self._task, self._preset, self._networks
        size, clips = preset.stages[stage].batch, self._clips["train"]
        if stage == "vae":
            shown = own.Shown(clips, preset, task.cache, size, task.seed)
            networks.codec.begin(torch.cat([shown(n)[0] for n in range(own.EXAMPLES)]).to(task.device))
            return shown, _own(networks.codec, own.vae_loss)
        if stage == "speech":
            return own.Heard(clips, preset, size, task.seed), _own(self._parts(stage)[stage], own.speech_loss)
        if stage == "pair":
            shown = own.Shown(clips, preset, task.cache, size, task.seed)
            return shown, _own(self._parts(stage)[stage], own.pair_loss)
        draw = self._draw("train")
        if stage == "eve":
            return partial(draw.distinct, size=size), _align(networks)
        make = draw.reconstruction if stage == "tfr" else draw.emotion
        return partial(make, size=size), _denoise(networks, stage, model.scheduler(preset))

    def _parts(self, stage: str) -> dict[str, nn.Module]:
        """What the stage trains, by name."""
        return {name: part for name, part in self._networks.parts().items() if name in TRAINED[stage]}

    def _draw(self, split: str) -> data.Draw:
        """Items of the split, made once its encoders are trained."""
        if split not in self._items:
            networks, task = self._networks, self._task
            parts = (networks.codec, networks.speech, networks.pair)
            ids = [_digest(part) for part in parts]  # type: ignore[arg-type]
            copies = range(self._preset.copies if split == "train" else 1)
            items = [
                data.prepare(clip, copy, parts, ids, self._preset, task.cache)
                for clip in self._clips[split]
                for copy in copies
            ]
            draw = self._items[split] = data.Draw(items, task.seed)
            if lost := len(items) - len(draw.items):
                self._remarks.append(f"{lost} of {len(items)} items of split {split} left out: nobody neutral to them")
        return self._items[split]

    # --- files ---------------------------------------------------------------------------------------------------

    def _folder(self, stage: str) -> Path:
        """An ablation's stages before it differs are those of the whole method."""
        folder = self._task.folder
        if self._ablation and stage in (*OWN, "tfr"):
            folder = folder.with_name(folder.name.replace(f"-{self._ablation}", "", 1))
        return folder / stage

    def _file(self, stage: str) -> Path:
        return self._folder(stage).with_suffix(".safetensors")

    def _load(self, stage: str) -> None:
        path = self._file(stage)
        if not path.is_file():
            raise TrainingError(f"{path}: missing; stage {stage} comes first: --stage {stage}, or --stage all")
        tensors, config = load(path, MODEL, self._preset.name)
        if config.get("about") != self._about(stage):
            whole = ", without --ablation" if path.parent != self._task.folder else ""
            raise TrainingError(
                f"{path}: was trained with other options, other clips or after other stages; train it anew: "
                f"--stage {stage} --fresh{whole}"
            )
        fill(path, self._parts(stage), tensors)
        self._networks.frozen(self._task.device)

    def _about(self, stage: str) -> str:
        """What a resumed run must agree in beside fit's settings."""
        preset = recorded(self._preset)
        early = STAGES.index(stage) < STAGES.index("eve")
        for name in ("stages", *SAMPLING, *(LATE if early else ())):
            del preset[name]
        keys = [f"{clip.key} {clip.emotion} {clip.identity}" for clip in self._clips["train"]]
        before = [
            hashlib.sha256(self._file(one).read_bytes()).hexdigest()
            for one in STAGES[: STAGES.index(stage)]
            if one not in SKIPPED[self._ablation] and self._file(one).is_file()
        ]
        ablation = self._ablation if self._folder(stage).parent == self._task.folder else ""
        made = json.dumps([MODEL, stage, ablation, preset, self._preset.stages[stage].batch, keys, before])
        return hashlib.sha256(made.encode()).hexdigest()


class _Trained(nn.ModuleDict):
    """The parts that a stage trains. The loss is computed inside its forward, so that a wrapper for several GPUs sees
    the pass."""

    def forward(self, work: Callable[[], Tensor | dict[str, Tensor]]) -> Any:
        return work()


def _denoise(networks: Networks, stage: str, schedule: Any) -> Loss:
    def loss(trained: nn.Module, batch: Any, generator: torch.Generator) -> Any:
        return {"denoising": trained(lambda: denoise(networks, stage, schedule, batch, generator))}

    return loss


def _align(networks: Networks) -> Loss:
    def loss(trained: nn.Module, batch: Any, generator: torch.Generator) -> Any:
        def work() -> Tensor:
            return losses.contrastive(*joint_pairs(networks, batch), networks.preset.temperature)

        return {"contrastive": trained(work)}

    return loss


def _own(part: nn.Module, of: Callable[..., dict[str, Tensor]]) -> Loss:
    def loss(trained: nn.Module, batch: Any, generator: torch.Generator) -> Any:
        return trained(lambda: of(part, batch, generator))

    return loss


def _digest(part: nn.Module) -> str:
    found = hashlib.sha256()
    for name, value in sorted(part.state_dict().items()):
        found.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]
