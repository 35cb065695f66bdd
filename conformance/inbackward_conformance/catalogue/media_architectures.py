"""Models of images and sound that people train, built as those in `language_architectures`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from inbackward_conformance.catalogue.architecture import Architecture


class ImageClassifier(Architecture):
    """A model of images that returns class scores."""

    def forward(self, images: Tensor) -> Tensor:
        """Return the loss of the labels 0 to 3."""
        loss: Tensor = self.model(pixel_values=images, labels=torch.arange(4, device=images.device)).loss
        return loss

    @staticmethod
    def batch(generator: Generator) -> tuple[Tensor, ...]:
        """Return (4, 3, 16, 16)."""
        return (torch.randn(4, 3, 16, 16, generator=generator),)


class ViT(ImageClassifier):
    """ViT: one token that belongs to no patch of the image."""

    def build(self) -> Any:
        """Return two layers."""
        from transformers import ViTConfig, ViTForImageClassification

        config = ViTConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=48,
            image_size=16,
            patch_size=4,
            num_labels=4,
            hidden_dropout_prob=0.1,
        )
        return ViTForImageClassification(config)


class ResNet(ImageClassifier):
    """ResNet: batch norm, whose buffers move in each forward."""

    def build(self) -> Any:
        """Return two stages."""
        from transformers import ResNetConfig, ResNetForImageClassification

        config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=4)
        return ResNetForImageClassification(config)


class Whisper(Architecture):
    """Whisper: encoder and decoder, with positions in the encoder that are frozen from the start."""

    def build(self) -> Any:
        """Return two layers of each."""
        from transformers import WhisperConfig, WhisperForConditionalGeneration

        config = WhisperConfig(
            vocab_size=64,
            num_mel_bins=8,
            d_model=32,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=48,
            decoder_ffn_dim=48,
            max_source_positions=12,
            max_target_positions=12,
            dropout=0.1,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
        )
        return WhisperForConditionalGeneration(config)

    def forward(self, spectrograms: Tensor) -> Tensor:
        """Return the loss of the tokens 1 to 8."""
        tokens = torch.arange(1, 9, device=spectrograms.device).expand(2, 8)
        loss: Tensor = self.model(input_features=spectrograms, labels=tokens).loss
        return loss

    @staticmethod
    def batch(generator: Generator) -> tuple[Tensor, ...]:
        """Return (2, 8, 24): batch, frequencies, time."""
        return (torch.randn(2, 8, 24, generator=generator),)


class Wav2Vec2(Architecture):
    """Wav2Vec2: a parametrized convolution, and layers that a forward leaves out at random."""

    def build(self) -> Any:
        """Return four layers."""
        from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

        config = Wav2Vec2Config(
            vocab_size=12,
            hidden_size=32,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=48,
            conv_dim=(16, 16),
            conv_stride=(4, 4),
            conv_kernel=(8, 8),
            num_feat_extract_layers=2,
            num_conv_pos_embeddings=8,
            num_conv_pos_embedding_groups=4,
            layerdrop=0.4,
            apply_spec_augment=False,
            ctc_loss_reduction="mean",
        )
        return Wav2Vec2ForCTC(config)

    def forward(self, sound: Tensor) -> Tensor:
        """Return the loss of the letters 1 to 4."""
        letters = torch.arange(1, 5, device=sound.device).expand(2, 4)
        loss: Tensor = self.model(input_values=sound, labels=letters).loss
        return loss

    @staticmethod
    def batch(generator: Generator) -> tuple[Tensor, ...]:
        """Return (2, 400): batch, time."""
        return (torch.randn(2, 400, generator=generator),)


class CLIP(ImageClassifier):
    """CLIP: two towers that meet in one loss, times a parameter without dimensions."""

    def build(self) -> Any:
        """Return two layers of each."""
        from transformers import CLIPConfig, CLIPModel

        tower = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
        config = CLIPConfig(
            text_config={
                **tower,
                "vocab_size": 64,
                "max_position_embeddings": 16,
                "bos_token_id": 62,
                "eos_token_id": 63,
            },
            vision_config={**tower, "image_size": 16, "patch_size": 4},
            projection_dim=16,
        )
        return CLIPModel(config)

    def forward(self, images: Tensor) -> Tensor:
        """Return the loss of matching four images with four texts."""
        texts = torch.arange(32, device=images.device).reshape(4, 8)
        loss: Tensor = self.model(input_ids=texts, pixel_values=images, return_loss=True).loss
        return loss


class Denoiser(Architecture):
    """A model that predicts the noise in an image, as diffusion needs it."""

    def forward(self, noisy: Tensor) -> Tensor:
        """Return the mean squared error of the predicted noise."""
        steps = torch.tensor([10, 500], device=noisy.device)
        predicted: Tensor = self.model(noisy, steps, **self.conditions(noisy.device)).sample
        return (predicted - noisy).square().mean()

    def conditions(self, _: torch.device) -> dict[str, Tensor]:
        """Return what else the prediction depends on."""
        return {}

    @staticmethod
    def batch(generator: Generator) -> tuple[Tensor, ...]:
        """Return (2, 3, 8, 8)."""
        return (torch.randn(2, 3, 8, 8, generator=generator),)


class UNet(Denoiser):
    """The U-Net of a diffusion model: skip connections across all of it."""

    def build(self) -> Any:
        """Return two levels, one of them with attention."""
        from diffusers import UNet2DModel

        return UNet2DModel(
            sample_size=8,
            in_channels=3,
            out_channels=3,
            layers_per_block=1,
            block_out_channels=(8, 16),
            norm_num_groups=4,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=8,
        )


class DiT(Denoiser):
    """A diffusion transformer: layer norms whose scale and shift are computed from the time step."""

    def build(self) -> Any:
        """Return two layers."""
        from diffusers import DiTTransformer2DModel

        return DiTTransformer2DModel(
            num_attention_heads=4,
            attention_head_dim=8,
            in_channels=3,
            out_channels=3,
            num_layers=2,
            norm_num_groups=4,
            sample_size=8,
            patch_size=2,
            num_embeds_ada_norm=1000,
        )

    def conditions(self, device: torch.device) -> dict[str, Tensor]:
        """Return two labels."""
        return {"class_labels": torch.tensor([0, 1], device=device)}
