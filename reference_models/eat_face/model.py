"""The networks of EAT-Face (Wang, Jia and Cao): Talking Face Reconstructor, joint emotion-visual embedding, and Facial
Emotion Controller. Sections and equations are the paper's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reference_models.eat_face.presets import DIFFUSION_STEPS, Preset

LEFT, RIGHT, TOP, BOTTOM = 127, 356, 151, 152  # MediaPipe's points at the face's edges (Section III-C.2)
SCALE = 0.18215  # of Stable Diffusion's latents


def boxes(points: Tensor, width: int, height: int) -> Tensor:
    """Masks (N, 4) as left, top, right, bottom in fractions of the picture, from face meshes (N, 478, 2 or more) in px
    (Section III-C.2); the edges are ordered, so that a mirrored face has a box too."""
    x, y = points[:, [LEFT, RIGHT], 0] / width, points[:, [TOP, BOTTOM], 1] / height
    return torch.stack([x.amin(1), y.amin(1), x.amax(1), y.amax(1)], 1).clamp(0, 1)


def masked(pictures: Tensor, box: Tensor, kind: str = "face") -> Tensor:
    """x_m: pictures (N, 3, H, W) in [-1, 1] with the box at grey 0; of `kind` "binary", 1 in the box and -1 outside."""
    height, width = pictures.shape[-2:]
    y = (torch.arange(height, device=pictures.device) + 0.5) / height
    x = (torch.arange(width, device=pictures.device) + 0.5) / width
    left, top, right, bottom = (edge[:, None] for edge in box.unbind(1))
    inside = ((y >= top) & (y < bottom))[:, :, None] & ((x >= left) & (x < right))[:, None, :]
    if kind == "binary":
        return torch.where(inside, 1.0, -1.0)[:, None].expand_as(pictures)
    return pictures.masked_fill(inside[:, None], 0.0)


def windows(features: Tensor, frames: int, chosen: Tensor | None = None) -> Tensor:
    """Speech features (S, D) to (frames, 3, D): [a_{u-1}; a_u; a_{u+1}] with u = floor(S (i - 1) / N) for the frames
    i = 1..N, zeros outside (Section III-C.1); of the `chosen` ones (from 0) only, where given."""
    if chosen is None:
        chosen = torch.arange(frames, device=features.device)
    u = chosen * len(features) // frames
    padded = F.pad(features, (0, 0, 1, 1))
    return torch.stack([padded[u], padded[u + 1], padded[u + 2]], 1)


def emotion_map(embedding: Tensor, channels: int) -> Tensor:
    """c_e (N, channels, h, w): an embedding h (N, hw) as a square map, repeated (Section III-D.2). Its length is set to
    that of a normal draw, because eqs. 8-9 see the direction of h alone and leave its length to chance."""
    side = round(embedding.shape[1] ** 0.5)
    even: Tensor = F.normalize(embedding, dim=1) * float(side)
    return even.reshape(-1, 1, side, side).expand(-1, channels, -1, -1)


def stretched(feature: Tensor, length: int) -> Tensor:
    """A text feature (N, E) brought to (N, hw) by linear interpolation: what the controller gets w/o EVE."""
    return F.interpolate(feature[:, None], size=length, mode="linear", align_corners=True)[:, 0]


class AudioCondition(nn.Module):
    """F_a: windows (N, 3, D) -> c_a (N, 3, width), 1-D convolutions over the window and an MLP (Section III-C.1)."""

    def __init__(self, speech_width: int, width: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv1d(speech_width, width, 3, padding=1), nn.SiLU(), nn.Conv1d(width, width, 3, padding=1), nn.SiLU()
        )
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, speech: Tensor) -> Tensor:
        out: Tensor = self.mlp(self.convolutions(speech.transpose(1, 2)).transpose(1, 2))
        return out


class Residuals(NamedTuple):
    """What the controller adds to the U-Net's skips and to its middle."""

    skips: Sequence[Tensor]
    middle: Tensor


