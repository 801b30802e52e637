"""DICE-Talk's networks: Stable Video Diffusion's UNet with audio, emotion and face, and what turns pictures into
latents and reference embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from reference_models.base import FPS
from reference_models.dice_talk.conditioning import AudioProj, EmotionModel, FaceGuider, condition
from reference_models.dice_talk.presets import CLASSES, Preset

STEP = 2  # generated frames lie this many of FPS apart: 12.5 a second
MOTION = (FPS / STEP, 8.0, 16.0)  # added_time_ids: frames/s, motion bucket, its "expression" in noise_aug's place
HEARD = 10  # speech features about a frame


@dataclass(slots=True)
class Given:
    """The conditions of B clips of F frames.

    image    (B, 4, h, w) unscaled latents of the reference;  seen: (B, cross) its embedding
    audio    (B, F, T, cross) tokens;  emotion: (B, F, T, cross) tokens
    mask     (B, 3, H, W) in {0, 1}, the box of the face
    """

    image: Tensor
    seen: Tensor
    audio: Tensor
    emotion: Tensor
    mask: Tensor


class DiceTalk(nn.Module):
    """All that is trained. Submodules carry the names of the published files; inputs of `sample` are scaled as EDM
    does (c_in · z)."""

    def __init__(self, preset: Preset, speech: int) -> None:
        """speech: layers times width of the speech features."""
        super().__init__()
        self.unet = _unet(preset)
        self._context = condition(self.unet)
        self.audio_linear = AudioProj(HEARD * speech, preset.hidden, preset.tokens, preset.cross)
        self.emo_model = EmotionModel(
            preset.prior,
            preset.hidden,
            preset.tokens,
            preset.cross,
            preset.entries,
            preset.widths[-1],
            preset.classifier,
            CLASSES,
            preset.bank,
        )
        self.pose_guider = FaceGuider(preset.guider, preset.widths[0])
        self._factor = preset.factor
        if preset.checkpointing:
            self.unet.enable_gradient_checkpointing()

    def forward(
        self,
        scaled: Tensor,
        sigma: Tensor,
        image: Tensor,
        seen: Tensor,
        heard: Tensor,
        prior: Tensor,
        mask: Tensor,
        dropped: Tensor,
        whole: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """A training pass.

        scaled, sigma   as `denoise`; image, seen, mask as Given
        heard    (B, F, 10, layers, width) speech features;  prior: (B, prior) samples of emotion priors
        dropped  (B, 3) bool: audio, image, emotion
        whole    (B,) bool: attend to the whole bank, as in generation, instead of the quantised entry
        returns  F of EDM (B, F, 4, h, w); logits of eq. 16 (B, F, classes); eq. 17 (B,)
        """
        frames = scaled.shape[1]
        audio, picture, emotion = dropped.unbind(1)
        tokens, quantisation = self.emo_model.retrieved(prior, emotion)
        if whole.any():
            tokens = torch.where(whole[:, None, None], self.emo_model(prior.masked_fill(emotion[:, None], 0)), tokens)
        given = Given(
            image=image.masked_fill(picture[:, None, None, None], 0),
            seen=seen.masked_fill(picture[:, None], 0),
            audio=self.audio_linear(heard.masked_fill(audio[:, None, None, None, None], 0)),
            emotion=tokens[:, None].expand(-1, frames, -1, -1),
            mask=mask,
        )
        made = self.denoise(scaled, sigma, given)
        assert self._context.middle is not None, "left by the hook"
        logits = self.emo_model.classifier(self._context.middle).unflatten(0, (-1, frames))
        return made, logits, quantisation

    def denoise(self, scaled: Tensor, sigma: Tensor, given: Given) -> Tensor:
        """(B, F, 4, h, w) noisy latents times c_in, (B,) -> F of EDM, the same shape."""
        frames = scaled.shape[1]
        face = nn.functional.avg_pool2d(given.mask[:, :1], self._factor)[:, 0]
        self._context.show((given.audio, given.emotion), face, self.pose_guider(given.mask))
        image = given.image[:, None].expand(-1, frames, -1, -1, -1).to(scaled)
        times = torch.tensor(MOTION, device=scaled.device).expand(len(scaled), -1)
        made: Tensor = self.unet(
            torch.cat([scaled, image], 2), sigma.log() / 4, given.seen[:, None].to(scaled), times, return_dict=False
        )[0]
        return made


def _unet(preset: Preset) -> Any:
    from diffusers import UNetSpatioTemporalConditionModel

    plain = len(preset.widths) - 1
    kind: Any = UNetSpatioTemporalConditionModel  # diffusers has no types
    return kind(
        in_channels=2 * preset.latents,
        out_channels=preset.latents,
        down_block_types=("CrossAttnDownBlockSpatioTemporal",) * plain + ("DownBlockSpatioTemporal",),
        up_block_types=("UpBlockSpatioTemporal",) + ("CrossAttnUpBlockSpatioTemporal",) * plain,
        block_out_channels=preset.widths,
        layers_per_block=preset.layers,
        num_attention_heads=preset.heads,
        addition_time_embed_dim=preset.time_width,
        projection_class_embeddings_input_dim=len(MOTION) * preset.time_width,
        cross_attention_dim=preset.cross,
        num_frames=preset.window,
    )


def autoencoder(preset: Preset, scaling: float = 0.18215) -> Any:
    """The temporal autoencoder; `scaling` times its latents has about unit variance."""
    from diffusers import AutoencoderKLTemporalDecoder

    kind: Any = AutoencoderKLTemporalDecoder  # as above
    return kind(
        down_block_types=("DownEncoderBlock2D",) * len(preset.autoencoder),
        block_out_channels=preset.autoencoder,
        layers_per_block=preset.autoencoder_layers,
        latent_channels=preset.latents,
        sample_size=preset.pixels,
        scaling_factor=scaling,
    )


def image_encoder(preset: Preset) -> Any:
    """The CLIP image encoder."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    layers, width, patch, pixels = preset.encoder
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=preset.cross,
        num_hidden_layers=layers,
        num_attention_heads=max(width // 80, 2),
        image_size=pixels,
        patch_size=patch,
        hidden_act="gelu",
    )
    return CLIPVisionModelWithProjection(config)


def still(network: nn.Module) -> None:
    """Let every temporal block begin as doing nothing, as where SVD's are added to a trained image model: what is
    trained from scratch learns pictures first."""
    for name, module in network.named_modules():
        if name.endswith("temporal_res_block"):
            nn.init.zeros_(module.conv2.weight)


def embed(encoder: Any, pictures: Tensor) -> Tensor:
    """(N, 3, H, W) in [-1, 1] -> (N, cross) reference embeddings, of the pictures at the encoder's size."""
    side = encoder.config.image_size
    small = nn.functional.interpolate(pictures, (side, side), mode="bicubic", antialias=True, align_corners=False)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073], device=small.device).view(3, 1, 1)
    deviation = torch.tensor([0.26862954, 0.26130258, 0.27577711], device=small.device).view(3, 1, 1)
    made: Tensor = encoder(((small.clamp(-1, 1) + 1) / 2 - mean) / deviation).image_embeds
    return made
