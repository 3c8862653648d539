"""Files and folders that appear whole or not at all: written under a temporary name beside it, then renamed."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


_PREFIX = ".partial-"


def write_text(path: str | os.PathLike, text: str, errors: str = "strict") -> None:
    """Write a text as UTF-8; `errors` says what happens to characters that can't be encoded, as for `open`."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8", errors=errors)


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Write bytes."""
    with atomic_path(path) as partial:
        partial.write_bytes(data)


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """
    A path to write a file to, which replaces the one at `path` when the block ends, or is removed after an error.

    It has `path`'s suffix, lies in its folder, which is made if missing, and is different for every process, so that
    several may write the same file at once.
    """
    path = Path(path)
    partial = _partial_path(path)
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | os.PathLike, overwrite: bool = False) -> Iterator[Path]:
    """
    A new folder to write to, which becomes the one at `path` when the block ends, or is removed after an error.

    Args:
        path (`str` or `os.PathLike`): The folder; parents are made if missing.
        overwrite (`bool`, defaults to `False`): Whether it may replace a folder that holds something.

    Raises:
        FileExistsError: At once, if there is a file at `path`, or a folder that holds something and may not be
            replaced.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or (any(path.iterdir()) and not overwrite)):
        raise FileExistsError(f"{path}: exists already; choose a new folder.")
    partial = _partial_path(path)
    partial.mkdir()
    try:
        yield partial
        if overwrite:
            shutil.rmtree(path, ignore_errors=True)
        elif path.exists():
            path.rmdir()
        os.replace(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def remove_partial(folder: str | os.PathLike) -> None:
    """Remove what killed processes have left in and below a folder; only while no other process writes there."""
    for path in list(Path(folder).rglob(f"{_PREFIX}*")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _partial_path(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f"{_PREFIX}{uuid.uuid4().hex[:12]}-{path.name}")
