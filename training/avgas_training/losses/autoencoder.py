"""Losses of an autoencoder for small pictures, without a pretrained perceptual network."""

import torch
import torch.nn.functional as F


def multiscale_mse(reconstruction: torch.Tensor, target: torch.Tensor, num_scales: int = 5) -> torch.Tensor:
    """
    Mean squared error at full, half, quarter … size, added up: coarse colours are learned from the first steps on.
    (Absolute errors are smallest at medians, and leave pictures grey for thousands of steps.)

    Args:
        reconstruction (`torch.Tensor` of shape `(B, 3, H, W)`): In [-1, 1].
        target (`torch.Tensor` of shape `(B, 3, H, W)`): In [-1, 1].
        num_scales (`int`, defaults to 5): How many sizes.
    """
    error = reconstruction - target
    loss = error.square().mean()
    for _ in range(num_scales - 1):
        error = F.avg_pool2d(error, 2)
        loss = loss + error.square().mean()
    return loss


def edge_l1(reconstruction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean absolute error of pixels and of the differences between neighbouring ones, which keeps edges sharp."""
    error = reconstruction - target
    return error.abs().mean() + error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
