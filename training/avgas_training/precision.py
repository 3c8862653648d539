"""In which precision a run has its weights."""

from typing import Any

import torch
from accelerate import Accelerator
from diffusers.models.attention_processor import AttnProcessor
from diffusers.training_utils import cast_training_params

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.models.latent_scale import needs_float32


def set_precision(
    settings: Any, accelerator: Accelerator, pipe: AVGASPipeline, model: torch.nn.Module, resolution: int
) -> torch.dtype:
    """
    Has frozen weights in the run's precision and trained ones in float32.

    Args:
        settings (`RunSettings`): With `full` and `gradient_checkpointing`.
        accelerator (`Accelerator`): The run's.
        pipe ([`AVGASPipeline`]): Its autoencoder and U-Net are cast.
        model (`torch.nn.Module`): What is trained, with what is frozen in it.
        resolution (`int`): Side of the pictures, in pixels.

    Returns:
        `torch.dtype`: The run's precision.
    """
    num_pixels = (resolution // pipe.vae_scale_factor) ** 2
    if accelerator.device.type == "cpu" and accelerator.mixed_precision == "bf16" and num_pixels <= 256:
        # PyTorch's fused attention would take half of a step; in float32, and on larger latents, it is the faster one.
        pipe.unet.set_attn_processor(AttnProcessor())
    if settings.gradient_checkpointing:
        pipe.unet.enable_gradient_checkpointing()
    dtypes = {"fp16": torch.float16, "bf16": torch.bfloat16}
    weight_dtype = dtypes.get(accelerator.mixed_precision, torch.float32)
    in_float32 = weight_dtype == torch.float16 and needs_float32(pipe.vae, pipe.unet)
    pipe.vae.requires_grad_(False).to(accelerator.device, torch.float32 if in_float32 else weight_dtype)
    if not settings.full:
        pipe.unet.to(weight_dtype)
    if weight_dtype != torch.float32:
        cast_training_params([model], dtype=torch.float32)
    return weight_dtype
