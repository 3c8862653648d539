"""Which clips and pictures a run learns from, and which it is chosen by."""

import csv
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from datasets import concatenate_datasets

from avgas_pipeline.data.clips import BACKGROUND_LABEL, load_clips


CLIP_COLUMNS = ["id", "label", "source_group", "audio"]


def hold_out_groups(clips: Any, fraction: float, seed: int = 0) -> tuple[Any, Any]:
    """
    Clips to learn from and clips to choose by: of every label, about a fraction of its source groups, and never the
    last two.

    Args:
        clips (`datasets.Dataset`): With `label` and, if it has one, `source_group`.
        fraction (`float`): In [0, 1); 0 holds out nothing.
        seed (`int`, defaults to 0): Of the choice.
    """
    groups = clips["source_group"] if "source_group" in clips.column_names else clips["id"]
    by_label: dict[str, set[str]] = {}
    for label, group in zip(clips["label"], groups, strict=True):
        by_label.setdefault(label, set()).add(group)
    rng = np.random.default_rng(seed)
    held: set[tuple[str, str]] = set()
    for label, members in sorted(by_label.items()):
        count = min(round(fraction * len(members)), len(members) - 2)
        held.update((label, group) for group in rng.permutation(sorted(members))[: max(count, 0)].tolist())
    is_held = [pair in held for pair in zip(clips["label"], groups, strict=True)]
    return (
        clips.select([number for number, held_out in enumerate(is_held) if not held_out]),
        clips.select([number for number, held_out in enumerate(is_held) if held_out]),
    )


def add_clips(clips: Any, folders: Sequence[str], labels: Collection[str]) -> Any:
    """
    Clips, and those of other folders that have one of a model's labels or are [`BACKGROUND_LABEL`].

    Args:
        clips (`datasets.Dataset`): With `CLIP_COLUMNS`.
        folders (`Sequence[str]`): Of the same, such as `make_synthetic_clips.py` writes.
        labels (`Collection[str]`): Those of the model.

    Raises:
        ValueError: If a folder has no such clip, lacks a column or has one of another type, or if clips have pictures
            of their own: then no picture is shared.
    """
    for folder in folders:
        if "image" in clips.column_names:
            raise ValueError(f"{folder}: these clips have no pictures, and every clip of the dataset has its own.")
        extra = load_clips(folder)[0]
        missing = [name for name in CLIP_COLUMNS if name not in extra.column_names]
        if missing:
            raise ValueError(f"{folder}: has no column {missing[0]!r}.")
        extra = extra.select([row for row, label in enumerate(extra["label"]) if label in {*labels, BACKGROUND_LABEL}])
        if not len(extra):
            raise ValueError(f"{folder}: has no clip of a label that the model has.")
        clips, extra = clips.select_columns(CLIP_COLUMNS), extra.select_columns(CLIP_COLUMNS)
        try:
            extra = extra.cast(clips.features)
        # What Arrow raises are these, too.
        except (TypeError, ValueError, NotImplementedError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{folder}: its columns are not of the dataset's types ({reason}).") from None
        clips = concatenate_datasets([clips, extra])
    return clips


def choose_designs(pictures: Any, path: str) -> Any:
    """
    The pictures of designs that a table names.

    Args:
        pictures (`datasets.Dataset`): With `label` and `source_group`.
        path (`str`): CSV table with the columns `label` and `source_group`.

    Raises:
        ValueError: If it is something else, or names a design that no picture has.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            table = list(csv.DictReader(file))
        named = {(row["label"], row["source_group"]) for row in table}
    except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
        raise ValueError(f"{path}: is no CSV table of label and source_group ({error!r}).") from None
    designs = list(zip(pictures["label"], pictures["source_group"], strict=True))
    unknown = sorted(named - set(designs), key=repr)
    if unknown or not named:
        raise ValueError(f"{path}: no picture has the design {unknown[0] if unknown else 'asked for'}.")
    return pictures.select([number for number, design in enumerate(designs) if design in named])


def check_labels(labels: Sequence[str], id2label: Mapping[int, str], checkpoint: str) -> dict[str, int]:
    """
    Index of every label of a checkpoint.

    Raises:
        ValueError: If it lacks one of the data's.
    """
    label2id = {label: index for index, label in id2label.items()}
    missing = sorted(set(labels) - set(label2id))
    if missing:
        raise ValueError(
            f"{checkpoint}: does not have the label {missing[0]!r} (and {len(missing) - 1} more of the data's"
            f" {len(set(labels))})."
        )
    return label2id
