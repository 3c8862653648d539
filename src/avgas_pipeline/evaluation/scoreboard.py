"""Everything that is measured in one evaluation."""

from collections.abc import Sequence

import numpy as np
import PIL.Image
import torch
from torchmetrics import MetricCollection

from ..metrics.class_representation import coverage_thresholds
from ..metrics.fidelity import set_scores
from ..metrics.judges import Judge
from .anchors import Anchors
from .drawings import Drawing
from .samples import sample_numbers
from .scoring import (
    label_calibration,
    presence_average_precision,
    score_mixed,
    score_separated,
    score_sound,
    targets,
    values_by_key,
)
from .soundscapes import EvaluationSet


class Scoreboard:
    """
    What is measured, system by system, so that one system's images are in memory at a time.

    Args:
        dataset ([`EvaluationSet`]): The soundscapes.
        judge ([`Judge`], *optional*): Of images.
        top_k (`int`, *optional*): K of R@K*, if it is not each soundscape's own number of sources.

    Attributes:
        values (`dict`): For every task, for every system or anchor, for every metric, its values.
        sets (`dict`): For every system or anchor, metrics of the whole set.
        presence (`dict`): For every system with slots, presence AP of the soundscapes with so many sources.
        reliability (`dict`): For every system that gives its labels scores, what a reliability diagram shows.
        no_source (`dict`): For every system, in how many soundscapes no source was present.
        samples (`dict`): For every system with images, the drawings that are shown.
    """

    def __init__(self, dataset: EvaluationSet, judge: Judge | None, top_k: int | None) -> None:
        self.dataset = dataset
        self.judge = judge
        self.top_k = top_k
        self.values: dict[str, dict[str, dict[str, np.ndarray]]] = {}
        self.sets: dict[str, dict[str, float]] = {}
        self.presence: dict[str, dict[int, float]] = {}
        self.reliability: dict[str, list[dict[str, float]]] = {}
        self.no_source: dict[str, int] = {}
        self.samples: dict[str, list[Drawing]] = {}
        self._target = self._references = self._thresholds = None
        if judge is not None:
            if not all(dataset.true_labels(number) for number in range(len(dataset))):
                raise ValueError("Pictures of recordings without labels can't be judged; evaluate with `--no-draw`.")
            self._target = targets(dataset, judge.labels)
            if dataset.has_pictures:
                real = judge([dataset.image(number) for number in range(len(dataset))])
                self._references = real.features
                # A class that every soundscape has can't be calibrated.
                if not bool(self._target.all(dim=0).any()):
                    self._thresholds = coverage_thresholds(real.scores, self._target)

    def add(self, name: str, drawings: Sequence[Drawing]) -> None:
        """Take in a system's drawings of all soundscapes."""
        if drawings[0].labels is not None:
            self._put("sound", name, score_sound(drawings, self.dataset))
            self.no_source[name] = sum(drawing.no_source for drawing in drawings)
            calibration, bins = label_calibration(drawings, self.dataset)
            self.sets.setdefault(name, {}).update(calibration)
            if bins:
                self.reliability[name] = bins
            if drawings[0].slot_scores:
                self.sets[name]["presence_ap"] = presence_average_precision(drawings)
                self.presence[name] = self._presence_by_count(drawings)
        if self.judge is None:
            return
        if drawings[0].mixed is not None:
            self._add_mixed(name, [drawing.mixed for drawing in drawings], self._references)
        if any(drawing.separated for drawing in drawings):
            separated, labels = zip(*((drawing.separated, drawing.drawn_labels) for drawing in drawings), strict=True)
            self._put("separated", name, score_separated(separated, labels, self._target, self.judge))
        if drawings[0].mixed is not None or drawings[0].separated:
            self.samples[name] = [drawings[number] for number in sample_numbers(self.dataset)]

    def add_anchors(self) -> None:
        """Take in pictures that no system drew, where images were judged."""
        if not self.samples or not self.dataset.has_pictures or not self.dataset.has_stems:
            return
        anchors = Anchors(self.dataset)
        if "mixed" in self.values:
            for name, images in anchors.mixed().items():
                # Collages of photographs are the references themselves.
                is_reference = name == "collage" and not anchors.transparent
                self._add_mixed(name, images, None if is_reference else self._references)
        if "separated" in self.values:
            for name, separated in anchors.separated().items():
                labels = [None] * len(separated)
                self._put("separated", name, score_separated(separated, labels, self._target, self.judge))

    def _presence_by_count(self, drawings: Sequence[Drawing]) -> dict[int, float]:
        by_count: dict[int, list[Drawing]] = {}
        for number, drawing in enumerate(drawings):
            by_count.setdefault(len(self.dataset.true_labels(number)), []).append(drawing)
        return {count: presence_average_precision(own) for count, own in by_count.items()}

    def _add_mixed(self, name: str, images: list[PIL.Image.Image], references: torch.Tensor | None) -> None:
        judgement = self.judge(images)
        metrics = score_mixed(judgement, self._target, self.top_k, self._thresholds, references)
        self._put("mixed", name, metrics)
        self.sets.setdefault(name, {}).update(set_scores(judgement, references))

    def _put(self, task: str, name: str, metrics: MetricCollection) -> None:
        self.values.setdefault(task, {})[name] = values_by_key(metrics)
