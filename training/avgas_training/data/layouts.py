"""Pictures of one object and more, each in the box that the pipeline gives a source, without end."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch.utils.data import Dataset

from avgas_pipeline.data.scenes import lay_out, open_picture
from avgas_pipeline.layout import MOST_PLACED, place_sources


# How often a picture has so many objects: mostly as many as recordings have sources.
COUNT_WEIGHTS = (0.4, 0.28, 0.14, 0.06, 0.03, 0.03, 0.03, 0.03)
# Of how many pictures all objects have the same weight; in the others they are from 1/4 to 2, as people set them.
EVEN_FRACTION = 0.6
WEIGHT_RANGE = (0.25, 2.0)


class LayoutDataset(Dataset):
    """
    Pictures of distinct labels, each object in the box of its source; picture `index % num_examples` depends on
    `(seed, index)` alone.

    Args:
        pictures (`Sequence[Mapping]`): Rows with `label`, `source_group` and `image` (RGBA).
        labels (`Sequence[str]`): All labels, in the order of the model's.
        num_examples (`int`): How many different pictures there are.
        length (`int`): How many are asked for in all.
        seed (`int`, defaults to 0): Of the whole sequence.
        image_size (`int`, defaults to 256): Side, in pixels.
        augment (`bool`, defaults to `True`): Mirror half of the objects.
    """

    def __init__(
        self,
        pictures: Sequence[Mapping[str, Any]],
        labels: Sequence[str],
        num_examples: int,
        length: int,
        seed: int = 0,
        image_size: int = 256,
        augment: bool = True,
    ) -> None:
        self.num_examples = num_examples
        self.length = length
        self.seed = seed
        self.image_size = image_size
        self.augment = augment
        numbers = {label: number for number, label in enumerate(labels)}
        self._objects: dict[int, dict[str, list[PIL.Image.Image]]] = {}
        for row in pictures:
            if row["label"] in numbers:
                groups = self._objects.setdefault(numbers[row["label"]], {})
                groups.setdefault(row["source_group"], []).append(open_picture(row["image"]).convert("RGBA"))
        self.drawable = sorted(self._objects)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """
        `pixel_values` `(3, H, W)` in [-1, 1]; `labels` `(8,)`, -1 for none; `boxes` `(8, 4)`, as shares of the sides.
        """
        image, chosen, boxes = self.scene(index % self.num_examples)
        labels = torch.full((MOST_PLACED,), -1)
        labels[: len(chosen)] = torch.tensor(chosen)
        places = torch.zeros(MOST_PLACED, 4)
        places[: len(boxes)] = torch.tensor(boxes)
        pixels = torch.from_numpy(np.asarray(image, dtype=np.float32)).permute(2, 0, 1) / 127.5 - 1.0
        return {"pixel_values": pixels, "labels": labels, "boxes": places}

    def scene(self, index: int) -> tuple[PIL.Image.Image, list[int], list[tuple[float, float, float, float]]]:
        """A picture (RGB), the numbers of its labels, and their boxes."""
        rng = np.random.default_rng([self.seed, index])
        count = min(int(rng.choice(MOST_PLACED, p=COUNT_WEIGHTS)) + 1, len(self.drawable))
        chosen = rng.choice(self.drawable, size=count, replace=False).tolist()
        weights = [1.0] * count
        if rng.random() >= EVEN_FRACTION:
            weights = np.exp(rng.uniform(*np.log(WEIGHT_RANGE), size=count)).tolist()
        boxes = place_sources(weights)
        return lay_out([self._draw(label, rng) for label in chosen], boxes, self.image_size), chosen, boxes

    def _draw(self, label: int, rng: np.random.Generator) -> PIL.Image.Image:
        groups = list(self._objects[label].values())
        group = groups[int(rng.integers(len(groups)))]
        picture = group[int(rng.integers(len(group)))]
        mirrored = self.augment and rng.random() < 0.5
        return picture.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else picture
