"""Pictures that a run looks at: drawn from the same noise every time."""

from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler

from avgas_pipeline.models.latent_scale import unscale_latents

from .distillation import Prediction


def draw(
    predict: Prediction,
    vae: Any,
    scheduler: Any,
    conditions: dict[str, Any],
    without: dict[str, Any] | None,
    noise: torch.Tensor,
    num_inference_steps: int,
    guidance_scale: float,
) -> np.ndarray:
    """
    Pictures `(B, H, W, 3)`, uint8, drawn by DDIM.

    Args:
        predict (`Callable`): From noisy latents, timesteps and conditions to a prediction.
        vae (`torch.nn.Module`): Decodes.
        scheduler (`SchedulerMixin`): Whose noise levels are used.
        conditions (`dict`): What the U-Net gets beside latents.
        without (`dict`, *optional*): The same with null tokens; needed for guidance.
        noise (`torch.Tensor` of shape `(B, C, h, w)`): To begin with.
        num_inference_steps (`int`): Of DDIM.
        guidance_scale (`float`): Without guidance up to 1.
    """
    # DDIM's own default would cut latents off at 1.
    scheduler = DDIMScheduler.from_config(scheduler.config, clip_sample=scheduler.config.get("clip_sample", False))
    scheduler.set_timesteps(num_inference_steps)
    latents = noise
    with torch.no_grad():
        for t in scheduler.timesteps:
            times = t.expand(len(latents)).to(latents.device)
            prediction = predict(latents, times, conditions)
            if guidance_scale > 1:
                null = predict(latents, times, without)
                prediction = null + guidance_scale * (prediction - null)
            latents = scheduler.step(prediction, t, latents)[0]
        pixels = vae.decode(unscale_latents(vae, latents).to(vae.dtype)).sample.float()
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
