"""Where each source stands in a picture composed of several: rows of boxes whose areas follow their weights."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F


# Left, top, right and bottom, as shares of the picture's width and height.
Box = tuple[float, float, float, float]

# More would be too small to be recognised.
MOST_PLACED = 8
# In [-1, 1].
WHITE = 1.0


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


def compose(images: torch.Tensor, boxes: Sequence[Box]) -> torch.Tensor:
    """
    One picture of several, each as large as its box allows and in its middle, on white.

    Args:
        images (`torch.Tensor` of shape `(N, C, H, W)`): In [-1, 1].
        boxes (`Sequence[Box]`): One for each, which do not overlap.

    Returns:
        `torch.Tensor` of shape `(C, H, W)`, in [-1, 1].
    """
    height, width = images.shape[-2:]
    picture = torch.full_like(images[0], WHITE)
    for image, (left, top, right, bottom) in zip(images, boxes, strict=True):
        edges = (round(left * width), round(top * height), round(right * width), round(bottom * height))
        scale = min((edges[2] - edges[0]) / width, (edges[3] - edges[1]) / height)
        if scale <= 0:
            # Smaller than a pixel.
            continue
        size = (max(round(height * scale), 1), max(round(width * scale), 1))
        if size != (height, width):
            # Interpolation is not made for all half-precision types on all devices.
            small = F.interpolate(image[None].float(), size=size, mode="bicubic", antialias=True)[0]
            image = small.clamp(-1, 1).to(image.dtype)
        first = (edges[0] + edges[2] - size[1]) // 2, (edges[1] + edges[3] - size[0]) // 2
        picture[:, first[1] : first[1] + size[0], first[0] : first[0] + size[1]] = image
    return picture
