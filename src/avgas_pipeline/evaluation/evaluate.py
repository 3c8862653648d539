"""`evaluate`: several systems, one manifest, one judge, one report."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..data.vocabulary import nearest_labels
from ..files import atomic_path, remove_partial
from ..metrics.fidelity import fewest_images
from ..metrics.judges import Judge
from .columns import table_columns
from .drawing_folder import DrawingFolder, check_settings, draw_all
from .image_folder import ImageFolderSystem
from .pipeline_system import DrawingSettings, PipelineSystem
from .processes import first_process_alone, shared_state
from .reliability import draw_reliability
from .report import GATE_FEWEST, plain, summarise, versions, write_report
from .samples import draw_samples
from .scoreboard import Scoreboard
from .soundscapes import MANIFEST, EvaluationSet


def evaluate(
    systems: Sequence[PipelineSystem | ImageFolderSystem],
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
        systems (`Sequence[PipelineSystem | ImageFolderSystem]`): The first one is what others are compared with.
        dataset ([`EvaluationSet`]): The soundscapes.
        judge ([`Judge`], *optional*): Of images; not needed when nothing is drawn.
        out (`Path`): The report's folder.
        settings ([`DrawingSettings`]): How pipelines draw.
        batch_size (`int`, defaults to 4): Soundscapes that are drawn at a time.
        top_k (`int`, *optional*): K of R@K*; by default each soundscape's own number of sources.

    Returns:
        `dict`: What `report.json` holds; empty in all processes but the first.

    Raises:
        ValueError: If the judge or a pipeline does not know a true label, `out` holds another evaluation, or an image
            is damaged.
    """
    state = shared_state()
    labels = [dataset.true_labels(number) for number in range(len(dataset))]
    true = {label for own in labels for label in own}
    num_sources = np.array([len(own) for own in labels])
    if top_k is None and len(set(num_sources.tolist())) == 1:
        top_k = int(num_sources[0])
    if top_k is not None and top_k < num_sources.max():
        raise ValueError(f"R@{top_k}* is not defined for soundscapes with {num_sources.max()} sources.")
    if judge is not None:
        _check_known(true, judge.labels, "The judge does not know")
        if top_k is not None and top_k > len(judge.labels):
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

    def prepare() -> dict[str, list[range]]:
        check_settings(out / "settings.json", identity)
        dataset.write_manifest(out / MANIFEST)
        remove_partial(out / "systems")
        # All systems before any draws: a bad one shall not be found out after hours.
        for system in systems:
            fingerprints[system.name] = system.fingerprint()
            if isinstance(system, ImageFolderSystem):
                system.verify()
            else:
                source = identity["data"]["data"]
                known = system.pipe.separator.id2label.values()
                _check_known(true, known, f"{source}: the model {system.checkpoint} does not know")
                check_settings(folders[system.name].path / "system.json", fingerprints[system.name])
            system.close()
        _check_distinct(fingerprints)
        # Each process by itself would not count what others are drawing already.
        return {name: folder.missing() for name, folder in folders.items()}

    missing = first_process_alone(state, prepare)
    for system in systems:
        if not isinstance(system, ImageFolderSystem):
            draw_all(system, dataset, folders[system.name], missing[system.name], state)
    if not state.is_main_process:
        return {}

    scores = Scoreboard(dataset, judge, top_k)
    for system in systems:
        is_folder = isinstance(system, ImageFolderSystem)
        scores.add(system.name, system.drawings() if is_folder else folders[system.name].read(system.name))
    scores.add_anchors()
    columns = table_columns(top_k)
    report = {
        "systems": fingerprints,
        **identity,
        "settings": {**identity["settings"], "top_k": top_k},
        "num_sources": {str(count): int((num_sources == count).sum()) for count in sorted(set(num_sources.tolist()))},
        **summarise(scores.values, columns, list(fingerprints), num_sources, scores.presence),
        "sets": {name: {key: plain(value) for key, value in row.items()} for name, row in scores.sets.items()},
        "reliability": {
            name: [{key: plain(value) for key, value in one.items()} for one in bins]
            for name, bins in scores.reliability.items()
        },
        "no_source": scores.no_source,
        "too_few": _too_few(scores, judge, dataset, num_sources),
        "versions": versions(),
    }
    write_report(out, report, scores.values, columns)
    pictures = {}
    if scores.samples:
        pictures["samples.png"] = draw_samples(dataset, scores.samples)
    if scores.reliability:
        pictures["reliability.png"] = draw_reliability(scores.reliability)
    for name, picture in pictures.items():
        with atomic_path(out / name) as path:
            picture.save(path)
    return report


def _too_few(
    scores: Scoreboard, judge: Judge | None, dataset: EvaluationSet, num_sources: np.ndarray
) -> dict[str, int]:
    """What was not measured for want of soundscapes alone, and how many it needs."""
    if judge is None or "mixed" not in scores.values or not dataset.has_pictures:
        return {}
    needed = {name.upper(): fewest_images(name, judge.num_features) for name in ("fid", "kid")}
    found = {name: count for name, count in needed.items() if len(num_sources) < count}
    # Anchors are made of the stems' own pictures.
    if dataset.has_stems and 0 < (num_sources > 1).sum() < GATE_FEWEST:
        found["the validity gate"] = GATE_FEWEST
    return found


def _check_known(true: set[str], known: Iterable[str], complaint: str) -> None:
    """A label that is never given would count as never found."""
    known = list(known)
    unknown = sorted(true.difference(known))
    if unknown:
        nearest = nearest_labels(unknown[0], known)
        more = f" (and {len(unknown) - 1} more of the labels)" if len(unknown) > 1 else ""
        raise ValueError(f"{complaint} {unknown[0]!r}{more}{nearest}.")


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
