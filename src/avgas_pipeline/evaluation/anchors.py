"""Pictures that no system drew, with which every table is anchored: what a metric gives to known good and bad."""

from collections.abc import Sequence

import numpy as np
import PIL.Image

from ..data.scenes import collage, compose_scene
from .soundscapes import MixtureSet


# Of mixed images, what CRS and R@K* have to tell apart, the best first; "single classes" is of separated ones.
ANCHORS = ("real scene", "collage", "single class", "random classes", "single classes")


class Anchors:
    """
    For every mixture of a set, pictures made from its sources' real pictures. Where these have transparency, objects
    are composed to scenes other than the references; photographs are put side by side.

    Args:
        dataset ([`MixtureSet`]): With pictures.
    """

    def __init__(self, dataset: MixtureSet) -> None:
        self.dataset = dataset
        self.pictures = [dataset.pictures(number) for number in range(len(dataset))]
        self.transparent = all(picture.mode == "RGBA" for own in self.pictures for picture in own)

    def mixed(self) -> dict[str, list[PIL.Image.Image]]:
        """
        Anchors of the table of mixed images:

        - `real scene`: all objects in one scene; only with transparency;
        - `collage`: all pictures side by side;
        - `single class`: one of the sources alone, as the sources take turns;
        - `random classes`: as many other classes (or as many as there are), none of them in the mixture.

        An anchor that can't be made for every mixture is left out.
        """
        numbers = range(len(self.pictures))
        others = [self._other_classes(number) for number in numbers]
        with_others = [number for number in numbers if others[number]]
        anchors = {
            "real scene": [self._draw("real scene", number, self.pictures[number]) for number in numbers],
            "collage": [collage(self.pictures[number], self.dataset.image_size) for number in numbers],
            "single class": [self._draw("single class", number, [self._in_turn(number)]) for number in numbers],
            "random classes": [self._draw("random classes", number, others[number]) for number in with_others],
        }
        if not self.transparent:
            del anchors["real scene"]
        if len(with_others) < len(others):
            del anchors["random classes"]
        return anchors

    def separated(self) -> dict[str, list[list[PIL.Image.Image]]]:
        """
        Anchors of the table of separated images: `single classes`, a picture of each source alone, and `real scene`,
        or `collage` without transparency, the picture of all of them given for each.
        """
        whole = self.mixed()
        name = "real scene" if self.transparent else "collage"
        return {
            "single classes": [
                [self._draw("single classes", number, [picture]) for picture in own]
                for number, own in enumerate(self.pictures)
            ],
            name: [[image] * len(own) for image, own in zip(whole[name], self.pictures, strict=True)],
        }

    def _draw(self, name: str, number: int, pictures: Sequence[PIL.Image.Image]) -> PIL.Image.Image:
        if not self.transparent:
            return collage(pictures, self.dataset.image_size)
        # The references' scenes come from the same seed alone.
        rng = np.random.default_rng([self.dataset.plans[number].scene_seed, 1 + ANCHORS.index(name)])
        return compose_scene(pictures, self.dataset.image_size, rng)[0]

    def _in_turn(self, number: int) -> PIL.Image.Image:
        return self.pictures[number][number % len(self.pictures[number])]

    def _other_classes(self, number: int) -> list[PIL.Image.Image]:
        """Pictures of other mixtures' sources, of classes that this one does not have, all different."""
        rng = np.random.default_rng([self.dataset.plans[number].scene_seed, 0, 1])
        taken = set(self.dataset.true_labels(number))
        chosen: list[PIL.Image.Image] = []
        for other in rng.permutation(len(self.pictures)):
            for label, picture in zip(self.dataset.true_labels(other), self.pictures[other], strict=True):
                if label not in taken and len(chosen) < len(self.pictures[number]):
                    taken.add(label)
                    chosen.append(picture)
        return chosen
