"""What was recognised, against what there is: labels, numbers of sources, presence, separated audio."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torchmetrics import Metric
from torchmetrics.classification import BinaryAveragePrecision, BinaryCalibrationError
from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio

from .base import SoundscapeMetric, SoundscapeMetrics, concatenate


# Energy, as a share of the mixture's, that an estimate needs to be more than silence: -80 dB.
SILENT_RATIO = 1e-8


# From this probability on a label counts as confident.
CONFIDENT = 0.8
# Of the scores, in calibration.
NUM_BINS = 10


def label_recall(recognised: Sequence[str | None], true: Sequence[str]) -> dict[str, float]:
    """
    How the labels recognised in one soundscape compare with the true ones, as sets:

    - `label_recall`: the share of true labels that are recognised; `label_any`: whether at least one is; `label_all`:
      whether all are (further ones do no harm);
    - `label_precision`: the share of different labels recognised that are true; NaN if there are none.

    With one true label the first three are the same; without any they are NaN. An unknown sound, `None`, is no label.

    Args:
        recognised (`Sequence[str]`): Labels of the sources found; may be empty.
        true (`Sequence[str]`): Labels of the sources there are.

    Returns:
        `dict[str, float]`: in [0, 1].
    """
    recognised_set, true_set = {label for label in recognised if label is not None}, set(true)
    found = len(recognised_set & true_set)
    undefined = float("nan")
    return {
        "label_recall": found / len(true_set) if true else undefined,
        "label_any": float(found > 0) if true else undefined,
        "label_all": float(found == len(true_set)) if true else undefined,
        "label_precision": found / len(recognised_set) if recognised_set else float("nan"),
    }


class LabelRecall(SoundscapeMetrics):
    """
    The means of [`label_recall`]'s values over soundscapes: `compute()` gives a dict, all in [0, 1], higher is better.
    """

    higher_is_better = True
    names = ("label_recall", "label_any", "label_all", "label_precision")

    def update(self, recognised: Sequence[Sequence[str | None]], true: Sequence[Sequence[str]]) -> None:
        """Take in a batch of soundscapes: the labels recognised in each, and the true ones."""
        for recognised_labels, true_labels in zip(recognised, true, strict=True):
            self.add(label_recall(recognised_labels, true_labels))


class FalseLabels(SoundscapeMetrics):
    """
    How far a soundscape's labels can be believed; `compute()` gives the means over soundscapes, as a dict:

    - `first_label`: whether the label with the highest score is true, in [0, 1]; NaN where there is no true label, 0
      where none is given, and NaN where labels have no scores;
    - `false_labels`, `confident_false_labels`: how many different labels are given that are not true, and how many of
      these with a score of 0.8 or more, from 0 on, the latter NaN without scores; lower is better.
    """

    names = ("first_label", "false_labels", "confident_false_labels")

    def update(
        self,
        recognised: Sequence[Sequence[str | None]],
        scores: Sequence[Sequence[float] | None],
        true: Sequence[Sequence[str]],
    ) -> None:
        """
        Take in a batch of soundscapes.

        Args:
            recognised (`Sequence`): Labels of the sources found in each; `None` for unknown sounds.
            scores (`Sequence`): How probable each source with its label is, in [0, 1]; `None` where nobody says.
            true (`Sequence`): The true labels of each.
        """
        for labels, own_scores, true_labels in zip(recognised, scores, true, strict=True):
            is_scored = own_scores is not None
            best = best_scores(labels, own_scores if is_scored else [0.0] * len(labels))
            wrong = {label: score for label, score in best.items() if label not in true_labels}
            first = max(best, key=best.__getitem__, default=None)
            is_defined = bool(true_labels) and is_scored
            confident = sum(score >= CONFIDENT for score in wrong.values())
            self.add(
                {
                    "first_label": float(first in true_labels) if is_defined else float("nan"),
                    "false_labels": float(len(wrong)),
                    "confident_false_labels": float(confident) if is_scored else float("nan"),
                }
            )


class LabelCalibrationError(BinaryCalibrationError):
    """
    Expected calibration error of labels: the difference between their scores and the share of them that is true, in
    ten bins of the scores, weighted by how many there are; `compute()` in [0, 1], lower is better. torchmetrics'
    `BinaryCalibrationError` with its L1 norm.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(n_bins=NUM_BINS, norm="l1", **kwargs)

    def update(
        self,
        recognised: Sequence[Sequence[str | None]],
        scores: Sequence[Sequence[float]],
        true: Sequence[Sequence[str]],
    ) -> None:
        """Take in a batch of soundscapes; arguments as of [`FalseLabels`]."""
        given, is_true = labels_with_truth(recognised, scores, true)
        if len(given):
            super().update(torch.tensor(given), torch.tensor(is_true, dtype=torch.long))


