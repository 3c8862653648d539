"""CRS: how well, and how evenly, one image represents all classes of a soundscape."""

from typing import Any

import torch

from .base import SoundscapeMetric, check_scores, check_shapes


def class_representation_score(class_mass: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    r"""
    CRS as balanced class mass: \( n (\prod_{c \in Y} p(c))^{1/n} \), n times the geometric mean of the mass a judge
    gives to the n true classes Y.

    1 if all mass is on the true classes and evenly spread, 0 if any of them has none. With one class it is that
    class's mass, p(c). The name and purpose are AV-GAS's (arXiv 2504.18283); its formula is not public, so this
    definition is ours.

    Args:
        class_mass (`torch.Tensor` of shape `(N, C)`): From a judge: at least 0, and at most 1 over all classes.
        target (`torch.Tensor` of shape `(N, C)`): True, or 1, for the classes in the soundscape.

    Returns:
        `torch.Tensor` of shape `(N,)`, float64, in [0, 1].

    Raises:
        ValueError: If shapes do not fit, a soundscape has no class, or mass is negative or above 1 in sum.
    """
    check_scores(class_mass, target)
    mass, target = class_mass.double(), target.bool()
    if not bool((mass >= 0).all()) or not bool((mass.sum(dim=1) <= 1 + 1e-4).all()):
        raise ValueError("Class mass has to be at least 0, and at most 1 over all classes.")
    num_classes = target.sum(dim=1)
    log_mass = mass.log().masked_fill(~target, 0.0).sum(dim=1)
    return num_classes * (log_mass / num_classes).exp()


def class_similarity(scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """
    CRS-sim: the mean of the judge's scores of the true classes; with CLIP the plain CLIP score per class (Hessel et
    al., arXiv 2104.08718), averaged. The definition is ours.

    Args:
        scores (`torch.Tensor` of shape `(N, C)`): A judge's class scores: cosines in [-1, 1] with CLIP, probabilities
            with a classifier.
        target (`torch.Tensor` of shape `(N, C)`): True, or 1, for the classes in the soundscape.

    Returns:
        `torch.Tensor` of shape `(N,)`, float64, in the scores' range. With one class it is that class's score.
    """
    check_scores(scores, target)
    target = target.bool()
    return scores.double().masked_fill(~target, 0.0).sum(dim=1) / target.sum(dim=1)


def class_coverage(scores: torch.Tensor, target: torch.Tensor, thresholds: torch.Tensor) -> torch.Tensor:
    """
    CRS-cov: the share of the true classes whose score exceeds the class's own threshold, as
    [`coverage_thresholds`] finds it on real images. It does not depend on a softmax's temperature. The definition is
    ours.

    Args:
        scores (`torch.Tensor` of shape `(N, C)`): A judge's class scores.
        target (`torch.Tensor` of shape `(N, C)`): True, or 1, for the classes in the soundscape.
        thresholds (`torch.Tensor` of shape `(C,)`): Per class.

    Returns:
        `torch.Tensor` of shape `(N,)`, float64, in [0, 1]. With one class it is 0 or 1.
    """
    check_scores(scores, target)
    target = target.bool()
    return ((scores > thresholds) & target).sum(dim=1).double() / target.sum(dim=1)


def coverage_thresholds(scores: torch.Tensor, target: torch.Tensor, false_positive_rate: float = 0.05) -> torch.Tensor:
    """
    For every class the score that a given share of real images without the class exceeds.

    Args:
        scores (`torch.Tensor` of shape `(N, C)`): A judge's scores of real images.
        target (`torch.Tensor` of shape `(N, C)`): True, or 1, for the classes the images show.
        false_positive_rate (`float`, defaults to 0.05): In (0, 1).

    Returns:
        `torch.Tensor` of shape `(C,)`, float64.

    Raises:
        ValueError: If shapes do not fit, or every image shows some class, so that it can't be calibrated.
    """
    check_shapes(scores, target)
    thresholds = []
    for number in range(scores.shape[1]):
        without = scores[~target[:, number].bool(), number].double()
        if not len(without):
            raise ValueError(f"Class {number} can't be calibrated: every real image shows it.")
        thresholds.append(torch.quantile(without, 1 - false_positive_rate, interpolation="higher"))
    return torch.stack(thresholds)


class ClassRepresentationScore(SoundscapeMetric):
    """
    CRS, the mean of [`class_representation_score`] over soundscapes; `compute()` in [0, 1], higher is better. Papers
    print it times 100.

    >>> import torch
    >>> metric = ClassRepresentationScore()
    >>> metric.update(torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]), torch.tensor([[1, 1, 0], [1, 1, 0]]))
    >>> round(metric.compute().item(), 6)
    0.5
    >>> [round(value, 6) for value in metric.values.tolist()]
    [1.0, 0.0]
    """

    def update(self, class_mass: torch.Tensor, target: torch.Tensor) -> None:
        """Take in a batch: `(N, C)` both."""
        self.add(class_representation_score(class_mass, target))


class ClassSimilarity(SoundscapeMetric):
    """CRS-sim, the mean of [`class_similarity`] over soundscapes; higher is better."""

    def update(self, scores: torch.Tensor, target: torch.Tensor) -> None:
        """Take in a batch: `(N, C)` both."""
        self.add(class_similarity(scores, target))


class ClassCoverage(SoundscapeMetric):
    """
    CRS-cov, the mean of [`class_coverage`] over soundscapes; `compute()` in [0, 1], higher is better.

    Args:
        thresholds (`torch.Tensor` of shape `(C,)`): From [`coverage_thresholds`].
        kwargs (`Any`): Of `torchmetrics.Metric`.
    """

    def __init__(self, thresholds: torch.Tensor, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.thresholds = thresholds

    def update(self, scores: torch.Tensor, target: torch.Tensor) -> None:
        """Take in a batch: `(N, C)` both."""
        self.add(class_coverage(scores, target, self.thresholds.to(scores.device)))
