"""The emotion-anchor transformer's parts, each against a plain reading."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache, partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import scipy.spatial.distance
import scipy.stats
import torch
from dtw import dtw
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch.nn import functional as F

from metrics.base import Weights
from metrics.networks.lpips import Lpips as Measured
from reference_models.base import GenerationError
from reference_models.emotion_anchor import audio, data, face, losses
from reference_models.emotion_anchor.anchor import EmotionAnchor
from reference_models.emotion_anchor.audio import Disentangler
from reference_models.emotion_anchor.perceptual import Lpips
from reference_models.emotion_anchor.presets import FULL, SPAN, TINY, preset_of, recorded, restored
from reference_models.emotion_anchor.transformer import Autoregressor, Conditions
from reference_models.emotion_anchor.vqgan import VQGAN, Codebook, Discriminator, SquareTokens
from reference_models.training import TrainingError

SMALL = preset_of("tiny", {"size": 32, "channels": (16, 16), "codes": 24, "code_width": 8, "layers": 2, "width": 16,
                           "heads": 2, "content": 6, "emotion": 5, "adversarial": 0.8, "adversarial_from": 1,
                           "discriminator": (8, 1)})  # fmt: skip


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# Sound


def plain_mfcc(sound: np.ndarray) -> np.ndarray:
    """c1 to c12, one frame after the other, every sum written out."""
    x = sound.astype(np.float64) * 32768
    x = np.concatenate([x[:1], x[1:] - 0.97 * x[:-1]])
    count = 1 + max(0, math.ceil((len(x) - 400) / 160))
    x = np.concatenate([x, np.zeros(count * 160 + 400)])
    mel = lambda f: 2595 * math.log10(1 + f / 700)  # noqa: E731
    hertz = [700 * (10 ** (mel(8000) * k / 27 / 2595) - 1) for k in range(28)]
    edges = [math.floor(513 * f / 16000) for f in hertz]
    out = []
    for frame in range(count):
        piece = x[160 * frame : 160 * frame + 400]
        waves = np.exp(-2j * np.pi * np.outer(np.arange(257), np.arange(400)) / 512)
        power = np.abs(waves @ piece) ** 2 / 512
        logs = []
        for a, b, c in zip(edges, edges[1:], edges[2:], strict=False):
            rising = sum(power[k] * (k - a) / (b - a) for k in range(a, b))
            falling = sum(power[k] * (c - k) / (c - b) for k in range(b, c))
            logs.append(math.log(max(rising + falling, 2.0**-52)))
        row = []
        for n in range(1, 13):
            dct = math.sqrt(2 / 26) * sum(v * math.cos(math.pi * n * (k + 0.5) / 26) for k, v in enumerate(logs))
            row.append(dct * (1 + 11 * math.sin(math.pi * n / 22)))
        out.append(row)
    return np.array(out)


@pytest.mark.parametrize("samples", [1, 399, 400, 401, 1500])
def test_mfcc_against_its_sums(samples: int) -> None:
    sound = np.random.default_rng(0).normal(0, 0.1, samples).astype(np.float32)
    assert audio.mfcc(sound) == pytest.approx(plain_mfcc(sound), abs=1e-3)


def test_silence_is_zero_and_every_frame_has_a_window_with_itself_in_the_middle() -> None:
    assert np.abs(audio.mfcc(np.zeros(3000, np.float32))).max() < 1e-9
    sound = np.zeros(16_000, np.float32)
    sound[10 * 640 + 320] = 1.0  # a click in the middle of frame 10
    found = audio.windows(audio.coefficients(sound, 25))
    assert found.shape == (25, 28, 12)
    hit = np.flatnonzero(np.abs(found[10]).sum(1))
    assert hit.mean() == pytest.approx(13.5, abs=1)
    assert audio.windows(audio.coefficients(sound[:1600], 25)).shape == (25, 28, 12)  # 0.1 s, then silence
    long = audio.windows(audio.coefficients(np.tile(sound, 2), 25))
    assert (long[:22] == found[:22]).all()  # what is after the last frame's window plays no part


short = st.lists(st.integers(0, 5), min_size=1, max_size=5)


@given(short, short)
def test_alignment_is_the_cheapest_of_all_paths(a: list[int], b: list[int]) -> None:
    @cache
    def cheapest(i: int, j: int) -> int:
        here = abs(a[i] - b[j])
        before = [(i - 1, j), (i, j - 1), (i - 1, j - 1)]
        return here + min((cheapest(*p) for p in before if min(p) >= 0), default=0)

    path = audio.aligned(np.array(a)[:, None], np.array(b)[:, None])
    assert (path[0], path[-1]) == ((0, 0), (len(a) - 1, len(b) - 1))
    assert {(k - i, m - j) for (i, j), (k, m) in pairwise(path)} <= {(1, 1), (1, 0), (0, 1)}
    assert sum(abs(a[i] - b[j]) for i, j in path) == cheapest(len(a) - 1, len(b) - 1)


def test_alignment_costs_what_dtw_python_says() -> None:
    a, b = noise(30, 12, seed=1).numpy(), noise(41, 12, seed=2).numpy()
    cost = scipy.spatial.distance.cdist(a, b, "cityblock")
    total = dtw(cost, step_pattern="symmetric1", distance_only=True).distance
    assert sum(cost[pair] for pair in audio.aligned(a, b)) == pytest.approx(total, rel=1e-9)


def test_alignment_undoes_a_change_of_speed() -> None:
    slow = np.repeat(np.arange(20), 3)
    path = audio.aligned(np.arange(20)[:, None], slow[:, None])
    assert [i for i, _ in path] == slow.tolist()


def test_disentangling_terms_against_numpy() -> None:
    torch.manual_seed(0)
    network = Disentangler(4, 6, 5, 8).eval()
    same, other = (
        (noise(3, 28, 12, seed=1), noise(3, 28, 12, seed=2)),
        (noise(3, 28, 12, seed=3), noise(3, 28, 12, seed=4)),
    )
    emotions = torch.tensor([0, 1, 2]), torch.tensor([3, 4, 5])
    found = losses.disentangling(network, same, other, emotions)
    c, e = ([part(x).detach() for x in (*same, *other)] for part in (network.content, network.emotion))
    apart = lambda a, b: np.abs(a.detach().numpy() - b.numpy()).mean()  # noqa: E731
    cross = apart(network.rebuild(c[0], e[3]), same[1]) + apart(network.rebuild(c[1], e[2]), same[0])
    own = apart(network.rebuild(c[0], e[0]), same[0]) + apart(network.rebuild(c[1], e[1]), same[1])
    shares = [network.classifier(e[k]).softmax(1).detach().numpy() for k in (0, 1)]
    named = sum(-np.log(shares[k][range(3), emotions[k]]).mean() for k in (0, 1))
    wanted = {"cross": cross, "self": own, "classification": named, "content": apart(c[0], c[1])}
    assert {name: term.item() for name, term in found.items()} == pytest.approx(wanted, rel=1e-5)


class Oracle:
    """Takes windows apart whose first coefficients are content, the same in every emotion, and whose last are emotion,
    the same at all times."""

    def __call__(self, windows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return windows[:, :, :6].flatten(1), windows[:, 0, 6:]

    def rebuild(self, content: torch.Tensor, emotion: torch.Tensor) -> torch.Tensor:
        return torch.cat([content.unflatten(1, (28, 6)), emotion[:, None].expand(-1, 28, -1)], 2)

    def classifier(self, emotion: torch.Tensor) -> torch.Tensor:
        return 1e3 * emotion @ EMOTIONAL.T  # orthonormal


EMOTIONAL = torch.eye(6)


def test_cross_reconstruction_of_constructed_pairs() -> None:
    """Nothing is left where content and emotion are known; much is, where a window of the wrong emotion comes in."""
    content = noise(2, 4, 28, 6)
    m, n = torch.tensor([0, 1, 2, 3]), torch.tensor([4, 5, 0, 1])
    window = lambda k, emotion: Oracle().rebuild(content[k].flatten(1), EMOTIONAL[emotion])  # noqa: E731
    same, other = (window(0, m), window(0, n)), (window(1, m), window(1, n))
    terms = losses.disentangling(Oracle(), same, other, (m, n))  # type: ignore[arg-type]
    assert {name: round(term.item(), 6) for name, term in terms.items()} == dict.fromkeys(terms, 0)
    crossed = losses.disentangling(Oracle(), same, other[::-1], (m, n))  # type: ignore[arg-type]
    assert crossed["cross"].item() == pytest.approx(2 * 2 / 12)  # two of twelve coefficients are off by 1, both ways
    assert crossed["self"].item() == 0
    unlike = losses.disentangling(Oracle(), (same[0], other[1]), other, (m, n))  # type: ignore[arg-type]
    assert unlike["content"].item() > 0.5


def test_spans_and_neighbours() -> None:
    rows = torch.arange(5.0)[:, None]
    assert audio.around(rows, 3)[..., 0].tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 4]]
    assert audio.spans(torch.arange(6.0)[:, None], 3)[:, 0].tolist() == [0.5, 2.5, 4.5]
    assert audio.spans(torch.ones(1, 1), SPAN).shape == (SPAN, 1)  # a sound of one frame


# Visual tokens


def test_codebook_gradients() -> None:
    """Straight through to what was quantised; the entries feel only ‖sg[z] - e‖², the encoder only ‖z - sg[e]‖²."""
    book = Codebook(5, 3).eval()
    z = noise(2, 3, 2, 2).requires_grad_()
    found = book(z)
    flat = z.detach().permute(0, 2, 3, 1).reshape(-1, 3).numpy()
    entries = book.entries.detach().numpy()
    nearest = ((flat[:, None] - entries[None]) ** 2).sum(2).argmin(1)
    assert found.indices.flatten().tolist() == nearest.tolist()
    chosen = entries[nearest]
    assert found.codes.detach().permute(0, 2, 3, 1).reshape(-1, 3).numpy() == pytest.approx(chosen, abs=1e-6)
    into = noise(2, 3, 2, 2, seed=5)
    assert (
        torch.autograd.grad((found.codes * into).sum(), [z, book.entries], retain_graph=True, allow_unused=True)[1]
        is None
    )
    assert torch.equal(torch.autograd.grad((found.codes * into).sum(), z, retain_graph=True)[0], into)
    pull = torch.autograd.grad(found.codebook, [z, book.entries], retain_graph=True, allow_unused=True)
    wanted = np.zeros_like(entries)
    np.add.at(wanted, nearest, 2 * (chosen - flat) / flat.size)
    assert pull[0] is None
    assert pull[1].numpy() == pytest.approx(wanted, abs=1e-6)
    push = torch.autograd.grad(found.commit, [z, book.entries], allow_unused=True)
    assert push[1] is None
    assert push[0].permute(0, 2, 3, 1).reshape(-1, 3).numpy() == pytest.approx(
        2 * (flat - chosen) / flat.size, abs=1e-6
    )


def test_entries_that_nobody_uses_come_back() -> None:
    torch.manual_seed(0)
    book = Codebook(16, 2)
    with torch.no_grad():
        book.entries.copy_(100 + noise(16, 2))  # far from everything
    z = noise(8, 2, 4, 4)
    for _ in range(3):
        found = book(z)
    assert losses.usage(found.indices, 16)["used"] > 0.8
    kept = book.entries.detach().clone()
    book.eval()(z)
    assert torch.equal(book.entries, kept)


def test_usage_counts_codes() -> None:
    assert losses.usage(torch.tensor([0, 0, 1, 1]), 4) == pytest.approx({"used": 0.5, "perplexity": 2.0})


def test_a_discriminator_that_waits_has_a_gradient_of_zero() -> None:
    """Processes that train together wait for every parameter's."""
    torch.manual_seed(0)
    both = losses.Adversaries(replace(SMALL, square=0, adversarial_from=5))
    terms = both(noise(2, 3, 32, 32).clamp(-1, 1), 4, replace(SMALL, square=0, adversarial_from=5))
    torch.stack(list(terms.values())).sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in both.discriminator.parameters())


