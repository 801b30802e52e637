"""Trains EAT-Face's emotion classifier on the train split of a prepared dataset: `bench train emotion-classifier`.

The paper gives the network and no more. What follows is ours: which frames, how they are changed, and the schedule;
AdamW and its weight decay are those that the paper states for its own networks. Frames are decoded once, reduced to
the classifier's size, and kept beside the checkpoints, so that memory is constant in the number and length of clips.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from benchmark import configs, engine, protocol, weights
from benchmark.errors import BenchError, writable, writing
from benchmark.views import FPS
from metrics.emotion import SPACES
from metrics.emotion_accuracy import rates
from metrics.networks import vgg16
from metrics.networks.running import full_precision
from metrics.networks.vgg16 import EIGHT
from pipelines import manifest, media
from pipelines.manifest import Clip
from pipelines.splits import SPLITS
from reference_models import fit

START = "lpips-vgg16"  # whose convolutions the classifier starts from
WEIGHT_DECAY = 1e-3  # EAT-Face, section IV-A
WARMUP = 50  # steps
EVERY = 200  # steps from one checkpoint, and one look at the val split, to the next
TURN, SCALE, SHIFT = 5.0, (0.95, 1.1), 0.04  # augmentation: degrees to either side, factor, share of the side,
CONTRAST, BRIGHTNESS = (0.8, 1.2), 20.0  # factor about mid-grey, levels of 255 to either side


@dataclass(frozen=True, slots=True)
class Settings:
    """How to train.

    labels           label space of metrics.emotion.SPACES whose emotions are the classes, where the data has them
    size             side of the frames in pixels
    frames_per_clip  spread evenly over each clip
    batch_size       frames a step, drawn so that every emotion is equally likely
    """

    steps: int = 2000
    batch_size: int = 32
    learning_rate: float = 1e-4
    labels: str = "mead"
    size: int = vgg16.SIZE
    frames_per_clip: int = 16
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Trained:
    """The classifier's file, its confusion on real test frames (8, 8) in the order of EIGHT, and what a person should
    be told."""

    path: Path
    confusion: NDArray[np.int64]
    remarks: list[str]

    def text(self) -> str:
        """The table of EAT-Face with the confusion matrix beside it, as lines to print."""
        lines = [*self.remarks, f"{self.path}, installed for emo-acc/vgg16"]
        of = rates(self.confusion)
        if of:
            words = [word for k, word in enumerate(EIGHT) if word in of or self.confusion[:, k].any()]
            lines += ["", f"{'real test frames':18}Emo-Acc.   of them classified as  {'  '.join(words)}"]
            for word, rate in of.items():
                counts = (self.confusion[EIGHT.index(word), EIGHT.index(other)] for other in words)
                cells = "  ".join(f"{count:>{len(other)}}" for other, count in zip(words, counts, strict=True))
                lines.append(f"{word:18}{100 * rate:7.2f}%{'':25}{cells}")
            lines.append(f"{'average':18}{100 * float(np.mean(list(of.values()))):7.2f}%")
        return "\n".join(lines)


def emotion_classifier(
    at: Path, workspace: Path, settings: Settings, *, device: str, workers: int, resume: bool = True
) -> Trained:
    """Train on the manifest at `at`, measure on its test split, and install the file for the metrics emo-acc.

    Checkpoints and frames lie in WORKSPACE/checkpoints/emotion-classifier/<folder of the manifest>; with `resume` an
    interrupted training goes on there. The step with the best macro accuracy on the val split is taken; the last one
    where there is no val split.

    Raises BenchError: no train split, fewer than two emotions, a clip that cannot be read, missing weights, a full
    disk; FitError as the training loop; ManifestError for the manifest.
    """
    clips, remarks = _chosen(at, settings.labels)
    classes = tuple(word for word in EIGHT if any(clip.emotion == word for clip in clips["train"]))
    start = weights.path(START, fetch=False)
    folder = workspace / "checkpoints" / "emotion-classifier" / at.resolve().parent.name
    writable(folder)
    frames = folder / f"frames-{settings.size}-{settings.frames_per_clip}"
    _decode([clip for split in SPLITS for clip in clips[split]], at.parent, frames, settings, workers)
    model = _start(start, len(classes), settings.seed)
    footage = sorted({digest for s in ("train", "val") for c in clips[s] for digest in (c.sha256, c.source_sha256)})
    about = {"start": weights.digest(START), "classes": classes, "footage": footage, **asdict(settings)}
    del about["steps"]  # more of them continue a training
    done = fit.fit(
        model,
        _loss,
        partial(_batch, [[_file(frames, c) for c in clips["train"] if c.emotion == w] for w in classes], settings),
        fit.Settings(
            steps=settings.steps,
            learning_rate=settings.learning_rate,
            weight_decay=WEIGHT_DECAY,
            warmup=WARMUP,
            clip_norm=1.0,
            seed=settings.seed,
            save_every=EVERY,
            validate_every=EVERY,
            keep=1,
        ),
        folder,
        validate=partial(_validate, clips["val"], frames, classes, device) if clips["val"] else None,
        device=device,
        about=configs.digest(about),
        resume=resume,
        title="emotion classifier",
    )
    model.load_state_dict(load_file(done.best or done.last))
    counts = _confusion(model.eval(), clips["test"], frames, classes, device)
    card = {
        "classes": classes,
        "size": settings.size,
        "trained_on": {
            "dataset": at.resolve().parent.name,
            "people": sorted({clip.identity for split in ("train", "val") for clip in clips[split]}),
            "footage": footage,
        },
        "start": f"{START}@{weights.digest(START)}",
        "settings": asdict(settings),
        "step": settings.steps if done.best is None else done.best_step,
        "real_test_frames": {"emotions": EIGHT, "confusion": counts.tolist()},
    }
    path = folder / f"{vgg16.NAME}.safetensors"
    state = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    with writing(folder):
        media.write_bytes(path, save(state, {"card": json.dumps(card)}))
    weights.add(vgg16.NAME, path)
    return Trained(path, counts, remarks)


def _chosen(at: Path, labels: str) -> tuple[dict[str, list[Clip]], list[str]]:
    """Clips of each split that can be used, and in words which ones cannot."""
    if labels not in SPACES:
        raise BenchError(f"labels {labels!r}; {configs.nearest(labels, sorted(SPACES))}")
    clips, words = manifest.read(at), set(SPACES[labels].values())
    usable = [clip for clip in clips if clip.emotion in words and not clip.still]
    trained = {clip.emotion for clip in usable if clip.split == "train"}
    if not any(clip.split == "train" for clip in clips):
        have = ", ".join(sorted({clip.split for clip in clips})) or "no clips"
        raise BenchError(f"{at}: has no train split ({have}); prepare the dataset with another --split")
    if len(trained) < 2:
        have = ", ".join(sorted({clip.emotion for clip in clips if clip.split == "train"}))
        raise BenchError(
            f"{at}: its train split has {len(trained)} of the emotions of {labels} ({have}); a classifier needs two"
        )
    chosen = {split: [c for c in usable if c.split == split and c.emotion in trained] for split in SPLITS}
    lost = Counter(clip.emotion for clip in clips) - Counter(c.emotion for split in chosen.values() for c in split)
    why = f"no emotion of {labels} that the train split has"
    remarks = [f"left out: {count} clips of {word}, {why}" for word, count in sorted(lost.items())]
    for split, effect in (("val", "the last step is taken"), ("test", "nothing says how good it is on real frames")):
        if not chosen[split]:
            remarks.append(f"no usable clip in the {split} split: {effect}")
    return chosen, remarks


# --- frames ------------------------------------------------------------------------------------------------------


def _file(folder: Path, clip: Clip) -> Path:
    return folder / f"{clip.sha256}.npy"


def _decode(clips: Sequence[Clip], data: Path, folder: Path, settings: Settings, workers: int) -> None:
    """Make sure that the frames of every clip lie in `folder`: (N, size, size, 3) uint8 RGB each, N at most
    frames_per_clip. Raises BenchError for a clip that cannot be read."""
    missing = [clip for clip in clips if not _file(folder, clip).exists()]
    job = partial(_decode_clip, data, folder, settings.size, settings.frames_per_clip)
    with tqdm(total=len(missing), desc="decode", unit="clip", disable=None) as bar:
        for outcome in engine.run(job, missing, workers=workers) if missing else ():
            if outcome.error is not None:
                reason = " ".join(str(outcome.error).split()) or type(outcome.error).__name__
                raise BenchError(f"{outcome.item.clip_id}: {reason}") from outcome.error
            bar.update()


def _decode_clip(data: Path, folder: Path, size: int, count: int, clip: Clip) -> None:
    """Runs in a worker. Raises MediaError, BenchError."""
    path = protocol.intact(data / clip.video, clip.sha256, clip.dataset)
    stretches = min(count, clip.num_frames)
    # The middles of equal stretches, as extractors are given frames (benchmark.views).
    wanted = set(np.floor((np.arange(stretches) + 0.5) * clip.num_frames / stretches).astype(int).tolist())
    kept = [vgg16.resize(frame, size) for k, frame in enumerate(media.read_frames(path, FPS)) if k in wanted]
    if len(kept) < stretches:
        raise media.MediaError("short", f"{clip.video}: ends before the {clip.num_frames} frames of the manifest")
    with writing(folder), media.atomic_path(_file(folder, clip)) as temporary:
        np.save(temporary, np.stack(kept), allow_pickle=False)


def _read(path: Path) -> NDArray[np.uint8]:
    try:
        frames: NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BenchError(f"{path}: missing or damaged; remove it, and the same command decodes it again") from error
    return frames


def _batch(files: Sequence[Sequence[Path]], settings: Settings, number: int) -> tuple[Tensor, Tensor]:
    """Frames (batch_size, size, size, 3) uint8 and classes (batch_size,), drawn by `number` alone: a class, one of its
    clips in `files`, one of the clip's frames."""
    rng = np.random.default_rng([settings.seed, number])
    classes = rng.integers(len(files), size=settings.batch_size).tolist()
    images = []
    for k in classes:
        frames = _read(files[k][int(rng.integers(len(files[k])))])
        images.append(augment(frames[rng.integers(len(frames))], rng))
    return torch.from_numpy(np.stack(images)), torch.tensor(classes)


