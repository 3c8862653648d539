"""What most of the metrics are: values per soundscape, and their mean."""

from typing import Any

import torch
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat


STATISTICS = {"mean": torch.nanmean, "median": lambda values: values.nanquantile(0.5)}


class SoundscapeMetric(Metric):
    """
    The mean, or another statistic, of one value per soundscape; values that are not defined (NaN) do not count.

    Subclasses say in `update` what the values are, and hand them to `add`. `compute()` gives the statistic, of all
    processes; it is NaN if no value counts.

    Args:
        kwargs (`Any`): Of `torchmetrics.Metric`.

    Attributes:
        statistic (`str`): `"mean"` or `"median"`.
    """

    is_differentiable = False
    higher_is_better: bool | None = True
    full_state_update = False
    statistic = "mean"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.set_dtype(torch.float64)
        self.add_state("_values", [], dist_reduce_fx="cat")

    def add(self, values: torch.Tensor) -> None:
        """Take in the values `(N,)` of N soundscapes."""
        self._values.append(values.double().to(self.device))

    @property
    def values(self) -> torch.Tensor:
        """The values `(N,)` that this process has taken in, in order, float64."""
        return concatenate(self._values)

    def compute(self) -> torch.Tensor:
        """The statistic of the values."""
        # A quantile of no values is an error.
        return STATISTICS[self.statistic](self.values) if len(self.values) else torch.tensor(float("nan"))


class SoundscapeMetrics(Metric):
    """
    The means of several values per soundscape, by their names; otherwise like [`SoundscapeMetric`].

    Attributes:
        names (`tuple[str, ...]`): Of the values.
    """

    is_differentiable = False
    full_state_update = False
    names: tuple[str, ...] = ()

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.set_dtype(torch.float64)
        for name in self.names:
            self.add_state(f"_{name}", [], dist_reduce_fx="cat")

    def add(self, values: dict[str, float]) -> None:
        """Take in the values of one soundscape."""
        for name in self.names:
            getattr(self, f"_{name}").append(torch.tensor([values[name]], dtype=torch.float64, device=self.device))

    @property
    def values(self) -> dict[str, torch.Tensor]:
        """The values `(N,)` that this process has taken in, in order, float64, by name."""
        return {name: concatenate(getattr(self, f"_{name}")) for name in self.names}

    def compute(self) -> dict[str, torch.Tensor]:
        """The means, by name."""
        return {name: values.nanmean() for name, values in self.values.items()}


def concatenate(state: list[torch.Tensor] | torch.Tensor) -> torch.Tensor:
    """A metric's list of tensors as one, which it is already when processes have been reduced to one."""
    return dim_zero_cat(state) if len(state) else torch.zeros(0, dtype=torch.float64)


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