def test_one_optimiser_gives_both_sides_their_own_gradient() -> None:
    torch.manual_seed(0)
    both = losses.Adversaries(SMALL)
    torch.nn.init.normal_(both.vqgan.last, std=0.1)
    real = noise(2, 3, 32, 32).clamp(-1, 1)
    assert float(both(real, 0, SMALL)["discriminator"]) == 0  # before its time
    state = {key: value.clone() for key, value in both.state_dict().items()}
    torch.manual_seed(1)
    terms = both(real, 1, SMALL)
    torch.stack(list(terms.values())).sum().backward()
    together = {name: parameter.grad.clone() for name, parameter in both.named_parameters()}
    both.load_state_dict(state)
    both.zero_grad()
    torch.manual_seed(1)
    made, found = both.vqgan(real)
    face_first = data.features(32, real.device)
    rebuilt = (face_first * (made - real).abs()).mean()
    rebuilt = rebuilt + (face_first[1:, 1:] * (losses._edges(made) - losses._edges(real)).abs()).mean()
    doubt = -both.discriminator(made).mean()
    last = both.vqgan.last
    ratio = [torch.autograd.grad(term, last, retain_graph=True)[0].norm() for term in (rebuilt, doubt)]
    weight = 0.8 * (ratio[0] / (ratio[1] + 1e-4)).item()
    assert terms["adversarial"].item() == pytest.approx(weight * doubt.item(), rel=1e-4)
    (rebuilt + weight * doubt + found.codebook + 0.25 * found.commit).backward()
    for name, parameter in both.vqgan.named_parameters():
        assert together[f"vqgan.{name}"].numpy() == pytest.approx(parameter.grad.numpy(), rel=1e-3, abs=1e-6), name
    both.discriminator.zero_grad()
    scores = both.discriminator(real), both.discriminator(made.detach())
    (F.relu(1 - scores[0]).mean() / 2 + F.relu(1 + scores[1]).mean() / 2).backward()
    for name, parameter in both.discriminator.named_parameters():
        assert together[f"discriminator.{name}"].numpy() == pytest.approx(parameter.grad.numpy(), rel=1e-3, abs=1e-7)


