"""Clips with labels, and their pictures, from whatever data set holds them."""

import os
from pathlib import Path
from typing import Any

from datasets import get_dataset_config_names
from datasets.exceptions import DatasetsError

from .cached import folder_digest, load_cached
from .soundscapes_mini import load_soundscapes_mini
from .tables import check_columns
from .vggsound import VGGSound


# Label of clips that are heard but are no source: rooms, hum, noise, beds of music.
BACKGROUND_LABEL = "background"


def load_clips(data: str | os.PathLike, split: str = "train") -> tuple[Any, Any]:
    """
    Clips, and pictures where they are a configuration of their own.

    Args:
        data (`str` or `os.PathLike`): soundscapes-mini or a data set of its shape, or one whose clips have pictures,
            such as `avgas prepare`'s Parquet shards: a folder or a Hub repository. A folder with `vggsound.csv` and
            videos or tar shards is read once, as a stream, into `datasets`' cache: mixing needs clips in any order.
        split (`str`, defaults to `"train"`): Of the data.

    Returns:
        Two `datasets.Dataset`; the second is `None` if clips have their pictures with them.

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
        clips, pictures = _load(path, os.fspath(data), split)
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


def _load(path: Path, data: str, split: str) -> tuple[Any, Any]:
    if (path / "vggsound.csv").exists():
        builder = VGGSound(data_dir=data, hash=folder_digest(path))
        builder.download_and_prepare()
        return builder.as_dataset(split), None
    if {"audio", "images"} <= set(get_dataset_config_names(data)):
        return load_soundscapes_mini(data, split)
    return load_cached(data, split=split), None
