"""The untrained parts of avgas-mini, small enough for two CPU cores and a wheel."""

import os

import numpy as np
import torch
from diffusers import AutoencoderDC, DDIMScheduler, UNet2DConditionModel
from transformers import AutoModel

from avgas_pipeline import AudioVisualSeparator, AVGASPipeline, YamnetFeatureExtractor
from avgas_pipeline.models.encoder_adapters import token_layout


# Width of a condition token.
CONDITION_DIM = 192
# How it draws unless it is told otherwise, until that is distilled.
NUM_INFERENCE_STEPS = 10
GUIDANCE_SCALE = 3.0
# It encodes each window at three speeds; training plays clips up to 1.15 times as slow and as fast.
SPEED_VARIATION = 0.1
# Sources whose label is less probable are unknown sounds.
LABEL_THRESHOLD = 0.3


# Steps of the noise schedule, and what its signal-to-noise ratio is divided by.
NUM_TRAIN_TIMESTEPS = 1000
SNR_DIVISOR = 16.0


def sampler() -> DDIMScheduler:
    """
    Noise schedule and sampler: the cosine schedule (arXiv 2102.09672) with a lower signal-to-noise ratio (as in simple
    diffusion, arXiv 2301.11093), since what the picture shows is decided at ratios below 0.05. Its last step is pure
    noise, or white would be grey (arXiv 2305.08891).
    """
    steps = np.arange(NUM_TRAIN_TIMESTEPS + 1) / NUM_TRAIN_TIMESTEPS
    ratio = 1 / np.tan(np.clip(steps, 1e-3, 0.9995) * np.pi / 2) ** 2 / SNR_DIVISOR
    alphas_cumprod = ratio / (1 + ratio)
    betas = np.clip(1 - alphas_cumprod[1:] / alphas_cumprod[:-1], 1e-6, 0.999)
    return DDIMScheduler(
        trained_betas=betas.round(8).tolist(),
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
        clip_sample=False,
    )


def build_mini(
    audio_encoder: str | os.PathLike,
    autoencoder: str | os.PathLike,
    image_encoder: str | os.PathLike,
    labels: list[str],
    seed: int = 0,
) -> AVGASPipeline:
    """
    avgas-mini before its separator and its U-Net are trained.

    Args:
        audio_encoder (`str` or `os.PathLike`): Folder that `convert_yamnet.py` wrote.
        autoencoder (`str` or `os.PathLike`): Folder that `train_autoencoder.py` wrote.
        image_encoder (`str` or `os.PathLike`): The A2V teacher, a ResNet of transformers.
        labels (`list[str]`): What it will know.
        seed (`int`, defaults to 0): Of the weights.
    """
    encoder = AutoModel.from_pretrained(audio_encoder, use_safetensors=True)
    vae = AutoencoderDC.from_pretrained(autoencoder)
    teacher = AutoModel.from_pretrained(image_encoder, use_safetensors=True)
    torch.manual_seed(seed)
    separator = AudioVisualSeparator(
        **token_layout(encoder),
        num_slots=4,
        num_layers=3,
        hidden_dim=192,
        num_attention_heads=8,
        num_condition_tokens=4,
        cross_attention_dim=CONDITION_DIM,
        label_temperature=0.1,
        audio_embed_dim=128,
        visual_embed_dim=teacher.config.hidden_sizes[-1],
        id2label=dict(enumerate(labels)),
    )
    # One resolution: that of the latents.
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=vae.config.latent_channels,
        out_channels=vae.config.latent_channels,
        block_out_channels=[144],
        layers_per_block=1,
        down_block_types=["CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D"],
        cross_attention_dim=CONDITION_DIM,
        attention_head_dim=[6],
        norm_num_groups=16,
    )
    return AVGASPipeline(
        vae=vae,
        unet=unet,
        scheduler=sampler(),
        audio_encoder=encoder,
        audio_feature_extractor=YamnetFeatureExtractor.from_pretrained(audio_encoder),
        separator=separator,
        speed_variation=SPEED_VARIATION,
        default_num_inference_steps=NUM_INFERENCE_STEPS,
        default_guidance_scale=GUIDANCE_SCALE,
    )
