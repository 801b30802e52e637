"""What the full emotion-anchor transformer costs: parameters, an optimiser step of each stage, a frame, and tokens a
second with and without the cache of keys and values. Pictures and sound are noise: cost does not depend on them.

    python -m benchmark.perf.emotion_anchor                 # everything, some minutes on a CPU
    python -m benchmark.perf.emotion_anchor --preset tiny
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmark import provenance, weights
from reference_models.emotion_anchor import losses
from reference_models.emotion_anchor.audio import Disentangler
from reference_models.emotion_anchor.perceptual import WEIGHTS, Lpips
from reference_models.emotion_anchor.presets import EMOTIONS, PRESETS, SPAN, Preset
from reference_models.emotion_anchor.transformer import Autoregressor, Conditions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="full")
    parser.add_argument("--frames", type=int, default=1, help="made at once")
    parser.add_argument("--without-cache", type=int, default=3, help="tokens to draw without the cache")
    chosen = parser.parse_args()
    preset = PRESETS[chosen.preset]
    torch.manual_seed(0)
    print(f"preset {preset.name}, {torch.get_num_threads()} threads")
    both = losses.Adversaries(preset)
    lpips = Lpips(weights.path(WEIGHTS, fetch=False)) if preset.perceptual else None
    step("vq", both, lambda: both(torch.randn(1, 3, preset.size, preset.size).clamp(-1, 1), 10**9, preset, lpips))
    sound = Disentangler(preset.audio_channels, preset.content, preset.emotion, len(EMOTIONS))
    windows = [torch.randn(16, 28, 12) for _ in range(4)]
    named = torch.zeros(16, dtype=torch.int64)
    two = (windows[0], windows[1]), (windows[2], windows[3])
    step("audio", sound, lambda: losses.disentangling(sound, *two, (named, named)))
    network = Autoregressor(preset, both.vqgan.codebook.entries)
    step("transformer", network, lambda: sequence(network, preset))
    vqgan = both.eval().vqgan
    network.eval()
    given = conditions(network, preset, chosen.frames)
    start = time.perf_counter()
    codes = network.sample(given)
    drawn = time.perf_counter() - start
    with torch.no_grad():
        vqgan.pictures(codes.reshape(-1, preset.side, preset.side))
    whole = time.perf_counter() - start
    print(f"{chosen.frames} frames: {whole:.1f} s, of which codes {drawn:.1f} s; {memory()}")
    print(f"cached: {codes.numel() / drawn:.2f} tokens/s")
    seconds = without_cache(network, given, codes, chosen.without_cache)
    rate = codes.numel() / seconds
    print(f"without cache: {rate:.2f} tokens/s; cached is {seconds / drawn:.1f} times as fast")


def step(name: str, network: nn.Module, terms: Callable[[], dict[str, Tensor]]) -> None:
    """One optimiser step."""
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    optimiser = torch.optim.Adam(network.parameters(), 1e-4)
    start = time.perf_counter()
    total = torch.stack(list(terms().values())).sum()
    total.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    seconds = time.perf_counter() - start
    print(f"{name}: {millions:.1f} M parameters, a step {seconds:.1f} s, loss {float(total.detach()):.3f}; {memory()}")
    optimiser.zero_grad()


def sequence(network: Autoregressor, preset: Preset) -> dict[str, Tensor]:
    given, generator = conditions(network, preset, 2), torch.Generator().manual_seed(0)
    codes = torch.randint(preset.codes, (2, preset.tokens), generator=generator)
    words, told = torch.zeros(2, dtype=torch.int64), torch.ones(1, dtype=torch.bool)
    return losses.sequence(network, given, codes, words, told, preset, generator, network.entries)


def conditions(network: Autoregressor, preset: Preset, frames: int) -> Conditions:
    source = network.entries[torch.randint(preset.codes, (frames, preset.tokens))]
    return Conditions(source, torch.randn(frames, SPAN, preset.content), torch.randn(frames, SPAN, preset.emotion))


@torch.no_grad()
def without_cache(network: Autoregressor, given: Conditions, codes: Tensor, count: int) -> float:
    """Seconds that all tokens would take, from `count` of them spread evenly: each costs a pass over all before it."""
    anchor = network.anchored(given)
    steer = network.steer(given, anchor)
    prefix = network.prefix(given, anchor, steer)
    start = time.perf_counter()
    for place in torch.linspace(0, codes.shape[1] - 1, count).long().tolist():
        x = torch.cat([prefix, network.inputs(codes[:, :place], steer, 0)], 1)
        mask = network.mask(x.shape[1])
        for block in network.blocks:
            x = block(x, mask, None, 0)
        network.logits(x[:, -1:], given.source[:, place : place + 1])
    return (time.perf_counter() - start) / count * codes.shape[1]


def memory() -> str:
    return f"peak {provenance.peaks()['ram_mib']} MiB"


if __name__ == "__main__":
    main()
