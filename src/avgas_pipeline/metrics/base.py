"""What most of the metrics are: a mean over soundscapes."""

from collections.abc import Callable
from typing import Any

import torch
from torchmetrics import Metric


class SoundscapeMean(Metric):
    """
    The mean of one value per soundscape; soundscapes for which the value is not defined (NaN) do not count.

    Args:
        functional (`Callable`): Gives the values `(N,)` of a batch of N soundscapes.
        kwargs (`Any`): Of `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better: bool | None = True
    full_state_update = False

    def __init__(self, functional: Callable[..., torch.Tensor], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._functional = functional
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Take in a batch of soundscapes; arguments are those of the functional form."""
        values = self._functional(*args, **kwargs)
        defined = ~values.isnan()
        self.total += values[defined].sum()
        self.count += defined.sum()

    def compute(self) -> torch.Tensor:
        """The mean; NaN before any soundscape for which the value is defined."""
        return self.total / self.count


def check_shapes(scores: torch.Tensor, target: torch.Tensor) -> None:
    """
    Raises:
        ValueError: If scores and targets are not both `(N, C)`, or scores are not finite.
    """
    if scores.ndim != 2 or scores.shape != target.shape:
        raise ValueError(
            f"Scores and targets have to be of one shape, (images, classes), but are {tuple(scores.shape)} and"
            f" {tuple(target.shape)}."
        )
    if not bool(scores.isfinite().all()):
        raise ValueError("Scores have to be finite.")


def check_scores(scores: torch.Tensor, target: torch.Tensor) -> None:
    """
    Raises:
        ValueError: If scores and targets are not both `(N, C)`, scores are not finite, or a soundscape has no class.
    """
    check_shapes(scores, target)
    if not target.bool().any(dim=1).all():
        raise ValueError("Every soundscape needs at least one true class.")
