"""Pictures to visual tokens and back: a VQGAN (Esser, Rombach and Ommer 2021, "Taming Transformers")."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reference_models.emotion_anchor.presets import Preset
from reference_models.squares import Squares
from reference_models.training import TrainingError

DECAY = 0.95  # of the running count of a code's use
DEAD = 0.05  # a code that is used less often than this share of the mean is given another place


class Quantised(NamedTuple):
    """codes     (N, d, h, w): the nearest entries, with the gradient of what was quantised
    indices   (N, h, w) int64
    codebook  ‖sg[z] - e‖², moves the entries
    commit    ‖z - sg[e]‖², moves the encoder; β belongs here
    """

    codes: Tensor
    indices: Tensor
    codebook: Tensor
    commit: Tensor


class Codebook(nn.Module):
    """K entries of d dimensions, the nearest of which stands for a vector (van den Oord et al. 2017).

    In training an entry that is not used is moved to one of the vectors of the batch; at first none is in use, so the
    entries start there.
    """

    use: Tensor

    def __init__(self, entries: int, width: int) -> None:
        super().__init__()
        self.entries = nn.Parameter(torch.randn(entries, width) / width**0.5)
        self.register_buffer("use", torch.zeros(entries))  # running mean of how often a batch uses each entry

    def forward(self, z: Tensor) -> Quantised:
        """z (N, d, h, w)."""
        flat = z.float().permute(0, 2, 3, 1).flatten(0, 2)
        if self.training:
            self._revive(flat.detach())
        nearest = self.nearest(flat)
        if self.training:
            counts = torch.bincount(nearest, minlength=len(self.use)).float()
            self.use.lerp_(counts, 1 - DECAY)
        indices = nearest.reshape(len(z), *z.shape[2:])
        found = self.embed(indices)
        codes = z + (found - z).detach()
        return Quantised(codes, indices, F.mse_loss(found, z.detach()), F.mse_loss(z, found.detach()))

    def nearest(self, flat: Tensor) -> Tensor:
        """Index (M,) of the entry next to each of the vectors (M, d)."""
        with torch.autocast(flat.device.type, enabled=False):  # half precision takes a neighbour for the nearest
            return torch.addmm((self.entries**2).sum(1), flat.float(), self.entries.T, alpha=-2).argmin(1)

    def embed(self, indices: Tensor) -> Tensor:
        """Entries (N, d, h, w) of indices (N, h, w)."""
        return self.entries[indices].permute(0, 3, 1, 2)

    @torch.no_grad()
    def _revive(self, flat: Tensor) -> None:
        dead = self.use <= DEAD * self.use.mean()
        count = int(dead.sum())
        if not count:
            return
        drawn = torch.randint(len(flat), (count,), device=flat.device)
        self.entries[dead] = flat[drawn]
        self.use[dead] = self.use.mean().clamp(min=1)  # time to be found
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.broadcast(self.entries.data, 0)


class Residual(nn.Module):
    """Two convolutions after group norms, added to what came in; nothing at first."""

    def __init__(self, before: int, after: int, groups: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(groups, before),
            nn.SiLU(),
            nn.Conv2d(before, after, 3, padding=1),
            nn.GroupNorm(groups, after),
            nn.SiLU(),
            _silent(nn.Conv2d(after, after, 3, padding=1)),
        )
        self.skip = nn.Identity() if before == after else nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.skip(x) + self.layers(x)
        return out


class Attention(nn.Module):
    """Every place looks at all others, with one head; nothing at first."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = _silent(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).flatten(2).transpose(1, 2)[:, None].chunk(3, -1)  # (N, 1, h w, C)
        seen = F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2).reshape(x.shape)
        out: Tensor = x + self.out(seen)
        return out


