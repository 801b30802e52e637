"""How fast is DICE-Talk? Random weights: the time does not depend on them.

tiny     seconds of an optimiser step, and of a sampled second of video
full     one sampled window of two frames at 64 px, or with --train one optimiser step: seconds and peak memory.
         --bf16 holds weights, gradients and both of Adam's means in bfloat16: 8 bytes for each of the 1.757 G
         parameters, 14 GB instead of 28. It is no way to train: steps of 1e-5 move small weights only, the others are
         rounded back. fit.py's weights stay float32
gpu      5 s and 10 s of audio at 512 px, fp16: three guidance passes one after the other, eager, as published; then
         one pass of three, channels-last convolutions, compiled blocks, each added to the ones before

Audio and emotion tokens are made once a window in every row; emotion tokens of the last prior are kept.

    python -m benchmark.perf.dice_talk tiny
    python -m benchmark.perf.dice_talk full [--pixels 64] [--frames 2] [--steps 1] [--train [--bf16]]
    python -m benchmark.perf.dice_talk gpu [--steps 25]
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reference_models.dice_talk import losses, sampling
from reference_models.dice_talk.checkpoints import WHISPER_SIZE
from reference_models.dice_talk.data import Batch
from reference_models.dice_talk.model import HEARD, DiceTalk, Given
from reference_models.dice_talk.presets import PRESETS, Preset
from reference_models.dice_talk.sampling import Sampler, Track


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["tiny", "full", "gpu"])
    parser.add_argument("--pixels", type=int, default=64)
    parser.add_argument("--frames", type=int, default=2, help="of a window")
    parser.add_argument("--steps", type=int, help="of sampling")
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--bf16", action="store_true")
    asked = parser.parse_args()
    torch.manual_seed(0)
    {"tiny": tiny, "full": full, "gpu": gpu}[asked.what](asked)


def tiny(asked: argparse.Namespace) -> None:
    preset, speech = PRESETS["tiny"], (1, 160)
    model = DiceTalk(preset, 160)
    steps = asked.steps or preset.denoising_steps
    step = stepper(model, preset, speech)
    step()
    shown("tiny, an optimiser step", lambda: [step() for _ in range(5)], 5)
    sampler = Sampler(model, preset)
    shown(f"tiny, a second of video, {steps} steps", lambda: sampler.latents(track(preset, 13, speech), 0, steps=steps))


def full(asked: argparse.Namespace) -> None:
    preset = replace(PRESETS["full"], pixels=asked.pixels, window=asked.frames)
    began = time.perf_counter()
    torch.set_default_dtype(torch.bfloat16 if asked.bf16 else torch.float32)
    model = DiceTalk(preset, WHISPER_SIZE)
    torch.set_default_dtype(torch.float32)
    count = sum(parameter.numel() for parameter in model.parameters())
    print(
        f"{count / 1e6:.1f} M parameters, made in {time.perf_counter() - began:.1f} s, peak {peak():.1f} GiB",
        flush=True,
    )
    size = f"{asked.frames} frames at {asked.pixels} px"
    if asked.train:
        kind = "bfloat16" if asked.bf16 else "float32"
        with torch.autocast("cpu", torch.bfloat16, enabled=asked.bf16):
            shown(f"full, an optimiser step in {kind}, {size}", stepper(model, preset, (5, 384)))
        return
    sampler, steps = Sampler(model, preset), asked.steps or 1
    given = track(preset, asked.frames, (5, 384))
    frames = np.arange(asked.frames)
    noise = np.random.default_rng(0).standard_normal((asked.frames, *given.image.shape)).astype(np.float32)

    @torch.inference_mode()
    def window() -> None:
        for sigma in sampling.sigmas(preset, steps)[:-1]:
            sampler._window(given, noise, frames, sigma, preset.guidance)

    shown(f"full, a window of {size}, {steps} steps, guidance in one pass", window)


def gpu(asked: argparse.Namespace) -> None:
    preset, device = PRESETS["full"], "cuda"
    steps = asked.steps or preset.denoising_steps
    model = DiceTalk(preset, WHISPER_SIZE).to(device, torch.float16)

    def run(title: str, denoise: sampling.Denoise) -> None:
        sampler = Sampler(model, preset, device=device, dtype=torch.float16, denoise=denoise)
        sampler.latents(track(preset, 1, (5, 384)), 0, steps=1)  # warm
        for seconds in (5, 10):
            torch.cuda.reset_peak_memory_stats()
            given = track(preset, seconds * 25 // 2 + 1, (5, 384))
            shown(f"{title}, {seconds} s of audio", lambda given=given: sampler.latents(given, 0, steps=steps))  # type: ignore[misc]
            print(f"  {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB on the GPU")

    run("three passes", three_passes)
    run("one pass of three", sampling.guided)
    model.unet.to(memory_format=torch.channels_last)
    run("+ channels-last", sampling.guided)
    for block in (*model.unet.down_blocks, model.unet.mid_block, *model.unet.up_blocks):
        block.compile()
    run("+ compiled blocks", sampling.guided)


def three_passes(model: DiceTalk, scaled: Tensor, sigma: Tensor, given: Given, guidance: tuple[float, float]) -> Tensor:
    """sampling.guided(), a condition after the other."""
    parts = [
        Given(*(getattr(given, name)[k : k + 1] for name in ("image", "seen", "audio", "emotion", "mask")))
        for k in range(3)
    ]
    nothing, image, everything = (model.denoise(scaled, sigma, part).float() for part in parts)
    return nothing + guidance[0] * (image - nothing) + guidance[1] * (everything - image)


def stepper(model: DiceTalk, preset: Preset, speech: tuple[int, int]) -> Callable[[], Any]:
    """An optimiser step on random data."""
    optimiser = torch.optim.Adam(model.parameters(), lr=preset.learning_rate)
    clips, side = preset.batch, preset.pixels // preset.factor
    batch = Batch(
        torch.randn(clips, preset.window, preset.latents, side, side),
        torch.randn(clips, preset.latents, side, side),
        torch.randn(clips, preset.cross),
        torch.randn(clips, preset.window, HEARD, *speech),
        torch.randn(clips, preset.prior),
        torch.rand(clips, preset.prior),
        torch.ones(clips, 3, preset.pixels, preset.pixels),
        torch.zeros(clips, dtype=torch.int64),
        torch.zeros(clips, 3, dtype=torch.bool),
    )
    generator = torch.Generator().manual_seed(0)

    watched = next(model.unet.conv_in.parameters())

    def step() -> None:
        before = watched.detach().clone()
        model.train()
        terms = losses.objective(model, batch, generator, preset)
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        optimiser.zero_grad()
        assert not torch.equal(watched, before), "it learned"

    return step


def track(preset: Preset, frames: int, speech: tuple[int, int]) -> Track:
    """Random conditions, the same for the same sizes."""
    rng = np.random.default_rng(0)
    side = preset.pixels // preset.factor
    prior = rng.standard_normal((1, preset.prior)).astype(np.float32)
    heard = rng.standard_normal((frames, HEARD, *speech)).astype(np.float32)
    return Track(
        frames=frames,
        image=rng.standard_normal((preset.latents, side, side)).astype(np.float32),
        seen=rng.standard_normal(preset.cross).astype(np.float32),
        mask=np.ones((preset.pixels, preset.pixels), bool),
        heard=lambda numbers: heard[numbers],
        felt=lambda numbers: prior.repeat(len(numbers), 0),
    )


def shown(title: str, run: Callable[[], Any], times: int = 1) -> None:
    clock, cores = time.perf_counter(), time.process_time()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    clock, cores = time.perf_counter() - clock, time.process_time() - cores
    print(f"{title}: {clock / times:.2f} s, {cores / times:.2f} core s, peak {peak():.1f} GiB", flush=True)


def peak() -> float:
    """GiB of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