def test_perceptual_loss_is_the_metric(tmp_path: Path) -> None:
    widths = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
    tensors, before = {}, 3
    for k, width in enumerate(widths):
        tensors |= {
            f"conv{k}.weight": noise(width, before, 3, 3, seed=k) / (3 * before**0.5) * 1.4,
            f"conv{k}.bias": noise(width),
        }
        before = width
    tensors |= {f"lin{k}.weight": noise(1, widths[tap], 1, 1, seed=k).abs() for k, tap in enumerate((1, 3, 6, 9, 12))}
    path = tmp_path / "vgg.safetensors"
    save_file(tensors, path)
    frames = np.random.default_rng(0).integers(0, 256, (2, 2, 16, 16, 3), np.uint8)
    a, b = (torch.from_numpy(part).permute(0, 3, 1, 2).float() / 127.5 - 1 for part in frames)
    measured = Measured("vgg", Weights(path, "0" * 64), "cpu")._distances(*frames)[0]
    assert Lpips(path)(a, b).numpy() == pytest.approx(measured, rel=1e-4)
    b.requires_grad_()
    Lpips(path)(b, b.detach()).sum().backward()
    assert torch.isfinite(b.grad).all()
    save_file({"conv0.weight": noise(1)}, path)
    with pytest.raises(TrainingError, match=r"has no conv0\.bias"):
        Lpips(path)


