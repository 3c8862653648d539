"""Where each source stands in a picture of several: rows of boxes whose areas follow the sources' weights."""

import math
from collections.abc import Sequence

import torch


# Left, top, right and bottom, as shares of the picture's width and height.
Box = tuple[float, float, float, float]

# More would be too small to be recognised.
MOST_PLACED = 8
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


def place_sources(weights: Sequence[float]) -> list[Box]:
    """
    Boxes that fill the picture without overlap, in rows from the top, each from the left: for N sources as many
    columns as the root of N, rounded up. A box's share of the picture's area is its share of the weights.

    Args:
        weights (`Sequence[float]`): Of the sources, above 0; from 1 to 8 of them.

    Raises:
        ValueError: If there are none or too many, or if a weight is not above 0.
    """
    if not 1 <= len(weights) <= MOST_PLACED:
        raise ValueError(f"A picture has room for 1 to {MOST_PLACED} sources, not {len(weights)}.")
    if not all(math.isfinite(weight) and weight > 0 for weight in weights):
        raise ValueError(f"Weights of sources in a picture have to be above 0 but are {list(weights)}.")
    columns = math.ceil(math.sqrt(len(weights)))
    rows = [weights[start : start + columns] for start in range(0, len(weights), columns)]
    total = sum(weights)
    boxes, top = [], 0.0
    for row in rows:
        height, left = sum(row) / total, 0.0
        for weight in row:
            width = weight / sum(row)
            boxes.append((left, top, left + width, top + height))
            left += width
        top += height
    return boxes


def box_features(boxes: torch.Tensor, num_channels: int) -> torch.Tensor:
    """
    Sines and cosines of boxes' centres and sizes, in octaves, as NeRF and GLIGEN (arXiv 2301.07093) encode places.

    Args:
        boxes (`torch.Tensor` of shape `(..., 4)`): As of [`place_sources`].
        num_channels (`int`): A multiple of 8.

    Returns:
        `torch.Tensor` of shape `(..., num_channels)`, in [-1, 1].
    """
    left, top, right, bottom = boxes.unbind(dim=-1)
    values = torch.stack([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top], dim=-1)
    octaves = 2.0 ** torch.arange(num_channels // 8, device=boxes.device, dtype=boxes.dtype)
    angles = (values[..., None] * octaves * math.pi).flatten(-2)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
