"""
Metrics of soundscape-to-image generation and separation, as `torchmetrics.Metric` classes (they need
`pip install '.[eval]'` in a checkout), and the judges they rest on.
"""

from .bootstrap import Interval, bootstrap_interval
from .class_representation import (
    ClassCoverage,
    ClassRepresentationScore,
    ClassSimilarity,
    class_coverage,
    class_representation_score,
    class_similarity,
    coverage_thresholds,
)
from .fidelity import frechet_distance, inception_score, kernel_distance
from .judges import ClassifierJudge, CLIPJudge, Judge, Judgement, load_judge
from .recall import LabelAccuracy, RecallAtK, recall_at_k
from .separation import OwnLabelAccuracy, SeparationRecall, own_label_accuracy, separation_recall
from .similarity import AudioImageSimilarity, ImageImageSimilarity, paired_similarity
from .sound import (
    GroupLabelRecall,
    LabelRecall,
    PresenceAveragePrecision,
    SISDRImprovement,
    SourceCountAccuracy,
    label_recall,
    match_slots,
    si_sdr_improvement,
)


__all__ = [
    "AudioImageSimilarity",
    "CLIPJudge",
    "ClassCoverage",
    "ClassRepresentationScore",
    "ClassSimilarity",
    "ClassifierJudge",
    "GroupLabelRecall",
    "ImageImageSimilarity",
    "Interval",
    "Judge",
    "Judgement",
    "LabelAccuracy",
    "LabelRecall",
    "OwnLabelAccuracy",
    "PresenceAveragePrecision",
    "RecallAtK",
    "SISDRImprovement",
    "SeparationRecall",
    "SourceCountAccuracy",
    "bootstrap_interval",
    "class_coverage",
    "class_representation_score",
    "class_similarity",
    "coverage_thresholds",
    "frechet_distance",
    "inception_score",
    "kernel_distance",
    "label_recall",
    "load_judge",
    "match_slots",
    "own_label_accuracy",
    "paired_similarity",
    "recall_at_k",
    "separation_recall",
    "si_sdr_improvement",
]
