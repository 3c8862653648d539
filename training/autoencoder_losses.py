"""What an autoencoder for small pictures is trained on, without a pretrained perceptual network."""

import torch
import torch.nn.functional as F
from torch import nn


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


class PatchDiscriminator(nn.Sequential):
    """
    PatchGAN (Isola et al., arXiv 1611.07004): real or not, for every patch of a picture.

    Args:
        channels (`int`, defaults to 32): Of the first layer; doubled twice.
    """

    def __init__(self, channels: int = 32) -> None:
        super().__init__(
            nn.Conv2d(3, channels, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels, 2 * channels, 4, stride=2, padding=1),
            nn.GroupNorm(8, 2 * channels),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * channels, 4 * channels, 4, stride=2, padding=1),
            nn.GroupNorm(8, 4 * channels),
            nn.LeakyReLU(0.2),
            nn.Conv2d(4 * channels, 1, 3, padding=1),
        )


def discriminator_loss(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """Hinge loss (Lim and Ye, arXiv 1705.02894) on a discriminator's outputs."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
