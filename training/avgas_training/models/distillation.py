"""Where several steps with guidance lead: what one step of the student has to reach."""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import DDIMScheduler


_PREDICTIONS = ("epsilon", "sample", "v_prediction")
Prediction = Callable[[torch.Tensor, torch.Tensor, dict[str, Any]], torch.Tensor]


class FewSteps:
    """
    Progressive distillation (arXiv 2202.00512) of a teacher with guidance (arXiv 2210.03142): the student's few steps
    divide the noise levels, and in each it learns the clean latents that take it, in one step of DDIM, where the
    teacher gets in several.

    Args:
        scheduler (`SchedulerMixin`): The pipeline's.
        num_inference_steps (`int`): Of the student.
        teacher_steps (`int`): Of the teacher, a multiple of them.
        guidance_scale (`float`): Of the teacher; without guidance up to 1.

    Attributes:
        scheduler (`DDIMScheduler`): What the student is drawn with.

    Raises:
        ValueError: If the scheduler has no betas, or predicts none of epsilon, sample and v, or its steps can't be
            divided so.
    """

    def __init__(self, scheduler: Any, num_inference_steps: int, teacher_steps: int, guidance_scale: float) -> None:
        if "beta_schedule" not in scheduler.config:
            raise ValueError(f"Steps of {type(scheduler).__name__} can't be distilled: it has no betas.")
        if scheduler.config.prediction_type not in _PREDICTIONS:
            raise ValueError(
                f"The scheduler's prediction_type {scheduler.config.prediction_type!r} can't be distilled."
            )
        # From pure noise on, and to the clean latents.
        trailing = {"timestep_spacing": "trailing", "set_alpha_to_one": True, "clip_sample": False}
        self.scheduler = DDIMScheduler.from_config(scheduler.config, **trailing)
        total = self.scheduler.config.num_train_timesteps
        if total % num_inference_steps or teacher_steps % num_inference_steps:
            raise ValueError(
                f"num_inference_steps has to divide {total} and teacher_steps ({teacher_steps}) but is"
                f" {num_inference_steps}."
            )
        if teacher_steps > total:
            raise ValueError(f"teacher_steps has to be at most {total} but is {teacher_steps}.")
        self.guidance_scale = guidance_scale
        self.scheduler.set_timesteps(num_inference_steps)
        starts = self.scheduler.timesteps
        length, parts = total // num_inference_steps, teacher_steps // num_inference_steps
        offsets = torch.linspace(0, length, parts + 1).round().long()
        # Timesteps of the teacher in every step of the student, (S, parts + 1); the last is -1: no noise.
        self.timesteps = starts[:, None] - offsets
        # One more at the end, which -1 finds.
        self.alphas = torch.cat([self.scheduler.alphas_cumprod, torch.ones(1)])

    def levels(self, timesteps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Shares of latents and of noise at timesteps `(B,)`, both `(B, 1, 1, 1)`."""
        alphas = self.alphas.to(timesteps.device)[timesteps].view(-1, 1, 1, 1)
        return alphas.sqrt(), (1 - alphas).sqrt()

    def clean(self, prediction: torch.Tensor, noisy: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """The clean latents that a prediction means."""
        signal, noise = self.levels(timesteps)
        kind = self.scheduler.config.prediction_type
        if kind == "v_prediction":
            return signal * noisy - noise * prediction
        if kind == "epsilon":
            return (noisy - noise * prediction) / signal
        return prediction

    def move(
        self, clean: torch.Tensor, noisy: torch.Tensor, timesteps: torch.Tensor, to: torch.Tensor
    ) -> torch.Tensor:
        """A step of DDIM, given the clean latents, from timesteps `(B,)` to others."""
        signal, noise = self.levels(timesteps)
        signal_to, noise_to = self.levels(to)
        return signal_to * clean + noise_to * (noisy - signal * clean) / noise

    @torch.no_grad()
    def target(
        self,
        teacher: Prediction,
        noisy: torch.Tensor,
        steps: torch.Tensor,
        conditions: dict[str, Any],
        without: dict[str, Any],
    ) -> torch.Tensor:
        """
        The clean latents that the student is to predict.

        Args:
            teacher (`Callable`): From noisy latents, timesteps and conditions to a prediction.
            noisy (`torch.Tensor` of shape `(B, C, H, W)`): Latents at the beginning of the steps.
            steps (`torch.Tensor` of shape `(B,)`): Which of the student's steps each row is at.
            conditions (`dict`): What the U-Net gets beside latents.
            without (`dict`): The same with null tokens.
        """
        path = self.timesteps.to(noisy.device)[steps]
        latents = noisy
        for now, after in zip(path[:, :-1].T, path[:, 1:].T, strict=True):
            prediction = teacher(latents, now, conditions)
            if self.guidance_scale > 1:
                null = teacher(latents, now, without)
                prediction = null + self.guidance_scale * (prediction - null)
            latents = self.move(self.clean(prediction, latents, now), latents, now, after)
        signal, noise = self.levels(path[:, 0])
        signal_end, noise_end = self.levels(path[:, -1])
        ratio = noise_end / noise
        return (latents - ratio * noisy) / (signal_end - ratio * signal)

    def loss(
        self, prediction: torch.Tensor, target: torch.Tensor, noisy: torch.Tensor, steps: torch.Tensor
    ) -> torch.Tensor:
        """Mean squared error of the student's clean latents, weighted by the signal-to-noise ratio, 1 at least."""
        timesteps = self.timesteps[:, 0].to(noisy.device)[steps]
        error = (self.clean(prediction.float(), noisy, timesteps) - target).square().flatten(1).mean(dim=1)
        signal, noise = self.levels(timesteps)
        return ((signal / noise).square().clamp(min=1).flatten() * error).mean()
