"""Clips with labels, and their pictures, from whatever data set holds them."""

import os
import warnings
from pathlib import Path
from typing import Any

from datasets import get_dataset_config_names
from datasets.exceptions import DatasetsError
from huggingface_hub import HfApi

from .builder import FEATURES, ClipDataset
from .cached import folder_digest, load_cached
from .layouts.columns import ColumnMap
from .layouts.detect import find_layout
from .layouts.tables import stream_table, table_names
from .soundscapes_mini import load_soundscapes_mini
from .tables import check_columns


# Label of clips that are heard but are no source: rooms, hum, noise, beds of music.
BACKGROUND_LABEL = "background"


def load_clips(
    data: str | os.PathLike, split: str = "train", layout: str | None = None, columns: str | None = None
) -> tuple[Any, Any]:
    """
    Clips, and pictures where they are a configuration of their own.

    Args:
        data (`str` or `os.PathLike`): A folder or Hub repository: soundscapes-mini or a data set of its shape,
            `avgas prepare`'s shards, or clips in any layout that [`~avgas_pipeline.data.layouts.detect.read_layout`]
            knows. These are read once, as a stream, into `datasets`' cache: mixing needs clips in any order.
        split (`str`, defaults to `"train"`): Of the data.
        layout (`str`, *optional*): The layout's name; found by the files if not given.
        columns (`str` or `dict`, *optional*): Which column says what, as of `ColumnMap.parse`.

    Returns:
        Two `datasets.Dataset`; the second is `None` if clips have their pictures with them, or there are none.

    Raises:
        ValueError: If it is a file, can't be read, has no rows, or rows without `id`, `label` and `audio`.
        FileNotFoundError: If it is missing or empty.
    """
    path = Path(data)
    if path.exists() and not path.is_dir():
        raise ValueError(f"{data}: is not a folder.")
    if path.is_dir() and not any(path.iterdir()):
        raise FileNotFoundError(f"{data}: the folder is empty.")
    try:
        clips, pictures = _load(path, os.fspath(data), split, layout, columns)
        if len(clips):
            check_columns(clips, "id", "label", "audio")
        if pictures is not None:
            check_columns(pictures, "id", "label", "image")
    except (DatasetsError, ValueError) as error:
        # These name the file.
        if isinstance(error, OSError) or (isinstance(error, ValueError) and str(data) in str(error)):
            raise
        raise ValueError(f"{data}: can't be read ({error.__cause__ or error}).") from None
    if not len(clips):
        raise ValueError(f"{data}: has no clips in {split!r}.")
    return clips, pictures


def _load(path: Path, data: str, split: str, layout: str | None, columns: str | None) -> tuple[Any, Any]:
    layout = layout or find_layout(data)
    if layout == "table" and columns is None:
        if {"audio", "images"} <= set(get_dataset_config_names(data)):
            return load_soundscapes_mini(data, split)
        if _is_ready(data):
            return _usable(load_cached(data, split=split), data), None
    version = folder_digest(path) if path.is_dir() else HfApi().dataset_info(data).sha
    builder = ClipDataset(data_dir=data, layout=layout, columns=ColumnMap.parse(columns), hash=version)
    with warnings.catch_warnings():
        # It is told below, as of what is cached.
        warnings.filterwarnings("ignore", message="(?s).* skipped: ")
        builder.download_and_prepare()
    skipped = builder.skipped_of_all()
    if skipped.counts:
        warnings.warn(f"{data}: {skipped}.", stacklevel=3)
    if split not in builder.info.splits:
        known = ", ".join(map(repr, builder.info.splits))
        raise ValueError(f"{data}: has no split {split!r}, but {known}; choose with `split`.")
    if not builder.info.splits[split].num_examples:
        raise ValueError(f"{data}: not one clip is of use ({skipped}).")
    return _usable(builder.as_dataset(split), data), None


def _is_ready(data: str) -> bool:
    """
    Whether a table has clips as they are used, their sounds not to be decoded by `datasets`: `avgas prepare`'s shards,
    or clips with source groups. Others may have several labels in one cell, or a column of splits.
    """
    features = stream_table(data, table_names(data)[0]).features
    has_clips = {"id", "label", "audio"} <= features.keys() and not hasattr(features["audio"], "decode")
    return has_clips and ("source_group" in features or FEATURES.keys() <= features.keys())


def _usable(clips: Any, data: str) -> Any:
    """Each id once, and pictures only where every clip has its own; a warning says what is left out."""
    if "image" in clips.column_names:
        missing = clips.data.column("image").null_count
        if 0 < missing < len(clips):
            warnings.warn(f"{data}: {missing} of {len(clips)} clips have no picture, so none is used.", stacklevel=4)
        if missing:
            clips = clips.remove_columns([name for name in ("image", "frame_s") if name in clips.column_names])
    # Of several rows with one id, the first.
    rows = {clip: row for row, clip in reversed(list(enumerate(clips["id"])))}
    if len(rows) < len(clips):
        repeated = len(clips) - len(rows)
        warnings.warn(f"{data}: {repeated} skipped: duplicate {repeated}.", stacklevel=4)
        clips = clips.select(sorted(rows.values()))
    return clips
