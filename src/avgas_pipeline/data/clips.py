"""Clips with labels, and their pictures, from whatever data set holds them."""

import hashlib
import os
from pathlib import Path
from typing import Any

from datasets import get_dataset_config_names, load_dataset

from .soundscapes_mini import load_soundscapes_mini
from .vggsound import VGGSound


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
        ValueError: If it is a file, or has no rows.
        FileNotFoundError: If it is missing or empty.
    """
    path = Path(data)
    if path.exists() and not path.is_dir():
        raise ValueError(f"{data}: is not a folder.")
    if path.is_dir() and not any(path.iterdir()):
        raise FileNotFoundError(f"{data}: the folder is empty.")
    if (path / "vggsound.csv").exists():
        builder = VGGSound(data_dir=os.fspath(data), hash=_digest(path))
        builder.download_and_prepare()
        clips, pictures = builder.as_dataset(split), None
    elif {"audio", "images"} <= set(get_dataset_config_names(os.fspath(data))):
        clips, pictures = load_soundscapes_mini(data, split)
    else:
        clips, pictures = load_dataset(os.fspath(data), split=split), None
    if not len(clips):
        raise ValueError(f"{data}: has no clips in {split!r}.")
    return clips, pictures


def _digest(folder: Path) -> str:
    """Of all files' names, sizes and times, so that data that changed is read again."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        stat = file.stat()
        digest.update(f"{file.relative_to(folder)} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]
