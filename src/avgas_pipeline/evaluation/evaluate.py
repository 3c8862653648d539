"""`evaluate`: several systems, one manifest, one judge, one report."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from ..metrics.class_representation import coverage_thresholds
from ..metrics.fidelity import set_scores
from ..metrics.judges import Judge
from .anchors import Anchors
from .drawing import DrawingFolder, check_settings, draw_all
from .report import plain, summarise, versions, write_report
from .samples import draw_samples, sample_numbers
from .scoring import presence_average_precision, score_mixed, score_separated, score_sound, table_columns, targets
from .soundscapes import MANIFEST, EvaluationSet
from .systems import Drawing, DrawingSettings, ImageFolderSystem, System


def evaluate(
    systems: Sequence[System],
    dataset: EvaluationSet,
    judge: Judge | None,
    out: Path,
    settings: DrawingSettings,
    batch_size: int = 4,
    top_k: int | None = None,
) -> dict[str, Any]:
    """
    Have systems draw the same soundscapes with the same seeds, judge them, and write a report.

    Writes to `out`: `report.json` (everything), `report.md` (tables), `values.json` (every metric's values before
    they are averaged), `samples.png` (pictures to look at), `manifest.jsonl` (what was drawn) and `systems/<name>/…`
    (all drawings). Interrupted, it goes on where it was; of several processes, all draw and the first one judges.

    Args:
        systems (`Sequence[System]`): The first one is what others are compared with.
        dataset ([`EvaluationSet`]): The soundscapes.
        judge ([`Judge`], *optional*): Of images; not needed when nothing is drawn.
        out (`Path`): The report's folder.
        settings ([`DrawingSettings`]): How pipelines draw.
        batch_size (`int`, defaults to 4): Soundscapes that are drawn at a time.
        top_k (`int`, *optional*): K of R@K*; by default the largest number of sources.

    Returns:
        `dict`: What `report.json` holds; empty in all processes but the first.

    Raises:
        ValueError: If the judge does not know a true label, `out` holds another evaluation, or an image is damaged.
    """
    state = PartialState()
    num_sources = np.array([len(dataset.true_labels(number)) for number in range(len(dataset))])
    top_k = top_k or int(num_sources.max())
    if top_k < num_sources.max():
        raise ValueError(f"R@{top_k}* is not defined for soundscapes with {num_sources.max()} sources.")
    if judge is not None:
        _check_judge(judge, dataset)
        if top_k > len(judge.labels):
            raise ValueError(f"R@{top_k}* is not defined for a judge of {len(judge.labels)} classes.")
    identity = {
        "data": dataset.describe(),
        "judge": judge.describe() if judge is not None else None,
        "settings": {**asdict(settings), "batch_size": batch_size},
    }
    folders = {
        system.name: DrawingFolder(out / "systems" / system.name, len(dataset), batch_size) for system in systems
    }
    fingerprints: dict[str, Any] = {}

    def prepare() -> None:
        check_settings(out / "settings.json", identity)
        dataset.write_manifest(out / MANIFEST)
        # All systems before any draws: a bad one shall not be found out after hours.
        for system in systems:
            fingerprints[system.name] = system.fingerprint()
            if isinstance(system, ImageFolderSystem):
                system.verify()
            else:
                check_settings(folders[system.name].path / "system.json", fingerprints[system.name])
            system.close()
        _check_distinct(fingerprints)

    _first_process_alone(state, prepare)
    for system in systems:
        if not isinstance(system, ImageFolderSystem):
            draw_all(system, dataset, folders[system.name], state)
    if not state.is_main_process:
        return {}

    scores = Scores(dataset, judge, top_k)
    for system in systems:
        is_folder = isinstance(system, ImageFolderSystem)
        scores.add(system.name, system.drawings() if is_folder else folders[system.name].read(system.name))
    scores.add_anchors()
    columns = table_columns(top_k)
    report = {
        "systems": fingerprints,
        **identity,
        "settings": {**identity["settings"], "top_k": top_k},
        **summarise(scores.values, columns, list(fingerprints), num_sources),
        "sets": {name: {key: plain(value) for key, value in row.items()} for name, row in scores.sets.items()},
        "nothing_heard": scores.nothing_heard,
        "versions": versions(),
    }
    write_report(out, report, scores.values, columns)
    if scores.samples:
        draw_samples(dataset, scores.samples).save(out / "samples.png")
    return report


class Scores:
    """
    What is measured, system by system, so that one system's images are in memory at a time.

    Args:
        dataset ([`EvaluationSet`]): The soundscapes.
        judge ([`Judge`], *optional*): Of images.
        top_k (`int`): K of R@K*.

    Attributes:
        values (`dict`): For every task, for every system or anchor, for every metric, its values.
        sets (`dict`): For every system or anchor, metrics of the whole set.
        nothing_heard (`dict`): For every system, in how many soundscapes no source was present.
        samples (`dict`): For every system with images, the drawings that are shown.
    """

    def __init__(self, dataset: EvaluationSet, judge: Judge | None, top_k: int) -> None:
        self.dataset = dataset
        self.judge = judge
        self.top_k = top_k
        self.values: dict[str, dict[str, dict[str, np.ndarray]]] = {}
        self.sets: dict[str, dict[str, float]] = {}
        self.nothing_heard: dict[str, int] = {}
        self.samples: dict[str, list[Drawing]] = {}
        self._target = self._references = self._thresholds = None
        if judge is not None:
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
            self.nothing_heard[name] = sum(drawing.nothing_heard for drawing in drawings)
            if drawings[0].slot_scores:
                self.sets.setdefault(name, {})["presence_ap"] = presence_average_precision(drawings)
        if self.judge is None:
            return
        if drawings[0].mixed is not None:
            self._add_mixed(name, [drawing.mixed for drawing in drawings], self._references)
        if any(drawing.separated for drawing in drawings):
            separated, labels = zip(*((drawing.separated, drawing.labels) for drawing in drawings), strict=True)
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

    def _add_mixed(self, name: str, images: list[PIL.Image.Image], references: torch.Tensor | None) -> None:
        judgement = self.judge(images)
        values = score_mixed(judgement, self._target, self.top_k, self._thresholds, references)
        self._put("mixed", name, values)
        self.sets.setdefault(name, {}).update(set_scores(judgement, references))

    def _put(self, task: str, name: str, values: dict[str, np.ndarray]) -> None:
        self.values.setdefault(task, {})[name] = values


def _check_judge(judge: Judge, dataset: EvaluationSet) -> None:
    true = {label for number in range(len(dataset)) for label in dataset.true_labels(number)}
    unknown = sorted(true - set(judge.labels))
    if unknown:
        raise ValueError(f"The judge does not know {unknown[0]!r} (and {len(unknown) - 1} more of the labels).")


def _check_distinct(fingerprints: dict[str, dict[str, Any]]) -> None:
    """A baseline is other weights than the model; only the oracle is the model, helped."""
    seen: dict[str, str] = {}
    for name, fingerprint in fingerprints.items():
        weights = fingerprint.get("weights_sha256")
        if weights is None or fingerprint["oracle"]:
            continue
        if weights in seen:
            raise ValueError(
                f"{fingerprint['checkpoint']}: is not {name!r}: it has the very weights of {seen[weights]!r}."
            )
        seen[weights] = name


def _first_process_alone(state: PartialState, work: Callable[[], None]) -> None:
    """Has the first process do something; if it fails, all processes fail alike."""
    message: list[str | None] = [None]
    if state.is_main_process:
        try:
            work()
        except (ValueError, OSError) as error:
            if state.num_processes == 1:
                raise
            message[0] = " ".join(str(error).split())
    broadcast_object_list(message)
    if message[0] is not None:
        raise ValueError(message[0])


def read_report(out: Path) -> dict[str, Any]:
    """
    A report that `evaluate` wrote.

    Raises:
        FileNotFoundError: If there is none.
    """
    path = out / "report.json"
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; `avgas evaluate` writes it.")
    return json.loads(path.read_text(encoding="utf-8"))
