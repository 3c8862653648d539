"""Which clips and pictures a run learns from, and which it is chosen by."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image
from datasets import concatenate_datasets

from avgas_pipeline.data.clips import BACKGROUND_LABEL, load_clips
from avgas_pipeline.data.scenes import open_picture


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


def most_colourful(pictures: Any, count: int) -> Any:
    """
    Of every label `count` pictures, the most colourful ones of different source groups.

    Args:
        pictures (`datasets.Dataset`): With `label`, `image` and `source_group`.
        count (`int`): Fewer where there are not so many groups.
    """
    best: dict[tuple[str, str], tuple[float, int]] = {}
    for row, picture in enumerate(pictures):
        key = (picture["label"], picture["source_group"])
        found = (colourfulness(open_picture(picture["image"])), -row)
        best[key] = max(best.get(key, found), found)
    by_label: dict[str, list[tuple[float, int]]] = {}
    for (label, _), found in best.items():
        by_label.setdefault(label, []).append(found)
    chosen = [-row for found in by_label.values() for _, row in sorted(found, reverse=True)[:count]]
    return pictures.select(sorted(chosen))


def colourfulness(picture: PIL.Image.Image) -> float:
    """
    Of a picture's opaque pixels: spread plus 0.3 times the distance of the mean from grey, of red - green and of
    yellow - blue (Hasler and Süsstrunk, "Measuring colorfulness in natural images", 2003); from 0 on, above 100 is
    vivid.
    """
    pixels = np.asarray(picture.convert("RGBA"), dtype=np.float32)
    red, green, blue, _ = pixels[pixels[..., 3] >= 128].T
    opponents = (red - green, (red + green) / 2 - blue)
    spread = np.hypot(*(float(values.std()) for values in opponents))
    return float(spread + 0.3 * np.hypot(*(float(values.mean()) for values in opponents)))


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
