"""U-Net and label tokens in one module: what draws labels, without any sound."""

from typing import Any

import torch
from diffusers import UNet2DConditionModel

from avgas_pipeline import AudioVisualSeparator


class DrawingModel(torch.nn.Module):
    """
    A U-Net and the part of a separator that makes tokens of labels, one call a step, as distributed training wants it.

    Args:
        unet (`UNet2DConditionModel`): Predicts the noise.
        separator ([`AudioVisualSeparator`]): Whose label tokens, their norm and null tokens are trained.
    """

    def __init__(self, unet: UNet2DConditionModel, separator: AudioVisualSeparator) -> None:
        super().__init__()
        self.unet = unet
        self.label_tokens = separator.label_tokens
        self.token_norm = separator.token_norm
        self.null_tokens = separator.null_tokens

    def forward(
        self, noisy: torch.Tensor, timesteps: torch.Tensor, labels: torch.Tensor, dropped: torch.Tensor
    ) -> torch.Tensor:
        """
        Args:
            noisy (`torch.Tensor` of shape `(B, C, H, W)`): Latents.
            timesteps (`torch.Tensor` of shape `(B,)`): Their noise levels.
            labels (`torch.Tensor` of shape `(B,)`): Of the objects.
            dropped (`torch.Tensor` of shape `(B,)`): Which rows have the null tokens instead.

        Returns:
            The U-Net's prediction, as `noisy`.
        """
        return self.unet(noisy, timesteps, **self.conditions(labels, dropped), return_dict=False)[0]

    def conditions(self, labels: torch.Tensor, dropped: torch.Tensor) -> dict[str, Any]:
        """What the U-Net gets beside noisy latents; arguments as of `forward`."""
        tokens = self.tokens(labels)
        return {"encoder_hidden_states": torch.where(dropped[:, None, None], self.null_tokens, tokens)}

    def tokens(self, labels: torch.Tensor) -> torch.Tensor:
        """Condition tokens `(B, M, C)` of labels, as the pipeline makes them."""
        weight = self.label_tokens.weight.T[labels]
        return self.token_norm(weight.unflatten(-1, self.null_tokens.shape))
