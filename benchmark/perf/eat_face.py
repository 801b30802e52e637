"""How fast is EAT-Face? Random weights: the time does not depend on them.

tiny     frames a second of sampling, all frames of a chunk at once against one by one
full     one optimiser step of a stage, and one batch sampled at 256 px, with seconds and peak memory
gpu      125 frames at 256 px: in batches in bf16, against one frame at a time in float32

    python -m benchmark.perf.eat_face tiny [--frames 32] [--steps 10]
    python -m benchmark.perf.eat_face full [--stage tfr|controlnet] [--batch 1] [--steps 2]
    python -m benchmark.perf.eat_face gpu [--frames 125] [--steps 100] [--batch 25]
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from reference_models.eat_face import losses, model
from reference_models.eat_face.presets import FULL, TINY, Preset
from reference_models.eat_face.sample import ddim


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["tiny", "full", "gpu"])
    parser.add_argument("--stage", choices=["tfr", "controlnet"], default="tfr")
    parser.add_argument("--frames", type=int)
    parser.add_argument("--steps", type=int, help="of DDIM")
    parser.add_argument("--batch", type=int)
    asked = parser.parse_args()
    torch.manual_seed(0)
    {"tiny": tiny, "full": full, "gpu": gpu}[asked.what](asked)


def tiny(asked: argparse.Namespace) -> None:
    frames, steps = asked.frames or 32, asked.steps or TINY.ddim_steps
    sampler = Sampler(TINY, "cpu")
    sampler(2, 1)
    together = timed(lambda: sampler(frames, steps))
    alone = timed(lambda: [sampler(1, steps) for _ in range(frames)])
    print(f"tiny, {frames} frames, {steps} steps, {torch.get_num_threads()} threads")
    print(f"  together    {frames / together[0]:7.1f} frames/s, {together[1]:.1f} core s")
    print(f"  one by one  {frames / alone[0]:7.1f} frames/s, {alone[1]:.1f} core s")
    print(f"  ratio       {alone[0] / together[0]:.2f}, of core seconds {alone[1] / together[1]:.2f}")


def full(asked: argparse.Namespace) -> None:
    batch, steps = asked.batch or 1, asked.steps or 2
    trained, step = training_step(asked.stage, batch)
    count = sum(one.numel() for one in trained.parameters() if one.requires_grad)
    first, second = timed(step), timed(step)
    print(
        f"full, {asked.stage}, batch {batch}, {count / 1e6:.1f} M trained parameters, {torch.get_num_threads()} threads"
    )
    print(f"  optimiser step  {first[0]:.1f} s, then {second[0]:.1f} s ({second[1]:.1f} core s); peak {peak():.1f} GiB")
    del trained, step
    sampler = Sampler(FULL, "cpu")
    seconds, cores = timed(lambda: sampler(batch, steps))
    print(f"  {batch} frames, {steps} DDIM steps, decoded: {seconds:.1f} s ({cores:.1f} core s); peak {peak():.1f} GiB")


def gpu(asked: argparse.Namespace) -> None:
    frames, steps, batch = asked.frames or 125, asked.steps or FULL.ddim_steps, asked.batch or 25
    sampler = Sampler(FULL, "cuda")
    for name, size, kind in (("bf16, batches", batch, torch.bfloat16), ("float32, one by one", 1, None)):
        sampler(size, 2, kind)
        torch.cuda.reset_peak_memory_stats()
        seconds, _ = timed(lambda size=size, kind=kind: [sampler(size, steps, kind) for _ in range(-(-frames // size))])  # type: ignore[misc]
        print(f"{name} of {size}: {frames} frames, {steps} steps: {seconds:.1f} s, {gpu_peak():.1f} GiB")


class Sampler:
    """DDIM and decoding of random conditions."""

    def __init__(self, preset: Preset, device: str) -> None:
        with torch.device(device):
            self.preset, self.codec = preset, model.Codec(preset)
            self.reconstructor = model.Reconstructor(preset)
            self.controller = model.Controller(self.reconstructor.unet, preset)
        self.device = device
        for part in (self.codec, self.reconstructor, self.controller):
            part.to(device).eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, frames: int, steps: int, kind: torch.dtype | None = None) -> Tensor:
        z, z_m, z_r, c_e, speech = conditions(self.preset, frames, self.device)
        with torch.autocast(self.device, kind) if kind else nullcontext():
            # It has of Networks what ddim needs.
            return self.codec.decode(ddim(self, z, z_m, z_r, speech, None, c_e, steps))  # type: ignore[arg-type]


def conditions(preset: Preset, count: int, device: str) -> tuple[Tensor, ...]:
    """z_t, z_m, z_r, c_e and speech windows."""
    side, channels = preset.latent_side, preset.latent_channels
    maps = [torch.randn(count, channels, side, side, device=device) for _ in range(4)]
    return (*maps, torch.randn(count, 3, preset.speech_width, device=device))


def training_step(stage: str, batch: int) -> tuple[torch.nn.Module, Callable[[], None]]:
    """The part that is trained, and a function that makes one step of AdamW."""
    reconstructor = model.Reconstructor(FULL)
    controller = model.Controller(reconstructor.unet, FULL) if stage == "controlnet" else None
    trained: torch.nn.Module = reconstructor if controller is None else controller
    if controller is not None:
        reconstructor.requires_grad_(False)
    optimiser = torch.optim.AdamW(trained.parameters(), 1e-5, weight_decay=FULL.weight_decay)
    schedule, generator = model.scheduler(FULL), torch.Generator().manual_seed(0)
    z, z_m, z_r, c_e, speech = conditions(replace(FULL), batch, "cpu")

    def step() -> None:
        optimiser.zero_grad()
        control: Any = (controller, c_e) if controller is not None else None
        context = reconstructor.context(speech)
        losses.denoising(reconstructor, schedule, (z, z_m, z_r), context, generator, control).backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return trained, step


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Seconds by the clock, and of all cores."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start, cores = time.perf_counter(), time.process_time()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start, time.process_time() - cores


def peak() -> float:
    """GiB of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def gpu_peak() -> float:
    return torch.cuda.max_memory_allocated() / 2**30


if __name__ == "__main__":
    main()