class Reconstructor(nn.Module):
    """The Talking Face Reconstructor: U-Net and F_a."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.unet = build_unet(preset)
        self.audio = AudioCondition(preset.speech_width, preset.width)
        self.from_reference = preset.prediction == "sample"
        if self.from_reference:
            nn.init.zeros_(self.unet.conv_out.weight)  # type: ignore[arg-type, union-attr]

    def context(self, speech: Tensor, text: Tensor | None = None) -> Tensor:
        """Keys and values: c_a, and w/o FEC the text's tokens (N, L, width) behind it."""
        audio: Tensor = self.audio(speech)
        return audio if text is None else torch.cat([audio, text], 1)

    def forward(self, x_in: Tensor, t: Tensor, context: Tensor, residuals: Residuals | None = None) -> Tensor:
        """ε_θ (N, C, h, w) of x_in (N, 3 C, h, w), eq. 4, at the steps t (N,); with prediction "sample", z_0 as z_r and
        a change that starts at nothing."""
        added: dict[str, Any] = {}
        if residuals is not None:
            added = {
                "down_block_additional_residuals": residuals.skips,
                "mid_block_additional_residual": residuals.middle,
            }
        out: Tensor = self.unet(x_in, t, context, return_dict=False, **added)[0]
        return x_in.chunk(3, 1)[2] + out if self.from_reference else out


class Controller(nn.Module):
    """φ_θ, the Emotion ControlNet: a copy of the U-Net's encoder whose outputs start at zero."""

    def __init__(self, unet: nn.Module, preset: Preset) -> None:
        super().__init__()
        from diffusers import ControlNetModel

        # One entry keeps the condition's resolution; the stock embedding would make it eight times smaller.
        self.network = ControlNetModel.from_unet(
            unet,
            conditioning_channels=preset.latent_channels,
            conditioning_embedding_out_channels=(min(64, preset.unet[0]),),
        )

    def forward(self, x_in: Tensor, t: Tensor, context: Tensor, c_e: Tensor) -> Residuals:
        if c_e.shape[-2:] != x_in.shape[-2:]:  # smaller ones would be spread silently
            raise ValueError(f"condition of {tuple(c_e.shape[-2:])} for latents of {tuple(x_in.shape[-2:])}")
        skips, middle = self.network(x_in, t, context, c_e, return_dict=False)
        return Residuals(skips, middle)


class Adapter(nn.Module):
    """A_v or A_e: (N, E) -> (N, hw); convolution, max-pooling and activation in turn, then an MLP (Section III-D.1)."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for channels in preset.adapter:
            layers += [nn.Conv1d(before, channels, 3, padding=1), nn.MaxPool1d(2), nn.GELU()]
            before = channels
        self.layers = nn.Sequential(*layers)
        inner = before * (preset.embedding >> len(preset.adapter))
        self.mlp = nn.Sequential(
            nn.Linear(inner, preset.condition), nn.GELU(), nn.Linear(preset.condition, preset.condition)
        )

    def forward(self, feature: Tensor) -> Tensor:
        out: Tensor = self.mlp(self.layers(feature[:, None]).flatten(1))
        return out


class JointEmbedding(nn.Module):
    """EVE: the adapters of pictures and of emotion words."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.visual, self.emotion, self.alpha = Adapter(preset), Adapter(preset), preset.alpha

    def of_picture(self, picture: Tensor) -> Tensor:
        """h^v (N, hw) of the feature (N, E) of a picture that shows the emotion, eq. 6."""
        out: Tensor = self.visual(picture)
        return out

    def of_emotion(self, text: Tensor, reference: Tensor) -> Tensor:
        """h^e (N, hw) of the features (N, E) of the words and of an emotionless picture of the person, eq. 7."""
        out: Tensor = self.alpha * self.emotion(text) + (1 - self.alpha) * self.visual(reference)
        return out


