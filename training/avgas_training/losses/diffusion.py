"""The loss of the U-Net."""

import torch
import torch.nn.functional as F
from diffusers import SchedulerMixin
from diffusers.training_utils import compute_snr


def diffusion_loss(
    prediction: torch.Tensor,
    target: torch.Tensor,
    timesteps: torch.Tensor,
    scheduler: SchedulerMixin,
    snr_gamma: float | None = None,
) -> torch.Tensor:
    """
    Mean squared error of what the U-Net predicts, weighted by the clipped signal-to-noise ratio if `snr_gamma` is
    given (min-SNR, arXiv 2303.09556).

    Args:
        prediction (`torch.Tensor` of shape `(B, C, H, W)`): The U-Net's.
        target (`torch.Tensor` of shape `(B, C, H, W)`): Noise, velocity, latents or flow.
        timesteps (`torch.Tensor` of shape `(B,)`): As given to the U-Net.
        scheduler (`SchedulerMixin`): Knows what is predicted.
        snr_gamma (`float`, *optional*): Where the ratio is clipped; 5 is usual. Not for flow matching.
    """
    error = F.mse_loss(prediction.float(), target.float(), reduction="none").flatten(1).mean(dim=1)
    if snr_gamma is None:
        return error.mean()
    snr = compute_snr(scheduler, timesteps)
    # The same weight of the latents, in units of what is predicted.
    units = {"epsilon": snr, "v_prediction": snr + 1, "sample": torch.ones_like(snr)}
    weight = snr.clamp(max=snr_gamma) / units[scheduler.config.prediction_type]
    return (weight * error).mean()
