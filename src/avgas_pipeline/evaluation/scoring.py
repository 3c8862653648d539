"""From drawings to one number per soundscape and metric."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image
import torch

from ..metrics.class_representation import class_coverage, class_representation_score, class_similarity
from ..metrics.judges import Judge, Judgement
from ..metrics.recall import recall_at_k
from ..metrics.separation import NAMES as SEPARATION_NAMES
from ..metrics.separation import highest_class, separation_recall
from ..metrics.similarity import paired_similarity
from ..metrics.sound import LABEL_NAMES, PresenceAveragePrecision, label_recall
from .soundscapes import EvaluationSet
from .systems import Drawing


@dataclass(frozen=True)
class Column:
    """
    One metric in a table.

    Attributes:
        key (`str`): Its name in `report.json`.
        title (`str`): In tables.
        scale (`float`): Tables show the value times this: 100 for shares.
        statistic (`str`): `"mean"` or `"median"` over soundscapes.
        unit (`str`): What is resampled for the interval.
    """

    key: str
    title: str
    scale: float = 100.0
    statistic: str = "mean"
    unit: str = "soundscape"


SEPARATED_COLUMNS = [
    Column("sep_recall", "Sep-R@1"),
    Column("sep_all", "Sep-all"),
    Column("leakage", "leakage"),
    Column("duplicates", "duplicates"),
    Column("own_label", "own label"),
]
SOUND_COLUMNS = [
    Column("label_recall", "label recall"),
    Column("label_recall_by_group", "label recall", unit="source group"),
    Column("label_any", "any label"),
    Column("label_all", "all labels"),
    Column("label_precision", "label precision"),
    Column("count_accuracy", "count right"),
    Column("si_sdri_db", "SI-SDRi, median dB", 1.0, "median"),
]


def table_columns(top_k: int) -> dict[str, list[Column]]:
    """The metrics of every task's table."""
    mixed = [
        Column("crs", "CRS"),
        Column("recall_strict", f"R@{top_k}*"),
        Column("recall_mean", f"R@{top_k}-mean"),
        Column("recall_any", f"R@{top_k}-any"),
        Column("label_accuracy", "AIC"),
        Column("crs_cov", "CRS-cov"),
        Column("crs_sim", "CRS-sim"),
        Column("iis_cosine", "IIS"),
        Column("iis_win_rate", "IIS-win"),
    ]
    return {"sound": SOUND_COLUMNS, "mixed": mixed, "separated": SEPARATED_COLUMNS}


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
    top_k: int,
    thresholds: torch.Tensor | None,
    reference_features: torch.Tensor | None,
) -> dict[str, np.ndarray]:
    """Metrics of mixed images, `(N,)` each."""
    values = {
        "crs": class_representation_score(judgement.class_mass, target),
        "crs_sim": class_similarity(judgement.scores, target),
        "recall_strict": recall_at_k(judgement.scores, target, top_k, "strict"),
        "recall_mean": recall_at_k(judgement.scores, target, top_k, "mean"),
        "recall_any": recall_at_k(judgement.scores, target, top_k, "any"),
        "label_accuracy": recall_at_k(judgement.scores, target, 1, "any"),
    }
    if thresholds is not None:
        values["crs_cov"] = class_coverage(judgement.scores, target, thresholds)
    if reference_features is not None:
        similarity = paired_similarity(judgement.features, reference_features)
        values["iis_cosine"], values["iis_win_rate"] = similarity["cosine"], similarity["win_rate"]
    return {name: value.numpy() for name, value in values.items()}


def score_separated(
    separated: Sequence[Sequence[PIL.Image.Image]],
    labels: Sequence[Sequence[str | None] | None],
    target: torch.Tensor,
    judge: Judge,
) -> dict[str, np.ndarray]:
    """
    Metrics of separated images, `(N,)` each. `own_label` is the share of a soundscape's separated images whose highest
    class is the label that the system gave that source, right or wrong; NaN if the system gives none.
    """
    mass = judge([image for images in separated for image in images]).class_mass
    values = {name: np.full(len(separated), np.nan) for name in (*SEPARATION_NAMES, "own_label")}
    start = 0
    for number, (images, own_labels) in enumerate(zip(separated, labels, strict=True)):
        own = mass[start : start + len(images)]
        start += len(images)
        for name, value in separation_recall(own, target[number]).items():
            values[name][number] = value
        if own_labels is not None and len(own):
            seen = [judge.labels[index] if index >= 0 else None for index in highest_class(own).tolist()]
            values["own_label"][number] = np.mean([a == b for a, b in zip(seen, own_labels, strict=True)])
    return values


def score_sound(drawings: Sequence[Drawing], dataset: EvaluationSet) -> dict[str, np.ndarray]:
    """Metrics of what was heard, `(N,)` each, but `label_recall_by_group`, which has a value per source group."""
    values = {name: np.full(len(drawings), np.nan) for name in (*LABEL_NAMES, "count_accuracy", "si_sdri_db")}
    found_by_group: dict[str, list[bool]] = {}
    for number, drawing in enumerate(drawings):
        true = dataset.true_labels(number)
        # Nothing heard is none right, though one source is drawn.
        heard = [] if drawing.nothing_heard else drawing.labels
        for name, value in label_recall(heard, true).items():
            values[name][number] = value
        # The oracle is told how many there are.
        if drawing.slot_scores:
            values["count_accuracy"][number] = float(len(heard) == len(true))
        if drawing.si_sdri_db:
            values["si_sdri_db"][number] = np.mean(drawing.si_sdri_db)
        for label, group in zip(true, dataset.groups(number), strict=True):
            found_by_group.setdefault(group, []).append(label in heard)
    values["label_recall_by_group"] = np.array([np.mean(found_by_group[group]) for group in sorted(found_by_group)])
    return values


def presence_average_precision(drawings: Sequence[Drawing]) -> float:
    """Of all slots of all soundscapes; NaN if there are no slots."""
    scores = [score for drawing in drawings for score in drawing.slot_scores]
    holds = [value for drawing in drawings for value in drawing.slot_holds_source]
    if not any(holds):
        return float("nan")
    # One process scores for all, so there is nobody to reduce with.
    metric = PresenceAveragePrecision(sync_on_compute=False)
    metric.update(torch.tensor(scores), torch.tensor(holds, dtype=torch.long))
    return float(metric.compute())