class Tokens(nn.Module):
    """Pictures (N, 3, S, S) in [-1, 1] to tokens (N, S / f, S / f) of a codebook, and back."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.codebook = Codebook(preset.codes, preset.code_width)

    def encode(self, pictures: Tensor) -> Tensor:
        """z (N, d, h, w), not yet quantised."""
        raise NotImplementedError

    def decode(self, codes: Tensor) -> Tensor:
        """Pictures of entries (N, d, h, w)."""
        raise NotImplementedError

    def tokens(self, pictures: Tensor) -> Tensor:
        """(N, h, w) int64."""
        indices: Tensor = self.codebook(self.encode(pictures)).indices
        return indices

    def pictures(self, indices: Tensor) -> Tensor:
        """Pictures (N, 3, S, S) of tokens (N, h, w)."""
        return self.decode(self.codebook.embed(indices))

    def forward(self, pictures: Tensor) -> tuple[Tensor, Quantised]:
        found = self.codebook(self.encode(pictures))
        return self.decode(found.codes), found


class SquareTokens(Tokens):
    """Nothing to train: squares of pixels, their principal components, and the codebook that k-means finds in them."""

    def __init__(self, preset: Preset) -> None:
        super().__init__(preset)
        self.squares = Squares(preset.square, preset.code_width)

    def encode(self, pictures: Tensor) -> Tensor:
        return self.squares.encode(pictures)

    def decode(self, codes: Tensor) -> Tensor:
        return self.squares.decode(codes)

    @torch.no_grad()
    def fill(self, pictures: Tensor, seed: int) -> None:
        """From pictures (N, 3, S, S); the same ones, the same codebook. Raises TrainingError for too few squares."""
        from sklearn.cluster import MiniBatchKMeans

        self.squares.find(pictures)
        found = self.encode(pictures).movedim(1, -1).flatten(0, 2).numpy()
        entries = self.codebook.entries
        if len(found) < len(entries):
            raise TrainingError(
                f"option codes = {len(entries)}; expected at most the {len(found)} squares of the clips"
            )
        means = MiniBatchKMeans(len(entries), batch_size=8192, n_init=1, max_iter=20, random_state=seed % 2**32)
        entries.copy_(torch.from_numpy(means.fit(found).cluster_centers_))


class VQGAN(Tokens):
    """Encoder, codebook and decoder.

    As upstream: residual blocks a level (one more in the decoder), strided convolutions down, nearest neighbours and a
    convolution up, attention at the smallest size and in the middle. Ours: residual branches start at zero and nothing
    is normalised before the last layer, with which a small network learns in hundreds of steps.
    """

    def __init__(self, preset: Preset) -> None:
        super().__init__(preset)
        width = preset.channels
        few = preset.groups
        middle = [Residual(width[-1], width[-1], few), Attention(width[-1], few), Residual(width[-1], width[-1], few)]
        down: list[nn.Module] = [nn.Conv2d(3, width[0], 3, padding=1)]
        for level, (before, now) in enumerate(zip((width[0], *width), width, strict=False)):
            down += _level(before, now, preset.blocks, few, attends=level == len(width) - 1)
            if level < len(width) - 1:
                down.append(nn.Conv2d(now, now, 3, stride=2, padding=1))
        self.encoder = nn.Sequential(*down, *middle, nn.Conv2d(width[-1], preset.code_width, 1))
        up: list[nn.Module] = [nn.Conv2d(preset.code_width, width[-1], 3, padding=1)]
        up += [Residual(width[-1], width[-1], few), Attention(width[-1], few), Residual(width[-1], width[-1], few)]
        for level in reversed(range(len(width))):
            before = width[min(level + 1, len(width) - 1)]
            up += _level(before, width[level], preset.blocks + 1, few, attends=level == len(width) - 1)
            if level > 0:
                up += [nn.Upsample(scale_factor=2), nn.Conv2d(width[level], width[level], 3, padding=1)]
        self.decoder = nn.Sequential(*up, nn.SiLU(), nn.Conv2d(width[0], 3, 3, padding=1))

    def encode(self, pictures: Tensor) -> Tensor:
        out: Tensor = self.encoder(pictures)
        return out

    def decode(self, codes: Tensor) -> Tensor:
        out: Tensor = self.decoder(codes)
        return out

    @property
    def last(self) -> Tensor:
        """The last layer's weight, at which gradients are compared."""
        layer = self.decoder[-1]
        assert isinstance(layer, nn.Conv2d)
        return layer.weight


def visual(preset: Preset) -> Tokens:
    """What a preset has."""
    return SquareTokens(preset) if preset.square else VQGAN(preset)


def _silent(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer with zeros for weights."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def _level(before: int, now: int, blocks: int, groups: int, attends: bool) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for number in range(blocks):
        layers.append(Residual(before if number == 0 else now, now, groups))
        if attends:
            layers.append(Attention(now, groups))
    return layers


class Discriminator(nn.Module):
    """Real or not, patch by patch (Isola et al. 2017), with group normalisation: a picture's score does not depend on
    the others of its batch."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        parts: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        before = width
        for number in range(1, layers + 1):
            now = width * min(2**number, 8)
            stride = 2 if number < layers else 1
            parts += [nn.Conv2d(before, now, 4, stride, 1, bias=False), nn.GroupNorm(8, now), nn.LeakyReLU(0.2)]
            before = now
        self.layers = nn.Sequential(*parts, nn.Conv2d(before, 1, 4, 1, 1))

    def forward(self, pictures: Tensor) -> Tensor:
        """(N, 1, h, w), the higher the more real."""
        out: Tensor = self.layers(pictures)
        return out
