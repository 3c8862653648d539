"""Whether separated images show one class each, all of them, and nothing else."""

from collections.abc import Sequence

import torch
from scipy.optimize import linear_sum_assignment

from .base import SoundscapeMetric, SoundscapeMetrics


def separation_recall(class_mass: torch.Tensor, target: torch.Tensor) -> dict[str, float]:
    r"""
    Match the m separated images of one soundscape to its n true classes Y by the Hungarian algorithm, so that the
    images' mass on their classes is largest in sum, and say how good the match is:

    - `sep_recall` (Sep-R@1): the share of true classes whose image has them as its highest class, strictly; a class
      without an image is not found;
    - `sep_all` (Sep-all): 1 if all are found and there is no further image, otherwise 0;
    - `leakage`: the mean over matched images of the mass on the *other* true classes; NaN for one class;
    - `duplicates`: \( (m - d) / (m - 1) \) where d is the number of different highest classes: 0 if every image
      shows another class, 1 if all show the same (or nothing in particular); NaN for one image.

    With one class and one image, `sep_recall` and `sep_all` are top-1 accuracy. The task is AV-GAS's second (arXiv
    2504.18283); the definitions are ours.

    Args:
        class_mass (`torch.Tensor` of shape `(m, C)`): A judge's class mass of the separated images; m may be 0.
        target (`torch.Tensor` of shape `(C,)`): True, or 1, for the classes in the soundscape.

    Returns:
        `dict[str, float]`: in [0, 1], or NaN where not defined.

    Raises:
        ValueError: If shapes do not fit, or there is no true class.
    """
    classes = target.bool().nonzero().flatten()
    if class_mass.ndim != 2 or target.shape != class_mass.shape[1:]:
        raise ValueError(
            f"Class mass has to be (images, classes) and the target (classes,), but they are"
            f" {tuple(class_mass.shape)} and {tuple(target.shape)}."
        )
    if not len(classes):
        raise ValueError("Every soundscape needs at least one true class.")
    if not len(class_mass):
        return {"sep_recall": 0.0, "sep_all": 0.0, "leakage": float("nan"), "duplicates": float("nan")}

    mass = class_mass.detach().double().cpu()
    classes = classes.cpu()
    on_classes = mass[:, classes]
    images, matched = linear_sum_assignment(on_classes.numpy(), maximize=True)
    highest = highest_class(mass)
    found = sum(int(highest[image] == classes[number]) for image, number in zip(images, matched, strict=True))
    others = on_classes[images].sum(dim=1) - on_classes[images, matched]
    num_images = len(mass)
    repeated = num_images - len(highest.unique())
    return {
        "sep_recall": found / len(classes),
        "sep_all": float(found == len(classes) == num_images),
        "leakage": float(others.mean()) if len(classes) > 1 else float("nan"),
        "duplicates": repeated / (num_images - 1) if num_images > 1 else float("nan"),
    }


def highest_class(scores: torch.Tensor) -> torch.Tensor:
    """Index `(m,)` of the one class that scores above all others in `(m, C)`; -1 where several share the highest."""
    top = scores.amax(dim=1, keepdim=True)
    return scores.argmax(dim=1).where((scores == top).sum(dim=1) == 1, -1)


def own_label_accuracy(class_mass: torch.Tensor, classes: torch.Tensor) -> float:
    """
    The share of one soundscape's separated images whose highest class is the one their source was given, right or
    wrong: whether an image shows what the model recognised.

    Args:
        class_mass (`torch.Tensor` of shape `(m, C)`): A judge's class mass of the separated images.
        classes (`torch.Tensor` of shape `(m,)`): Class that each image's source was given; -1 for one that the judge
            does not know.

    Returns:
        `float`: in [0, 1]; NaN without images.

    Raises:
        ValueError: If there are not as many classes as images.
    """
    if classes.shape != class_mass.shape[:1]:
        raise ValueError(f"{len(class_mass)} images need as many classes, but there are {len(classes)}.")
    return float(((highest_class(class_mass) == classes) & (classes >= 0)).double().mean())


class SeparationRecall(SoundscapeMetrics):
    """
    The means of [`separation_recall`]'s values over soundscapes for which they are defined: `compute()` gives a dict
    of `sep_recall`, `sep_all` (higher is better), `leakage` and `duplicates` (lower).
    """

    names = ("sep_recall", "sep_all", "leakage", "duplicates")

    def update(self, class_mass: Sequence[torch.Tensor], target: torch.Tensor) -> None:
        """Take in a batch of N soundscapes: an `(m, C)` tensor for each, and their targets `(N, C)`."""
        for mass, classes in zip(class_mass, target, strict=True):
            self.add(separation_recall(mass, classes))


class OwnLabelAccuracy(SoundscapeMetric):
    """The mean of [`own_label_accuracy`] over soundscapes; `compute()` in [0, 1], higher is better."""

    def update(self, class_mass: Sequence[torch.Tensor], classes: Sequence[torch.Tensor | None]) -> None:
        """Take in a batch of soundscapes: for each an `(m, C)` tensor, and `(m,)` classes or `None` without labels."""
        for mass, own in zip(class_mass, classes, strict=True):
            accuracy = float("nan") if own is None else own_label_accuracy(mass, own)
            self.add(torch.tensor([accuracy], dtype=torch.float64))