def augment(frame: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A frame (s, s, 3) uint8 mirrored or not, a little turned, scaled, shifted, and of other light; its edge is
    repeated where the picture ends."""
    size = len(frame)
    turned = cv2.getRotationMatrix2D((size / 2, size / 2), rng.uniform(-TURN, TURN), rng.uniform(*SCALE))
    matrix = np.array(turned, np.float64)
    matrix[:, 2] += rng.uniform(-SHIFT * size, SHIFT * size, 2)
    source = frame[:, ::-1] if rng.random() < 0.5 else frame
    moved = cv2.warpAffine(np.ascontiguousarray(source), matrix, (size, size), borderMode=cv2.BORDER_REPLICATE)
    light = (moved - np.float32(127.5)) * rng.uniform(*CONTRAST) + 127.5 + rng.uniform(-BRIGHTNESS, BRIGHTNESS)
    lit: NDArray[np.uint8] = np.clip(np.rint(light), 0, 255).astype(np.uint8)
    return lit


# --- the classifier ----------------------------------------------------------------------------------------------


def _start(path: Path, classes: int, seed: int) -> nn.Module:
    """The convolutions of ImageNet under a head drawn from the seed."""
    torch.manual_seed(seed)
    model = vgg16.network(classes)
    state = load_file(path)
    model.load_state_dict(model.state_dict() | {name: state[name] for name in state if name.startswith("conv")})
    return model


def _loss(model: nn.Module, given: tuple[Tensor, Tensor], generator: torch.Generator) -> Mapping[str, Tensor]:
    images, classes = given
    return {"cross_entropy": functional.cross_entropy(model(vgg16.normalise(images)), classes)}


def _confusion(
    model: nn.Module, clips: Sequence[Clip], frames: Path, classes: Sequence[str], device: str
) -> NDArray[np.int64]:
    """(8, 8) counts of the clips' frames: row the clip's emotion, column the class, both in the order of EIGHT."""
    counts = np.zeros((len(EIGHT), len(EIGHT)), np.int64)
    columns = np.array([EIGHT.index(word) for word in classes])
    for clip in clips:
        images = torch.from_numpy(np.array(_read(_file(frames, clip)))).to(device)
        with full_precision(device):
            named = model(vgg16.normalise(images)).argmax(dim=1).cpu().numpy()
        np.add.at(counts, (EIGHT.index(clip.emotion), columns[named]), 1)
    return counts


def _validate(
    clips: Sequence[Clip], frames: Path, classes: Sequence[str], device: str, model: nn.Module, step: int
) -> float:
    """Frame-level macro accuracy (0 to 1)."""
    return float(np.mean(list(rates(_confusion(model, clips, frames, classes, device)).values())))