# The transformer


def model() -> Autoregressor:
    torch.manual_seed(0)
    network = Autoregressor(SMALL, noise(24, 8)).double().eval()
    torch.nn.init.normal_(network.head.weight, std=0.3)
    return network


def conditions(frames: int = 3) -> Conditions:
    given = noise(frames, 16, 8, seed=1), noise(frames, SPAN, 6, seed=2), noise(frames, SPAN, 5, seed=3)
    return Conditions(*(part.double() for part in given))


def test_the_anchor_is_its_formula() -> None:
    torch.manual_seed(0)
    anchor, given = EmotionAnchor(8, 5, 4, 3).double().eval(), conditions()
    w = {name: value.detach().numpy() for name, value in anchor.state_dict().items()}
    dense = lambda x, name: x @ w[f"{name}.weight"].T + w[f"{name}.bias"]  # noqa: E731
    places = np.array([w["rows"][k // 4, 0] + w["columns"][0, k % 4] for k in range(16)])
    q, heard = given.source.numpy() + places, dense(given.emotion.numpy(), "heard")
    parts = zip(np.split(w["attention.in_proj_weight"], 3), np.split(w["attention.in_proj_bias"], 3), strict=True)
    of = [x @ weight.T + bias for x, (weight, bias) in zip((q, heard, heard), parts, strict=True)]
    mixed = []
    for head in range(4):  # two dimensions each
        a, b, c = (x[..., 2 * head : 2 * head + 2] for x in of)
        scores = np.exp(a @ b.transpose(0, 2, 1) / 2**0.5)
        mixed.append(scores / scores.sum(-1, keepdims=True) @ c)
    x = q + dense(np.concatenate(mixed, -1), "attention.out_proj")
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * w["norm.weight"] + w["norm.bias"]
    hidden = dense(x, "ffn.0")
    x = x + dense(hidden * scipy.stats.norm.cdf(hidden), "ffn.2")
    found = anchor(given.source, given.emotion)
    assert found.detach().numpy() == pytest.approx(x, abs=1e-9)
    assert anchor.named(found).detach().numpy() == pytest.approx(dense(x.mean(1), "classifier"), abs=1e-9)


def test_an_anchor_without_a_word_names_nothing() -> None:
    logits = noise(3, 8)
    each = -logits.log_softmax(1).numpy()
    assert float(losses._named(logits, torch.tensor([2, -1, 5]))) == pytest.approx((each[0, 2] + each[2, 5]) / 2)
    assert float(losses._named(logits, torch.tensor([-1, -1, -1]))) == 0.0


def test_a_code_depends_on_those_before_it_and_on_every_condition() -> None:
    network, codes = model(), torch.randint(24, (1, 16), generator=torch.Generator().manual_seed(0))
    given = Conditions(*(part[:1] for part in conditions()))
    before = network(given, codes)[0]
    for place in range(16):
        changed = codes.clone()
        changed[0, place] = (codes[0, place] + 1) % 24
        moved = (network(given, changed)[0] - before).abs().amax((0, 2))
        assert not moved[: place + 1].any()  # exactly
        assert (moved[place + 1 :] > 0).all()
    for name in given._fields:
        part = getattr(given, name)
        for token in (0, part.shape[1] - 1):  # both ways through the prefix
            other = part.clone()
            other[:, token] += 1
            assert ((network(given._replace(**{name: other}), codes)[0] - before).abs().amax((0, 2)) > 0).all()


def test_the_prefix_sees_itself_and_no_code() -> None:
    mask, length = model().mask(16 + 2 * SPAN + 15), 16 + 2 * SPAN
    assert mask[:length, :length].all()
    assert not mask[:length, length:].any()
    assert torch.equal(mask[length:, length:], torch.ones(15, 15).tril().bool())
    assert mask[length:, :length].all()


@pytest.mark.parametrize(("top_k", "guidance"), [(1, 1.0), (5, 1.0), (1, 3.0), (5, 3.0)])
def test_sampling_with_cache_equals_sampling_without_and_the_training_pass(top_k: int, guidance: float) -> None:
    network, given = model(), conditions()
    sample = partial(network.sample, guidance=guidance)
    drawn = torch.rand(16, 24, generator=torch.Generator().manual_seed(0)).double() if top_k > 1 else None
    codes = sample(given, top_k, drawn)
    assert torch.equal(codes, sample(given, top_k, drawn, cached=False))
    assert len({tuple(row.tolist()) for row in codes}) == 3  # frames with other conditions differ
    one = Conditions(*(part[1:2] for part in given))
    assert torch.equal(codes[1:2], sample(one, top_k, drawn))  # and do not depend on each other
    heard, silent = network(given, codes)[0], given._replace(content=0 * given.content)
    logits = heard if guidance == 1 else network(silent, codes)[0] * (1 - guidance) + heard * guidance
    if top_k == 1:
        assert torch.equal(codes, logits.argmax(2))
    else:
        rank = (logits > logits.gather(2, codes[..., None])).sum(2)
        assert rank.max() < top_k
        assert rank.any()  # not always the likeliest
        assert not torch.equal(codes, sample(given, top_k, drawn.flip(0)))


def test_top_k_draws_as_often_as_likely() -> None:
    from reference_models.emotion_anchor.transformer import _draw

    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]])
    uniform = torch.rand(20_000, 4, generator=torch.Generator().manual_seed(0))
    drawn = torch.stack([_draw(logits, 2, row)[0] for row in uniform[:4000]])
    shares = torch.bincount(drawn, minlength=4) / len(drawn)
    assert shares.numpy() == pytest.approx([0, 1 / (1 + math.e), math.e / (1 + math.e), 0], abs=0.03)


