"""Pictures that no system drew, with which every table is anchored: what a metric gives to known good and bad."""

from collections.abc import Iterator

import numpy as np
import PIL.Image

from ..data.scenes import collage, compose_scene
from .soundscapes import MixtureSet


# What CRS and R@K* have to tell apart, the best first.
ANCHORS = ("real scene", "collage", "single class", "random classes")


def anchor_images(dataset: MixtureSet, size: int) -> dict[str, list[PIL.Image.Image]]:
    """
    For every mixture a picture of each kind, from the sources' real pictures:

    - `real scene`: all objects composed to one scene; only where pictures have transparency;
    - `collage`: all pictures side by side;
    - `single class`: one of the sources alone, as the sources take turns;
    - `random classes`: as many other classes (or as many as there are), none of them in the mixture.

    Args:
        dataset ([`MixtureSet`]): With pictures.
        size (`int`): Side, in pixels.
    """
    pictures = [dataset[number].pictures for number in range(len(dataset))]
    transparent = all(picture.mode == "RGBA" for group in pictures for picture in group)
    images: dict[str, list[PIL.Image.Image]] = {}
    for name in ANCHORS:
        if name == "real scene" and not transparent:
            continue
        images[name] = list(_draw_anchors(name, dataset, pictures, size, transparent))
    return images


def _draw_anchors(
    name: str, dataset: MixtureSet, pictures: list[list[PIL.Image.Image]], size: int, transparent: bool
) -> Iterator[PIL.Image.Image]:
    for number, own in enumerate(pictures):
        # Other compositions than the references', which the same seed alone gives.
        rng = np.random.default_rng([dataset.plans[number].scene_seed, 1 + ANCHORS.index(name)])
        if name == "collage":
            yield collage(own, size)
            continue
        chosen = own
        if name == "single class":
            chosen = [own[number % len(own)]]
        elif name == "random classes":
            chosen = _other_classes(dataset, pictures, number, rng)
        yield compose_scene(chosen, size, rng)[0] if transparent else collage(chosen, size)


def _other_classes(
    dataset: MixtureSet, pictures: list[list[PIL.Image.Image]], number: int, rng: np.random.Generator
) -> list[PIL.Image.Image]:
    """Pictures of other mixtures' sources, of classes that this one does not have, all different."""
    taken = set(dataset.true_labels(number))
    chosen: list[PIL.Image.Image] = []
    for other in rng.permutation(len(pictures)):
        for label, picture in zip(dataset.true_labels(other), pictures[other], strict=True):
            if label not in taken:
                taken.add(label)
                chosen.append(picture)
            if len(chosen) == len(pictures[number]):
                return chosen
    if not chosen:
        raise ValueError("All mixtures have the same classes, so there is no anchor of random ones.")
    return chosen
