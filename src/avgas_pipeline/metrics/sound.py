"""What was heard, against what there was: labels, numbers of sources, presence, separated sound."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torchmetrics import Metric
from torchmetrics.classification import BinaryAveragePrecision
from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio

from .base import SoundscapeMean


# Energy, as a share of the mixture's, that an estimate needs to be more than silence: -80 dB.
SILENT_RATIO = 1e-8
LABEL_NAMES = ("label_recall", "label_any", "label_all", "label_precision")


def label_recall(heard: Sequence[str | None], true: Sequence[str]) -> dict[str, float]:
    """
    How the labels heard in one soundscape compare with the true ones, as sets:

    - `label_recall`: the share of true labels that are heard; `label_any`: whether at least one is; `label_all`:
      whether all are (further ones do no harm);
    - `label_precision`: the share of different labels heard that are true; NaN if nothing is heard.

    With one true label the first three are the same.

    Args:
        heard (`Sequence[str]`): Labels of the sources found; may be empty.
        true (`Sequence[str]`): Labels of the sources there are.

    Returns:
        `dict[str, float]`: in [0, 1].

    Raises:
        ValueError: If there is no true label.
    """
    if not true:
        raise ValueError("Every soundscape needs at least one true label.")
    heard_set, true_set = set(heard), set(true)
    found = len(heard_set & true_set)
    return {
        "label_recall": found / len(true_set),
        "label_any": float(found > 0),
        "label_all": float(found == len(true_set)),
        "label_precision": found / len(heard_set) if heard_set else float("nan"),
    }


class LabelRecall(Metric):
    """
    The means of [`label_recall`]'s values over soundscapes.

    `update(heard, true)` takes lists of lists of labels; `compute()` gives a dict, all in [0, 1], higher is better.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", torch.zeros(len(LABEL_NAMES), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(len(LABEL_NAMES), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, heard: Sequence[Sequence[str | None]], true: Sequence[Sequence[str]]) -> None:
        """Take in a batch of soundscapes."""
        for heard_labels, true_labels in zip(heard, true, strict=True):
            result = label_recall(heard_labels, true_labels)
            values = torch.tensor([result[name] for name in LABEL_NAMES], dtype=torch.float64)
            values = values.to(self.total.device)
            self.total += values.nan_to_num()
            self.count += ~values.isnan()

    def compute(self) -> dict[str, torch.Tensor]:
        """The means, by name."""
        return dict(zip(LABEL_NAMES, self.total / self.count, strict=True))


class SourceCountAccuracy(SoundscapeMean):
    """
    The share of soundscapes in which as many sources are found as there are: `update(found, true)` with integer
    tensors `(N,)`; `compute()` in [0, 1], higher is better. With one source: the share in which one is found.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(_same_count, **kwargs)


def _same_count(found: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    return (found == true).double()


def match_slots(label_probs: np.ndarray, true: Sequence[int]) -> np.ndarray:
    """
    Which slots hold a true source: slots are matched to sources by the Hungarian algorithm, so that the probability
    of the sources' labels is largest in sum. As many slots as there are sources are matched, right or wrong.

    Args:
        label_probs (`np.ndarray` of shape `(K, C)`): Label probabilities of the slots.
        true (`Sequence[int]`): Label indices of the sources.

    Returns:
        `np.ndarray` of shape `(K,)`, bool.
    """
    matched = np.zeros(len(label_probs), dtype=bool)
    matched[linear_sum_assignment(label_probs[:, list(true)], maximize=True)[0]] = True
    return matched


class PresenceAveragePrecision(BinaryAveragePrecision):
    """
    Average precision of presence scores: how well they tell the slots that hold a source from those that do not, over
    all slots of all soundscapes; torchmetrics' `BinaryAveragePrecision`.

    `update(scores, holds_source)` with presence probabilities and what [`match_slots`] gives, flat or `(N, K)`;
    `compute()` in [0, 1]: 1 if every slot with a source scores above every slot without, and by chance the share of
    slots with a source. With one class it is the same.
    """


def si_sdr_improvement(estimates: torch.Tensor, stems: torch.Tensor, mixture: torch.Tensor) -> torch.Tensor:
    """
    SI-SDR improvement of separated sound over the mixture (Le Roux et al., arXiv 1811.02508, through torchmetrics):
    for each true source, the SI-SDR of the estimate matched to it (Hungarian algorithm on SI-SDR) minus that of the
    mixture. A source without an estimate has an improvement of 0 dB: the mixture is all there is of it. Silence is no
    estimate.

    Args:
        estimates (`torch.Tensor` of shape `(m, T)`): Separated sounds; m may be 0.
        stems (`torch.Tensor` of shape `(n, T)`): The true sources.
        mixture (`torch.Tensor` of shape `(T,)`): Their sum.

    Returns:
        `torch.Tensor` of shape `(n,)`, float64, in dB; NaN for a single source, whose mixture is itself.
    """
    stems, mixture = stems.detach().double().cpu(), mixture.detach().double().cpu()
    improvement = torch.zeros(len(stems), dtype=torch.float64)
    if len(stems) == 1:
        return improvement * float("nan")
    estimates = estimates.detach().double().cpu()
    # SI-SDR takes silence for 0 dB, which would be far better than a quiet source's mixture.
    estimates = estimates[estimates.square().sum(dim=-1) > SILENT_RATIO * mixture.square().sum()]
    if not len(estimates):
        return improvement
    pairs = scale_invariant_signal_distortion_ratio(
        estimates[:, None].expand(-1, len(stems), -1), stems[None].expand(len(estimates), -1, -1)
    )
    baseline = scale_invariant_signal_distortion_ratio(mixture.expand_as(stems), stems)
    matched_estimates, matched_stems = linear_sum_assignment(pairs.numpy(), maximize=True)
    improvement[matched_stems] = pairs[matched_estimates, matched_stems] - baseline[matched_stems]
    return improvement


class SISDRImprovement(SoundscapeMean):
    """
    The mean of [`si_sdr_improvement`] over sources, in dB: `update(estimates, stems, mixture)` for one soundscape;
    higher is better, 0 dB is the mixture itself.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(si_sdr_improvement, **kwargs)