def test_an_unheard_item_learns_nothing_from_its_sound() -> None:
    network, given = model().float(), Conditions(*(part.float() for part in conditions(4)))
    given.content.requires_grad_()
    codes, told = torch.randint(24, (4, 16), generator=torch.Generator().manual_seed(0)), torch.zeros(2, dtype=bool)
    for share, moves in ((1.0, False), (0.0, True)):
        preset, generator = replace(SMALL, unheard=share), torch.Generator().manual_seed(0)
        words = torch.tensor([1, 1, 2, 2])
        terms = losses.sequence(network, given, codes, words, told, preset, generator, network.entries)
        (gradient,) = torch.autograd.grad(sum(terms.values()), given.content)
        assert bool(gradient.any()) == moves


def test_continuity_against_numpy() -> None:
    expected, wanted = noise(4, 5, 3, seed=1), noise(4, 5, 3, seed=2)
    e, w = expected.numpy(), wanted.numpy()
    by_hand = np.mean([np.abs((e[k + 1] - e[k]) - (w[k + 1] - w[k])).mean() for k in (0, 2)])
    assert losses.continuity(expected, wanted).item() == pytest.approx(by_hand, rel=1e-6)


def test_the_untrained_transformer_copies_the_source() -> None:
    torch.manual_seed(0)
    network = Autoregressor(SMALL, noise(24, 8)).eval()
    tokens = torch.randint(24, (2, 16))
    given = Conditions(network.entries[tokens], noise(2, SPAN, 6), noise(2, SPAN, 5))
    assert torch.equal(network.sample(given), tokens)