class Codec(nn.Module):
    """E and D: pictures (N, 3, H, W) in [-1, 1] to latents (N, C, h, w) of unit spread, and back."""

    scale: Tensor

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        from diffusers import AutoencoderKL

        levels = len(preset.vae)
        self.patch = preset.patch
        self.vae: Any = AutoencoderKL(  # type: ignore[no-untyped-call]
            in_channels=3 * preset.patch**2,
            out_channels=3 * preset.patch**2,
            block_out_channels=preset.vae,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            layers_per_block=preset.layers,
            latent_channels=preset.latent_channels,
            norm_num_groups=preset.groups,
            sample_size=preset.size,
        )
        self.linear = LinearCodec(preset) if preset.own_encoders else None
        self.register_buffer("scale", torch.tensor(SCALE))

    def posterior(self, pictures: Tensor) -> Any:
        found = self.vae.encode(F.pixel_unshuffle(pictures, self.patch)).latent_dist
        if self.linear is None:
            return found
        return type(found)(torch.cat([found.mean + self.linear.encode(pictures), found.logvar], 1))

    def encode(self, pictures: Tensor) -> Tensor:
        out: Tensor = self.posterior(pictures).mode() * self.scale
        return out

    def decode(self, latents: Tensor) -> Tensor:
        decoded = F.pixel_shuffle(self.vae.decode(latents / self.scale).sample, self.patch)
        return decoded if self.linear is None else decoded + self.linear.decode(latents / self.scale)

    @torch.no_grad()
    def begin(self, pictures: Tensor) -> None:
        """Starts a VAE of our own as the principal components of pictures (n, 3, H, W), which it then refines: minutes
        of training are too few from random weights."""
        assert self.linear is not None
        self.linear.fill(pictures)
        for last in (self.vae.quant_conv, self.vae.decoder.conv_out):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        self.vae.quant_conv.bias[len(self.vae.quant_conv.bias) // 2 :] = -6.0  # little noise


class LinearCodec(nn.Module):
    """Squares of pixels (3, side, side) to C numbers and back."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        side = preset.size // preset.latent_side
        self.inward = nn.Conv2d(3, preset.latent_channels, side, stride=side)
        self.outward = nn.ConvTranspose2d(preset.latent_channels, 3, side, stride=side)

    def encode(self, pictures: Tensor) -> Tensor:
        out: Tensor = self.inward(pictures)
        return out

    def decode(self, latents: Tensor) -> Tensor:
        out: Tensor = self.outward(latents)
        return out

    def fill(self, pictures: Tensor) -> None:
        """The principal components of the squares; of each the spread's square root, so that faint ones count more than
        in the pictures and less than if all were alike."""
        side = self.inward.kernel_size[0]
        squares = F.unfold(pictures, side, stride=side).transpose(1, 2).flatten(0, 1).double()
        mean = squares.mean(0)
        values, vectors = torch.linalg.eigh((squares - mean).T @ (squares - mean) / len(squares))
        count = self.inward.out_channels
        spread, axes = values.flip(0)[:count].clamp(min=1e-8).sqrt(), vectors.flip(1)[:, :count].T
        shape = self.inward.weight.shape
        self.inward.weight.copy_((axes / spread.sqrt()[:, None]).view(shape))
        self.outward.weight.copy_((axes * spread.sqrt()[:, None]).view(shape))
        colours = mean.view(3, -1).mean(1)
        self.outward.bias.copy_(colours)  # type: ignore[union-attr]
        # The mean square is grey but for its colour; what is left of it goes through the components.
        shift = -(axes / spread.sqrt()[:, None]) @ colours.repeat_interleave(side**2)
        self.inward.bias.copy_(shift)  # type: ignore[union-attr]


def build_unet(preset: Preset) -> nn.Module:
    """ε_θ with z_t, z_m and z_r as input (eq. 4); Stable Diffusion 1.5's shape in the full preset."""
    from diffusers import UNet2DConditionModel

    down = ["CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in preset.cross]
    up = ["CrossAttnUpBlock2D" if attends else "UpBlock2D" for attends in reversed(preset.cross)]
    unet: Any = UNet2DConditionModel(  # type: ignore[no-untyped-call]
        sample_size=preset.latent_side,
        in_channels=3 * preset.latent_channels,
        out_channels=preset.latent_channels,
        block_out_channels=preset.unet,
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        layers_per_block=preset.layers,
        cross_attention_dim=preset.width,
        attention_head_dim=preset.heads,
        norm_num_groups=preset.groups,
    )
    built: nn.Module = unet
    return built


def scheduler(preset: Preset) -> Any:
    """Stable Diffusion's noise schedule, for training and for DDIM."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(  # type: ignore[no-untyped-call]
        num_train_timesteps=DIFFUSION_STEPS,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=preset.prediction,
    )
