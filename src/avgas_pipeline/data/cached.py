"""Data sets in folders, as `datasets` caches them, told apart by what they hold."""

import hashlib
import os
from pathlib import Path

import datasets
from datasets import Dataset, load_dataset


def load_cached(data: str | os.PathLike, name: str | None = None, split: str = "train") -> Dataset:
    """
    One split of a folder or Hub repository; `name` is its configuration, if it has several.

    A folder that changed, or another one of the same name, is read anew: `datasets` alone would go on with what it
    cached.
    """
    cache = None
    if os.path.isdir(data):
        cache = os.path.join(datasets.config.HF_DATASETS_CACHE, f"folder-{folder_digest(data)}")
    return load_dataset(os.fspath(data), name, split=split, cache_dir=cache)


def folder_digest(folder: str | os.PathLike) -> str:
    """Of the path and of all files' names, sizes and times."""
    folder = Path(folder).resolve()
    digest = hashlib.sha256(os.fsencode(folder))
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        stat = file.stat()
        digest.update(os.fsencode(file.relative_to(folder)) + f" {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]