# The face


def mesh(size: int = 64, turn: float = 0.2, scale: float = 0.6) -> np.ndarray:
    """A face mesh whose rigid points lie on the template, turned, in the middle of a picture of `size`."""
    points = np.full((478, 3), size / 2, np.float32)
    z = (np.array(face.TEMPLATE) - 0.5) @ (1, 1j) * scale * size * np.exp(1j * turn) + size / 2 * (1 + 1j)
    points[list(face.RIGID), 0], points[list(face.RIGID), 1] = z.real, z.imag
    return points


def test_the_square_is_upright() -> None:
    points = mesh()
    where = face.upright(points, 32)
    found = np.c_[points[:, :2], np.ones(478)] @ where.T
    assert found[list(face.RIGID)] == pytest.approx(np.array(face.TEMPLATE) * 32, abs=1e-3)


def test_a_square_put_back_changes_nothing_outside_and_little_inside() -> None:
    ramp = np.add.outer(np.arange(64), np.arange(64)) * 2
    frame = np.stack([ramp, 255 - ramp, ramp // 2], 2).astype(np.uint8)
    where = face.upright(mesh(), 64)
    back = face.paste(frame, face.cut(frame, where, 64), where)
    assert np.abs(back.astype(int) - frame).max() <= 4
    white = face.paste(frame, np.full((64, 64, 3), 255, np.uint8), where)
    assert (white[32, 32] == 255).all()
    assert (white[0, 0] == frame[0, 0]).all()
    huge = np.repeat(np.repeat(frame, 10, 0), 10, 1)
    assert (
        np.abs(
            face.cut(huge, face.upright(mesh(640), 32), 32).astype(int) - face.cut(frame, face.upright(mesh(), 32), 32)
        ).max()
        <= 6
    )


def test_no_face_or_hardly_one() -> None:
    for points in (np.full((478, 3), np.nan), np.zeros((0, 3))):
        with pytest.raises(GenerationError, match="found no face"):
            face.upright(points, 64)
    with pytest.raises(GenerationError, match=r"eyes are 4\.\d px apart; expected 8"):
        face.upright(mesh(14), 64)


# Sizes


def test_full_sizes() -> None:
    """GPT as in Taming Transformers: 24 blocks of width 1024; 304.9 M there with tables of 1024 codes each way, which
    here are maps to and from the codebook's 256 dimensions. 526 positions."""
    with torch.device("meta"):
        network = Autoregressor(FULL, torch.zeros(FULL.codes, FULL.code_width))
        vqgan, judge = VQGAN(FULL), Discriminator(*FULL.discriminator)
    count = lambda part: sum(parameter.numel() for parameter in part.parameters())  # noqa: E731
    assert count(network.blocks) == 24 * (12 * 1024**2 + 13 * 1024)
    tables = 1024**2 + 512 * 1024 + 2 * 1024 + 1024**2  # codes, positions, last norm, head
    assert round((count(network.blocks) + tables) / 1e6, 1) == 304.9
    assert count(network) == pytest.approx(304.9e6, rel=0.005)
    assert network.positions.shape == (526, 1024)
    assert (FULL.side, FULL.tokens) == (16, 256)
    assert vqgan.codebook.entries.shape == (1024, 256)
    assert 60e6 < count(vqgan) < 80e6
    assert count(judge) == pytest.approx(2.77e6, rel=0.01)


def test_a_configuration_survives_a_header() -> None:
    import json

    assert restored(json.loads(json.dumps(recorded(FULL))), "x") == FULL
    with pytest.raises(GenerationError, match="not this version's"):
        restored({"size": 3}, "x")
    with pytest.raises(TrainingError, match="option 'sice'"):
        preset_of("tiny", {"sice": 3})


def test_pictures_of_few_squares_come_back_exactly() -> None:
    """The tiny preset's tokens: four kinds of squares make a codebook of four, whatever picture they lie in."""
    kinds = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    laid = torch.randint(4, (20, 2, 2), generator=torch.Generator().manual_seed(1))
    pictures = kinds[laid].permute(0, 3, 1, 4, 2, 5).reshape(20, 3, 16, 16)
    made = SquareTokens(replace(TINY, size=16, codes=4, code_width=3))
    made.fill(pictures, seed=0)
    tokens = made.eval().tokens(pictures)
    assert made.pictures(tokens).detach().numpy() == pytest.approx(pictures.numpy(), abs=1e-4)
    assert len({tuple(pair) for pair in torch.stack([laid.flatten(), tokens.flatten()], 1).tolist()}) == 4
    again = SquareTokens(replace(TINY, size=16, codes=4, code_width=3))
    again.fill(pictures, seed=0)
    assert torch.equal(again.codebook.entries, made.codebook.entries)


def test_evened_pictures_do_not_tell_light_and_contrast() -> None:
    real = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    tinted = real * torch.tensor([0.5, 0.7, 1.1]).view(3, 1, 1) + torch.tensor([0.2, -0.1, 0.0]).view(3, 1, 1)
    one, mean, spread = data.evened(real, real[:1])
    other, *_ = data.evened(tinted, tinted[:1])
    assert other.numpy() == pytest.approx(one.numpy(), abs=1e-4)
    assert (one * spread + mean).numpy() == pytest.approx(real.numpy(), abs=1e-6)
    weight = data.features(32, real.device)
    assert float((weight * one[0]).mean()) == pytest.approx(0, abs=1e-5)
    assert float((weight * one[0] ** 2).mean()) == pytest.approx(1, abs=1e-4)
