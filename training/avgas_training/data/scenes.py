"""Scenes composed from pictures with transparency, without end: what the judge and the autoencoder learn from."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageEnhance
import PIL.ImageFilter
import torch
from torch.utils.data import Dataset

from avgas_pipeline.data.scenes import collage, compose_scene, open_picture


LAYOUTS = ("compose", "collage", "either")


class SceneDataset(Dataset):
    """
    Scenes of a few objects with distinct labels on random backgrounds; scene `index` depends on `(seed, index)` alone.

    Objects are drawn by label, then source group, so that labels and variants of one picture count alike.

    Args:
        pictures (`Sequence[Mapping]`): Rows with `label`, `source_group` and `image` (RGBA).
        labels (`Sequence[str]`): All labels, in the order of the targets.
        num_scenes (`int`): Length of the dataset.
        seed (`int`, defaults to 0): Of the whole sequence.
        image_size (`int`, defaults to 128): Side of a scene, in pixels.
        num_objects (`tuple[int, int]`, defaults to `(1, 3)`): Fewest and most objects.
        layout (`str`, defaults to `"compose"`): `"compose"` (at random places on a random background) or `"collage"`
            (side by side on white, as avgas-mini draws), or `"either"`, half of the scenes each.
        augment (`bool`, defaults to `False`): Vary every object's orientation, proportions and colours.
        degrade (`bool`, defaults to `False`): Blur, pixelate, compress and shade scenes, as generated ones may be.
    """

    def __init__(
        self,
        pictures: Sequence[Mapping[str, Any]],
        labels: Sequence[str],
        num_scenes: int,
        seed: int = 0,
        image_size: int = 128,
        num_objects: tuple[int, int] = (1, 3),
        layout: str = "compose",
        augment: bool = False,
        degrade: bool = False,
    ) -> None:
        self.num_scenes = num_scenes
        self.seed = seed
        self.image_size = image_size
        self.num_objects = num_objects
        if layout not in LAYOUTS:
            raise ValueError(f"layout has to be one of {', '.join(LAYOUTS)} but is {layout!r}.")
        self.layout = layout
        self.augment = augment
        self.degrade = degrade
        self.num_labels = len(labels)
        # For every label its source groups, and for every group its pictures.
        self._objects: list[dict[str, list[PIL.Image.Image]]] = [{} for _ in labels]
        numbers = {label: number for number, label in enumerate(labels)}
        for row in pictures:
            picture = open_picture(row["image"]).convert("RGBA")
            # No object is drawn larger than the scene, so that larger pictures only cost time.
            picture.thumbnail((image_size, image_size))
            self._objects[numbers[row["label"]]].setdefault(row["source_group"], []).append(picture)
        self._drawable = [number for number, groups in enumerate(self._objects) if groups]

    def __len__(self) -> int:
        return self.num_scenes

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """`pixel_values` `(3, H, W)` in [-1, 1], and `labels` `(num_labels,)`: 1 for those in the scene, else 0."""
        image, chosen = self.scene(index)
        labels = torch.zeros(self.num_labels)
        labels[chosen] = 1.0
        pixels = torch.from_numpy(np.asarray(image, dtype=np.float32)).permute(2, 0, 1)
        return {"pixel_values": pixels / 127.5 - 1.0, "labels": labels}

    def scene(self, index: int) -> tuple[PIL.Image.Image, list[int]]:
        """A scene (RGB) and the numbers of its labels."""
        rng = np.random.default_rng([self.seed, index])
        count = int(rng.integers(self.num_objects[0], self.num_objects[1] + 1))
        chosen = rng.choice(self._drawable, size=count, replace=False).tolist()
        objects = [self._draw_object(number, rng) for number in chosen]
        layout = self.layout if self.layout != "either" else LAYOUTS[int(rng.integers(2))]
        if layout == "collage" and objects:
            image = collage(objects, self.image_size)
        else:
            image = compose_scene(objects, self.image_size, rng)[0]
        return (degrade(image, rng) if self.degrade else image), chosen

    def _draw_object(self, label: int, rng: np.random.Generator) -> PIL.Image.Image:
        groups = list(self._objects[label].values())
        group = groups[int(rng.integers(len(groups)))]
        picture = group[int(rng.integers(len(group)))]
        return vary_object(picture, rng) if self.augment else picture


def vary_object(picture: PIL.Image.Image, rng: np.random.Generator) -> PIL.Image.Image:
    """The same object seen a little differently: mirrored, tilted, stretched, in other light."""
    if rng.random() < 0.5:
        picture = picture.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT)
    if rng.random() < 0.5:
        picture = picture.rotate(rng.uniform(-15, 15), PIL.Image.Resampling.BILINEAR, expand=True)
    if rng.random() < 0.5:
        width, height = (max(round(edge * rng.uniform(0.85, 1.15)), 4) for edge in picture.size)
        picture = picture.resize((width, height))
    alpha = picture.getchannel("A")
    colours = picture.convert("RGB")
    for enhancer in (PIL.ImageEnhance.Brightness, PIL.ImageEnhance.Contrast, PIL.ImageEnhance.Color):
        if rng.random() < 0.5:
            colours = enhancer(colours).enhance(rng.uniform(0.7, 1.3))
    colours.putalpha(alpha)
    return colours


def degrade(image: PIL.Image.Image, rng: np.random.Generator) -> PIL.Image.Image:
    """Faults that generated pictures have: softness, lost detail, compression, noise."""
    size = image.size
    kind = rng.choice(["none", "blur", "pixelate", "compress", "noise"], p=[0.3, 0.25, 0.2, 0.15, 0.1])
    if kind == "blur":
        return image.filter(PIL.ImageFilter.GaussianBlur(rng.uniform(0.3, 2.0)))
    if kind == "pixelate":
        side = round(size[0] * rng.uniform(0.3, 0.8))
        return image.resize((side, side), PIL.Image.Resampling.BOX).resize(size, PIL.Image.Resampling.BICUBIC)
    if kind == "compress":
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=int(rng.integers(15, 70)))
        return PIL.Image.open(buffer).convert("RGB")
    if kind == "noise":
        pixels = np.asarray(image, dtype=np.float32)
        pixels = pixels + rng.normal(0, rng.uniform(4, 16), pixels.shape)
        return PIL.Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    return image
