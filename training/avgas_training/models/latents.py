"""Latents of pictures, whichever kind of autoencoder makes them, and their noise."""

from typing import Any

import torch
from diffusers import DDPMScheduler

from avgas_pipeline.models.latent_scale import scale_latents

from ..randomness import RowRandom


def encode_pictures(vae: Any, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Mean and standard deviation, float32, of the latents of pictures `(B, 3, H, W)` in [-1, 1]; the deviation is 0 for
    autoencoders without a posterior (`AutoencoderDC`, `AutoencoderTiny`). Not scaled yet.
    """
    output = vae.encode(pixel_values.to(vae.dtype))
    if hasattr(output, "latent_dist"):
        return output.latent_dist.mean.float(), output.latent_dist.std.float()
    latents = (output.latent if hasattr(output, "latent") else output.latents).float()
    return latents, torch.zeros_like(latents)


def sample_latents(vae: Any, batch: dict[str, torch.Tensor], random: RowRandom) -> torch.Tensor:
    """Latents `(B, C, H, W)`, float32, scaled as the U-Net wants them; of a cached batch, a new sample of them."""
    if "latent_mean" in batch:
        mean, deviation = batch["latent_mean"].float(), batch["latent_std"].float()
    else:
        mean, deviation = encode_pictures(vae, batch["pixel_values"])
    return scale_latents(vae, mean + deviation * random.normal(mean.shape, mean.device))


_TARGETS = {
    "epsilon": lambda scheduler, latents, noise, steps: noise,
    "sample": lambda scheduler, latents, noise, steps: latents,
    "v_prediction": DDPMScheduler.get_velocity,
}


class Noise:
    """
    Noised latents and what is to be predicted of them, as the scheduler says: epsilon, v, sample or flow.

    Args:
        scheduler (`SchedulerMixin`): The pipeline's. One of its own is made of its configuration: drawing changes the
            pipeline's timesteps, and many schedulers add noise only in their own order, or at another scale.
        noise_offset (`float`, defaults to 0): Of the noise's mean.
        snr_gamma (`float`, *optional*): Where the loss clips the signal-to-noise ratio.

    Attributes:
        scheduler (`SchedulerMixin`): Its own.

    Raises:
        ValueError: If the scheduler has neither betas nor flow, predicts something else, or has no ratio to clip.
    """

    def __init__(self, scheduler: Any, noise_offset: float = 0.0, snr_gamma: float | None = None) -> None:
        self.noise_offset = noise_offset
        self.snr_gamma = snr_gamma
        self.is_flow = hasattr(scheduler, "scale_noise")
        if not self.is_flow and "beta_schedule" not in scheduler.config:
            raise ValueError(f"A U-Net can't be trained with {type(scheduler).__name__}.")
        if self.is_flow and snr_gamma is not None:
            raise ValueError("snr_gamma has no effect with flow matching: leave it out.")
        if not self.is_flow and scheduler.config.prediction_type not in _TARGETS:
            raise ValueError(
                f"The scheduler's prediction_type {scheduler.config.prediction_type!r} can't be trained here."
            )
        self.scheduler = (type(scheduler) if self.is_flow else DDPMScheduler).from_config(scheduler.config)

    def add(self, latents: torch.Tensor, random: RowRandom) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Noisy latents, timesteps `(B,)`, and the target, all of `latents`' shape but the timesteps."""
        device = latents.device
        noise = random.normal(latents.shape, device)
        if self.noise_offset:
            noise = noise + self.noise_offset * random.normal((*latents.shape[:2], 1, 1), device)
        steps = random.integers(self.scheduler.config.num_train_timesteps, device)
        if self.is_flow:
            # Noise levels in the scheduler's own order, the highest first.
            sigmas = self.scheduler.sigmas.to(device)[steps].view(-1, 1, 1, 1)
            timesteps = self.scheduler.timesteps.to(device)[steps]
            return (1 - sigmas) * latents + sigmas * noise, timesteps, noise - latents
        noisy = self.scheduler.add_noise(latents, noise, steps)
        return noisy, steps, _TARGETS[self.scheduler.config.prediction_type](self.scheduler, latents, noise, steps)
