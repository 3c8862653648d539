"""From drawings to metrics, each with one value per soundscape."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
import torch
from torchmetrics import Metric, MetricCollection

from ..metrics.class_representation import ClassCoverage, ClassRepresentationScore, ClassSimilarity
from ..metrics.judges import Judge, Judgement
from ..metrics.recall import LabelAccuracy, RecallAtK
from ..metrics.separation import OwnLabelAccuracy, SeparationRecall
from ..metrics.similarity import ImageImageSimilarity
from ..metrics.sound import (
    CONFIDENT,
    FalseLabels,
    GroupLabelRecall,
    LabelCalibrationError,
    LabelRecall,
    PresenceAveragePrecision,
    SISDRImprovement,
    SourceCountAccuracy,
    labels_with_truth,
    reliability,
)
from .drawings import Drawing
from .soundscapes import EvaluationSet


# One process scores for all, so there is nobody to reduce with.
ALONE: dict[str, Any] = {"sync_on_compute": False}


def targets(dataset: EvaluationSet, labels: Sequence[str]) -> torch.Tensor:
    """True classes as `(N, C)`, in the order of the judge's labels."""
    index = {label: number for number, label in enumerate(labels)}
    target = torch.zeros(len(dataset), len(labels), dtype=torch.bool)
    for number in range(len(dataset)):
        target[number, [index[label] for label in dataset.true_labels(number)]] = True
    return target


def score_mixed(
    judgement: Judgement,
    target: torch.Tensor,
    top_k: int | None,
    thresholds: torch.Tensor | None,
    reference_features: torch.Tensor | None,
) -> MetricCollection:
    """Metrics of mixed images; without thresholds or references, those that need them are left out."""
    crs = ClassRepresentationScore(**ALONE)
    crs.update(judgement.class_mass, target)
    metrics: dict[str, Metric] = {
        "crs_sim": ClassSimilarity(**ALONE),
        "recall_strict": RecallAtK(top_k, "strict", **ALONE),
        "recall_mean": RecallAtK(top_k, "mean", **ALONE),
        "recall_any": RecallAtK(top_k, "any", **ALONE),
        "label_accuracy": LabelAccuracy(**ALONE),
    }
    if thresholds is not None:
        metrics["crs_cov"] = ClassCoverage(thresholds, **ALONE)
    for metric in metrics.values():
        metric.update(judgement.scores, target)
    if reference_features is not None:
        metrics["iis"] = ImageImageSimilarity(**ALONE)
        metrics["iis"].update(judgement.features, reference_features)
    return MetricCollection({"crs": crs, **metrics}, compute_groups=False)


def score_separated(
    separated: Sequence[Sequence[PIL.Image.Image]],
    labels: Sequence[Sequence[str | None] | None],
    target: torch.Tensor,
    judge: Judge,
) -> MetricCollection:
    """Metrics of separated images; `labels` are those that a system gave their sources, if it gave any."""
    judged = judge([image for images in separated for image in images]).class_mass
    class_mass = judged.split([len(images) for images in separated])
    index = {label: number for number, label in enumerate(judge.labels)}
    own = [None if given is None else torch.tensor([index.get(label, -1) for label in given]) for given in labels]
    recall, own_label = SeparationRecall(**ALONE), OwnLabelAccuracy(**ALONE)
    recall.update(class_mass, target)
    own_label.update(class_mass, own)
    return MetricCollection({"separation": recall, "own_label": own_label}, compute_groups=False)


def score_sound(drawings: Sequence[Drawing], dataset: EvaluationSet) -> MetricCollection:
    """Metrics of the sources that were found; `label_recall_by_group` has a value per source group."""
    numbers = range(len(drawings))
    true = [dataset.true_labels(number) for number in numbers]
    found, scores = _judged(drawings, dataset)
    labels = LabelRecall(**ALONE)
    labels.update(found, true)
    false = FalseLabels(**ALONE)
    false.update(found, scores, true)

    by_group = GroupLabelRecall(**ALONE)
    groups = [dataset.groups(number) for number in numbers]
    index = {group: place for place, group in enumerate(sorted({group for own in groups for group in own}))}
    by_group.update(
        torch.tensor([label in found[number] for number in numbers for label in true[number]]),
        torch.tensor([index[group] for own in groups for group in own]),
    )

    count = SourceCountAccuracy(**ALONE)
    # The oracle is told how many there are.
    counts = [len(own) if drawing.slot_scores else np.nan for own, drawing in zip(found, drawings, strict=True)]
    count.update(torch.tensor(counts), torch.tensor([len(own) for own in true]))

    improvement = SISDRImprovement(**ALONE)
    improvement.update([torch.tensor(drawing.si_sdri_db, dtype=torch.float64) for drawing in drawings])
    return MetricCollection(
        {
            "labels": labels,
            "false_labels": false,
            "label_recall_by_group": by_group,
            "count_accuracy": count,
            "si_sdri_db": improvement,
        },
        compute_groups=False,
    )


def label_calibration(
    drawings: Sequence[Drawing], dataset: EvaluationSet
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """
    Of all labels that a system gave: their calibration error and the share of the confident ones that is true, and
    what a reliability diagram shows. Both empty where it gave none with a score.
    """
    judged = zip(*_judged(drawings, dataset), range(len(drawings)), strict=True)
    scored = [(found, scores, dataset.true_labels(number)) for found, scores, number in judged if scores is not None]
    found, scores, true = zip(*scored, strict=True) if scored else ((), (), ())
    given, is_true = labels_with_truth(found, scores, true)
    if not given:
        return {}, []
    error = LabelCalibrationError(**ALONE)
    error.update(found, scores, true)
    values = {"calibration_error": float(error.compute())}
    confident = [right for score, right in zip(given, is_true, strict=True) if score >= CONFIDENT]
    if confident:
        values["confident_right"] = float(np.mean(confident))
    return values, reliability(given, is_true)


def _judged(
    drawings: Sequence[Drawing], dataset: EvaluationSet
) -> tuple[list[list[str | None]], list[list[float] | None]]:
    """The labels of each drawing that are right or wrong, with their scores: `None` where a system gives none."""
    found, scores = [], []
    for number, drawing in enumerate(drawings):
        also_heard = dataset.also_heard(number)
        # Where no source is present none is right, though one is drawn.
        labels = [] if drawing.no_source else drawing.labels
        own_scores = [] if drawing.no_source else drawing.label_scores or [None] * len(labels)
        pairs = [pair for pair in zip(labels, own_scores, strict=True) if pair[0] not in also_heard]
        found.append([label for label, _ in pairs])
        scores.append(None if labels and not drawing.label_scores else [score for _, score in pairs])
    return found, scores


def values_by_key(metrics: MetricCollection) -> dict[str, np.ndarray]:
    """The values of all metrics, by the keys that they have in a report."""
    values: dict[str, torch.Tensor] = {}
    for key, metric in metrics.items():
        values |= metric.values if isinstance(metric.values, dict) else {key: metric.values}
    return {key: value.numpy() for key, value in values.items()}


def presence_average_precision(drawings: Sequence[Drawing]) -> float:
    """Of all slots of all soundscapes; NaN if no slot holds a source."""
    scores = [score for drawing in drawings for score in drawing.slot_scores]
    holds = [value for drawing in drawings for value in drawing.slot_holds_source]
    if not any(holds):
        return float("nan")
    metric = PresenceAveragePrecision(**ALONE)
    metric.update(torch.tensor(scores), torch.tensor(holds, dtype=torch.long))
    return float(metric.compute())
