"""U-Net and label tokens in one module: what draws labels in their boxes, without any sound."""

import torch
from diffusers import UNet2DConditionModel

from avgas_pipeline import AudioVisualSeparator
from avgas_pipeline.conditioning import with_places


class DrawingModel(torch.nn.Module):
    """
    A U-Net and the part of a separator that makes tokens of labels, one call a step, as distributed training wants it.

    Args:
        unet (`UNet2DConditionModel`): Predicts the noise.
        separator ([`AudioVisualSeparator`]): Whose label tokens, their norm and null tokens are trained.
        layout_channels (`int`): The last channels of tokens, which say where a source stands.
    """

    def __init__(self, unet: UNet2DConditionModel, separator: AudioVisualSeparator, layout_channels: int) -> None:
        super().__init__()
        self.unet = unet
        self.label_tokens = separator.label_tokens
        self.token_norm = separator.token_norm
        self.null_tokens = separator.null_tokens
        self.layout_channels = layout_channels

    def forward(
        self,
        noisy: torch.Tensor,
        timesteps: torch.Tensor,
        labels: torch.Tensor,
        boxes: torch.Tensor,
        dropped: torch.Tensor,
    ) -> torch.Tensor:
        """
        Args:
            noisy (`torch.Tensor` of shape `(B, C, H, W)`): Latents.
            timesteps (`torch.Tensor` of shape `(B,)`): Their noise levels.
            labels (`torch.Tensor` of shape `(B, N)`): Of the objects, -1 for none.
            boxes (`torch.Tensor` of shape `(B, N, 4)`): Where they are, as shares of the sides.
            dropped (`torch.Tensor` of shape `(B,)`): Which rows have the null tokens instead.

        Returns:
            The U-Net's prediction, as `noisy`.
        """
        tokens = self.tokens(labels, boxes)
        tokens = torch.where(dropped[:, None, None, None], self.null_tokens.expand_as(tokens), tokens)
        shown = labels >= 0
        first = torch.zeros_like(shown)
        first[:, 0] = True
        mask = torch.where(dropped[:, None], first, shown)
        return self.unet(
            noisy,
            timesteps,
            encoder_hidden_states=tokens.flatten(1, 2),
            encoder_attention_mask=mask.repeat_interleave(tokens.shape[2], dim=1),
            return_dict=False,
        )[0]

    def tokens(self, labels: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """Condition tokens `(B, N, M, C)` of labels in their boxes, as the pipeline makes them."""
        num_tokens, width = self.null_tokens.shape
        weight = self.label_tokens.weight.T[labels.clamp(min=0)]
        return with_places(self.token_norm(weight.unflatten(-1, (num_tokens, width))), boxes, self.layout_channels)
