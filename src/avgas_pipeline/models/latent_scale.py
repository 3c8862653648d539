"""Between an autoencoder's latents and those that a U-Net draws: shift and factor of its configuration."""

import torch
from diffusers import ModelMixin


def scale_latents(vae: ModelMixin, latents: torch.Tensor) -> torch.Tensor:
    """Latents `(B, C, H, W)` as the autoencoder encodes them, as the U-Net draws them."""
    mean, factor = _mean_and_factor(vae, latents)
    return (latents - mean) * factor


def unscale_latents(vae: ModelMixin, latents: torch.Tensor) -> torch.Tensor:
    """Latents `(B, C, H, W)` as the U-Net draws them, as the autoencoder decodes them."""
    mean, factor = _mean_and_factor(vae, latents)
    return latents / factor + mean


def needs_float32(vae: ModelMixin, unet: ModelMixin) -> bool:
    """Whether an autoencoder overflows in float16, as Stable Diffusion XL's says of itself."""
    # Others have `force_upcast` by default, and do not need it.
    return unet.config.addition_embed_type == "text_time" and bool(vae.config.get("force_upcast"))


def _mean_and_factor(vae: ModelMixin, latents: torch.Tensor) -> tuple[torch.Tensor | float, torch.Tensor | float]:
    config = vae.config
    if config.get("latents_mean") and config.get("latents_std"):
        # Of some relatives of Stable Diffusion XL, one number for each channel.
        mean, deviation = (
            latents.new_tensor(config[name]).view(1, -1, 1, 1) for name in ("latents_mean", "latents_std")
        )
        return mean, config.scaling_factor / deviation
    return config.get("shift_factor") or 0.0, config.scaling_factor
