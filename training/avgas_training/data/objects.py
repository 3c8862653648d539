"""Pictures of one object each, on white, without end."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from avgas_pipeline.data.scenes import collage, open_picture


class ObjectDataset(Dataset):
    """
    Pictures of labels, drawn evenly: a label, one of its source groups, one of its pictures; picture
    `index % num_examples` depends on `(seed, index)` alone.

    Args:
        pictures (`Sequence[Mapping]`): Rows with `label`, `source_group` and `image` (RGBA).
        labels (`Sequence[str]`): All labels, in the order of the model's.
        num_examples (`int`): How many different pictures there are.
        length (`int`): How many are asked for in all.
        seed (`int`, defaults to 0): Of the whole sequence.
        image_size (`int`, defaults to 256): Side, in pixels.
    """

    def __init__(
        self,
        pictures: Sequence[Mapping[str, Any]],
        labels: Sequence[str],
        num_examples: int,
        length: int,
        seed: int = 0,
        image_size: int = 256,
    ) -> None:
        self.num_examples = num_examples
        self.length = length
        self.seed = seed
        self.image_size = image_size
        numbers = {label: number for number, label in enumerate(labels)}
        self._objects: dict[int, dict[str, list[Any]]] = {}
        for row in pictures:
            if row["label"] in numbers:
                groups = self._objects.setdefault(numbers[row["label"]], {})
                groups.setdefault(row["source_group"], []).append(row["image"])
        self.drawable = sorted(self._objects)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """`pixel_values` `(3, H, W)` in [-1, 1], and the `label`'s number, `()`."""
        rng = np.random.default_rng([self.seed, index % self.num_examples])
        label = self.drawable[int(rng.integers(len(self.drawable)))]
        groups = list(self._objects[label].values())
        group = groups[int(rng.integers(len(groups)))]
        picture = group[int(rng.integers(len(group)))]
        image = collage([open_picture(picture).convert("RGBA")], self.image_size)
        pixels = torch.from_numpy(np.asarray(image, dtype=np.float32)).permute(2, 0, 1) / 127.5 - 1.0
        return {"pixel_values": pixels, "label": torch.tensor(label)}
