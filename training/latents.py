"""What a VAE makes of pictures, whichever kind it is."""

from typing import Any

import torch


def encode(vae: Any, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Mean and standard deviation, float32, of the latents of pictures `(B, 3, H, W)` in [-1, 1]; the deviation is 0 for
    autoencoders without a posterior (`AutoencoderDC`, `AutoencoderTiny`). Not scaled yet.
    """
    output = vae.encode(pixel_values.to(vae.dtype))
    if hasattr(output, "latent_dist"):
        return output.latent_dist.mean.float(), output.latent_dist.std.float()
    latents = (output.latent if hasattr(output, "latent") else output.latents).float()
    return latents, torch.zeros_like(latents)