def best_scores(labels: Sequence[str | None], scores: Sequence[float]) -> dict[str, float]:
    """The different labels of a soundscape's sources with the highest score of each; without unknown sounds."""
    best: dict[str, float] = {}
    for label, score in zip(labels, scores, strict=True):
        if label is not None:
            best[label] = max(best.get(label, 0.0), float(score))
    return best


def labels_with_truth(
    recognised: Sequence[Sequence[str | None]], scores: Sequence[Sequence[float]], true: Sequence[Sequence[str]]
) -> tuple[list[float], list[bool]]:
    """Scores of all labels of all soundscapes, and whether each label is true."""
    pairs = [
        (score, label in true_labels)
        for labels, own_scores, true_labels in zip(recognised, scores, true, strict=True)
        for label, score in best_scores(labels, own_scores).items()
    ]
    return [score for score, _ in pairs], [is_true for _, is_true in pairs]


def reliability(scores: Sequence[float], is_true: Sequence[bool]) -> list[dict[str, float]]:
    """
    What a reliability diagram shows: for each tenth of the scores that has labels in it `low` and `high`, how many
    labels (`count`), their mean `score`, and the share of them that is `right`, all but `count` in [0, 1].

    Args:
        scores (`Sequence[float]`): Of labels, in [0, 1].
        is_true (`Sequence[bool]`): Whether each label is true, as [`labels_with_truth`] has it.
    """
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(is_true, dtype=np.float64)
    # As torchmetrics does, a score on an edge is in the upper bin.
    bins = np.minimum((values * NUM_BINS).astype(int), NUM_BINS - 1)
    return [
        {
            "low": number / NUM_BINS,
            "high": (number + 1) / NUM_BINS,
            "count": int((bins == number).sum()),
            "score": float(values[bins == number].mean()),
            "right": float(truth[bins == number].mean()),
        }
        for number in range(NUM_BINS)
        if (bins == number).any()
    ]


class GroupLabelRecall(Metric):
    """
    Label recall by source group: the share of a group's sources whose label is recognised, averaged over groups, so
    that a recording with many clips counts as much as one with few; `compute()` in [0, 1], higher is better.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.set_dtype(torch.float64)
        self.add_state("recognised", [], dist_reduce_fx="cat")
        self.add_state("groups", [], dist_reduce_fx="cat")

    def update(self, recognised: torch.Tensor, groups: torch.Tensor) -> None:
        """Take in S true sources: whether each one's label is recognised, and the number of its group, `(S,)` both."""
        self.recognised.append(recognised.double())
        self.groups.append(groups.double())

    @property
    def values(self) -> torch.Tensor:
        """The share `(G,)` of every group that this process has taken in, by their numbers, float64."""
        recognised = concatenate(self.recognised)
        _, places, counts = concatenate(self.groups).unique(return_inverse=True, return_counts=True)
        return torch.zeros_like(counts, dtype=torch.float64).index_add(0, places, recognised) / counts

    def compute(self) -> torch.Tensor:
        """The mean over groups; NaN without any."""
        return self.values.mean()


class SourceCountAccuracy(SoundscapeMetric):
    """
    The share of soundscapes in which as many sources are found as there are; `compute()` in [0, 1], higher is better.
    With one source: the share in which one is found.
    """

    def update(self, found: torch.Tensor, true: torch.Tensor) -> None:
        """Take in a batch: numbers of sources, `(N,)` both; one found is NaN where it was given, not found."""
        self.add((found == true).double().masked_fill(found.isnan(), float("nan")))


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
    SI-SDR improvement of separated audio over the mixture (Le Roux et al., arXiv 1811.02508, through torchmetrics):
    for each true source, the SI-SDR of the estimate matched to it (Hungarian algorithm on SI-SDR) minus that of the
    mixture. A source without an estimate has an improvement of 0 dB: the mixture is all there is of it. Silence is no
    estimate.

    Args:
        estimates (`torch.Tensor` of shape `(m, T)`): Separated audio; m may be 0.
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


class SISDRImprovement(SoundscapeMetric):
    """
    The median over soundscapes of [`si_sdr_improvement`], which is averaged over a soundscape's sources first;
    `compute()` in dB, higher is better, and 0 dB is the mixture itself.
    """

    statistic = "median"

    def update(self, improvements: Sequence[torch.Tensor]) -> None:
        """Take in a batch of soundscapes: the improvements `(n,)` of each one's sources; none where not defined."""
        self.add(torch.tensor([float(sources.double().mean()) for sources in improvements], dtype=torch.float64))
