"""`evaluate`: several systems, one manifest, one judge, one report."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import PIL.Image
from accelerate import PartialState

from ..metrics.class_representation import coverage_thresholds
from ..metrics.fidelity import set_scores
from ..metrics.judges import Judge
from .anchors import anchor_images
from .drawing import DrawingFolder, check_settings, draw_all
from .report import Values, summarise, versions, write_report
from .samples import draw_samples
from .scoring import (
    presence_average_precision,
    score_mixed,
    score_separated,
    score_sound,
    table_columns,
    targets,
)
from .soundscapes import EvaluationSet
from .systems import Drawing, DrawingSettings, ImageFolderSystem, System


def evaluate(
    systems: Sequence[System],
    dataset: EvaluationSet,
    judge: Judge | None,
    out: Path,
    settings: DrawingSettings,
    batch_size: int = 4,
    top_k: int | None = None,
    image_size: int = 128,
) -> dict[str, Any]:
    """
    Have systems draw the same soundscapes with the same seeds, judge them, and write a report.

    Writes to `out`: `report.json` (everything), `report.md` (tables), `values.json` (one number per soundscape and
    metric), `samples.png` (pictures to look at) and `systems/<name>/…` (all drawings). Interrupted, it goes on where
    it was; under `accelerate launch`, processes share the drawing and the first one judges.

    Args:
        systems (`Sequence[System]`): The first one is what others are compared with.
        dataset ([`EvaluationSet`]): The soundscapes.
        judge ([`Judge`], *optional*): Of images; not needed when nothing is drawn.
        out (`Path`): The report's folder.
        settings ([`DrawingSettings`]): How pipelines draw.
        batch_size (`int`, defaults to 4): Soundscapes that are drawn at a time.
        top_k (`int`, *optional*): K of R@K*; by default the largest number of sources.
        image_size (`int`, defaults to 128): Side of the anchors, in pixels.

    Returns:
        `dict`: What `report.json` holds.

    Raises:
        ValueError: If the judge does not know a true label, or `out` holds another evaluation.
    """
    state = PartialState()
    most_sources = max(len(dataset.true_labels(number)) for number in range(len(dataset)))
    top_k = top_k or most_sources
    if top_k < most_sources:
        raise ValueError(f"R@{top_k}* is not defined for soundscapes with {most_sources} sources.")
    if judge is not None:
        unknown = sorted(
            {label for number in range(len(dataset)) for label in dataset.true_labels(number)} - set(judge.labels)
        )
        if unknown:
            raise ValueError(f"The judge does not know {unknown[0]!r} (and {len(unknown) - 1} more of the labels).")
    identity = {
        "data": dataset.describe(),
        "judge": judge.describe() if judge is not None else None,
        "settings": {**asdict(settings), "batch_size": batch_size, "top_k": top_k, "image_size": image_size},
    }
    if state.is_main_process:
        check_settings(out / "settings.json", identity)
    drawings = _all_drawings(systems, dataset, out, batch_size, state)
    if not state.is_main_process:
        return {}

    values, sets, references = _score(systems, dataset, judge, drawings, top_k, image_size)
    columns = table_columns(top_k)
    names = [system.name for system in systems]
    report = {
        "systems": names,
        **identity,
        **summarise(values, columns, names),
        "sets": sets,
        "image_folders": {
            system.name: str(system.folder) for system in systems if isinstance(system, ImageFolderSystem)
        },
        "nothing_heard": {name: sum(drawing.nothing_heard for drawing in drawings[name]) for name in names},
        "versions": versions(),
    }
    write_report(out, report, values, columns)
    if any(drawing.mixed or drawing.separated for drawing in drawings[names[0]]):
        draw_samples(dataset, drawings, references).save(out / "samples.png")
    return report


def _all_drawings(
    systems: Sequence[System], dataset: EvaluationSet, out: Path, batch_size: int, state: PartialState
) -> dict[str, list[Drawing]]:
    folders = {
        system.name: DrawingFolder(out / "systems" / system.name, len(dataset), batch_size)
        for system in systems
        if not isinstance(system, ImageFolderSystem)
    }
    # All of them before any draws: a bad one shall not be found out after hours.
    for system in systems:
        if system.name in folders and state.is_main_process:
            check_settings(folders[system.name].path / "system.json", system.fingerprint())
            system.close()
    state.wait_for_everyone()
    for system in systems:
        if system.name in folders:
            draw_all(system, dataset, folders[system.name], state)
    if not state.is_main_process:
        return {}
    return {
        system.name: folders[system.name].read(system.name)
        if system.name in folders
        else [system.drawing(number) for number in range(len(dataset))]
        for system in systems
    }


def _score(
    systems: Sequence[System],
    dataset: EvaluationSet,
    judge: Judge | None,
    drawings: dict[str, list[Drawing]],
    top_k: int,
    image_size: int,
) -> tuple[Values, dict[str, Any], list[PIL.Image.Image] | None]:
    values: dict[str, dict[str, Any]] = {"sound": {}, "mixed": {}, "separated": {}}
    sets: dict[str, Any] = {}
    for system in systems:
        drawn = drawings[system.name]
        if drawn[0].labels is not None:
            values["sound"][system.name] = score_sound(drawn, dataset)
            if drawn[0].slot_scores:
                sets.setdefault(system.name, {})["presence_ap"] = presence_average_precision(drawn)
    pictured = {name: drawn for name, drawn in drawings.items() if any(d.mixed or d.separated for d in drawn)}
    if judge is None or not pictured:
        return {task: rows for task, rows in values.items() if rows}, sets, None

    target = targets(dataset, judge.labels)
    references = [dataset[number].image for number in range(len(dataset))] if dataset.has_pictures else None
    anchors = anchor_images(dataset, image_size) if dataset.has_pictures and dataset.has_stems else {}
    reference_features = thresholds = None
    if references is not None:
        real = judge(references)
        reference_features = real.features
        # A class that every soundscape has can't be calibrated.
        if not bool(target.all(dim=0).any()):
            thresholds = coverage_thresholds(real.scores, target)
    mixed = {name: [drawing.mixed for drawing in drawn] for name, drawn in pictured.items() if drawn[0].mixed}
    for name, images in (*mixed.items(), *anchors.items()):
        judgement = judge(images)
        values["mixed"][name] = score_mixed(judgement, target, top_k, thresholds, reference_features)
        sets.setdefault(name, {}).update(set_scores(judgement, reference_features))
    for name, drawn in pictured.items():
        if any(drawing.separated for drawing in drawn):
            values["separated"][name] = score_separated(drawn, target, judge)
    return {task: rows for task, rows in values.items() if rows}, sets, references


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
