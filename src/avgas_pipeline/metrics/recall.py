"""R@K*: whether the classes of a soundscape are among the K that an image most looks like."""

from typing import Any

import torch

from .base import SoundscapeMetric, check_scores


MODES = ("strict", "any", "mean")


def recall_at_k(
    scores: torch.Tensor, target: torch.Tensor, top_k: int | None = 2, mode: str = "strict"
) -> torch.Tensor:
    r"""
    R@K*: with Y the n true classes, and TopK the K classes with the highest scores,

    - `"strict"`: whether \( Y \subseteq TopK \), 0 or 1;
    - `"any"`: whether \( Y \cap TopK \ne \emptyset \), 0 or 1;
    - `"mean"`: \( |Y \cap TopK| / n \).

    With one class all three are plain R@K, as in Sound2Scene. On random scores, n = K = 2 of C = 50 classes gives
    0.08 %, 7.9 % and 4 %. AV-GAS (arXiv 2504.18283) reports an R@K* for mixtures whose formula is not public; these
    definitions are ours, and `"strict"` is what we mean where nothing else is said.

    A class is in TopK if fewer than K others score as much or more, so that ties count against an image.

    Args:
        scores (`torch.Tensor` of shape `(N, C)`): A judge's class scores.
        target (`torch.Tensor` of shape `(N, C)`): True, or 1, for the classes in the soundscape.
        top_k (`int`, *optional*, defaults to 2): K, from 1 to C; with `"strict"` at least n. `None` is n, each
            soundscape's own.
        mode (`str`, defaults to `"strict"`): `"strict"`, `"any"` or `"mean"`.

    Returns:
        `torch.Tensor` of shape `(N,)`, float64, in [0, 1].

    Raises:
        ValueError: If shapes do not fit, a soundscape has no class, or K is out of range.
    """
    check_scores(scores, target)
    if mode not in MODES:
        raise ValueError(f"`mode` has to be one of {MODES} but is {mode!r}.")
    target = target.bool()
    num_classes = target.sum(dim=1)
    if top_k is not None and not 1 <= top_k <= scores.shape[1]:
        raise ValueError(f"`top_k` has to be from 1 to the number of classes, {scores.shape[1]}, but is {top_k}.")
    if mode == "strict" and top_k is not None and int(num_classes.max()) > top_k:
        raise ValueError(
            f"Strict R@{top_k}* is not defined for a soundscape with {int(num_classes.max())} classes: K has to be at"
            " least their number."
        )
    # How many others score as much or more.
    rank = (scores[:, None, :] >= scores[:, :, None]).sum(dim=2) - 1
    highest = num_classes if top_k is None else torch.full_like(num_classes, top_k)
    hits = ((rank < highest[:, None]) & target).sum(dim=1)
    if mode == "strict":
        return (hits == num_classes).double()
    return (hits > 0).double() if mode == "any" else hits.double() / num_classes


class RecallAtK(SoundscapeMetric):
    """
    R@K*, the mean of [`recall_at_k`] over soundscapes; `compute()` in [0, 1], higher is better.

    Args:
        top_k (`int`, *optional*, defaults to 2): K; `None` is each soundscape's own number of classes.
        mode (`str`, defaults to `"strict"`): `"strict"` (R@K*), `"any"` or `"mean"`.
        kwargs (`Any`): Of `torchmetrics.Metric`.

    >>> import torch
    >>> metric = RecallAtK(top_k=2)
    >>> metric.update(torch.tensor([[0.9, 0.8, 0.1], [0.9, 0.1, 0.8]]), torch.tensor([[1, 1, 0], [1, 1, 0]]))
    >>> metric.compute().item()
    0.5
    """

    def __init__(self, top_k: int | None = 2, mode: str = "strict", **kwargs: Any) -> None:
        if mode not in MODES:
            raise ValueError(f"`mode` has to be one of {MODES} but is {mode!r}.")
        super().__init__(**kwargs)
        self.top_k = top_k
        self.mode = mode

    def update(self, scores: torch.Tensor, target: torch.Tensor) -> None:
        """Take in a batch: `(N, C)` both."""
        self.add(recall_at_k(scores, target, self.top_k, self.mode))


class LabelAccuracy(RecallAtK):
    """
    Label accuracy of images (AIC in SonicDiffusion, arXiv 2405.00878, where the judge is CLIP ViT-L/14): whether the
    class with the highest score is one of the true ones. With one class it is plain top-1 accuracy.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(top_k=1, mode="any", **kwargs)
