"""Files and folders that appear whole or not at all: written under a temporary name beside it, then renamed."""

import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path


try:
    import fcntl
except ImportError:
    # Windows, where nobody can tell what is being written from what a kill has left.
    fcntl = None

_PREFIX = ".partial-"
# An index of earlier results that have just gone, so that whoever comes after a kill knows what to remove.
_OUTDATED = ".outdated"


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
    path.parent.mkdir(parents=True, exist_ok=True)
    with _partial(path.parent, path.suffix, lambda partial: partial.touch(exist_ok=False)) as partial:
        yield partial
        os.replace(partial, path)


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
    path.parent.mkdir(parents=True, exist_ok=True)
    with _partial(path.parent, "", Path.mkdir) as partial:
        yield partial
        if overwrite:
            remove_folder(path)
        elif path.exists():
            path.rmdir()
        os.replace(partial, path)


@contextmanager
def atomic_files(
    folder: str | os.PathLike, index: str, listed: Callable[[Path], Iterable[str]] = lambda _: ()
) -> Iterator[Path]:
    """
    A new folder to write files to, which replace those in `folder` when the block ends, or are removed after an error.

    One of them, the index, says what there is. The old one goes first and the new one comes last: where there is one,
    everything that belongs to it is there. What an old one lists and the new files do not replace is removed, also if
    the process that wrote it was killed in between.

    Args:
        folder (`str` or `os.PathLike`): Where the files belong; made if missing, other files in it stay.
        index (`str`): Name of the index.
        listed (`Callable[[Path], Iterable[str]]`): The names of files that an old index lists, which may be damaged.

    Raises:
        IsADirectoryError: If there is a folder with the name of a file; then nothing has changed.
    """
    folder = Path(folder)
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with _partial(folder, "", Path.mkdir) as partial:
            yield partial
            # One at a time, so that files of two processes are not mixed.
            descriptor = _hold(folder)
            try:
                _replace_files(folder, partial, index, listed)
            finally:
                os.close(descriptor)
    finally:
        if is_new:
            # Only an empty folder can be removed so.
            with suppress(OSError):
                folder.rmdir()


def _replace_files(folder: Path, new: Path, index: str, listed: Callable[[Path], Iterable[str]]) -> None:
    names = sorted((path.name for path in new.iterdir()), key=lambda name: (name == index, name))
    for name in names:
        if (folder / name).is_dir():
            raise IsADirectoryError(f"{folder / name}: is a folder, and a file of that name is to be written.")
    with ExitStack() as taken:
        dead = [path for path in folder.glob(f"{_PREFIX}*") if taken.enter_context(_is_leftover(path))]
        with suppress(FileNotFoundError):
            os.replace(folder / index, new / _OUTDATED)
        outdated = {name for place in (new, *dead) for name in listed(place / _OUTDATED)}
        outdated |= {name for place in dead for name in listed(place / index)}
        for name in outdated - {*names}:
            if (folder / name).is_file():
                (folder / name).unlink(missing_ok=True)
        for name in names:
            os.replace(new / name, folder / name)
        for path in dead:
            _remove(path)


def remove_folder(path: str | os.PathLike) -> None:
    """Remove a folder, if there is one; whoever is killed in between has removed all of it or nothing."""
    aside = _partial_path(Path(path).parent, "")
    with suppress(FileNotFoundError):
        os.replace(path, aside)
        _remove(aside)


def finished(folder: str | os.PathLike, pattern: str) -> list[Path]:
    """The files in a folder that match, sorted, without those that are being written or that a kill has left."""
    return sorted(path for path in Path(folder).glob(pattern) if not path.name.startswith(_PREFIX))


def leftover_indexes(folder: str | os.PathLike, index: str) -> list[Path]:
    """Of files in a folder whose index has gone and that were being replaced when a kill came: the old and the new."""
    paths = [path / name for path in Path(folder).glob(f"{_PREFIX}*") for name in (index, _OUTDATED)]
    return [path for path in paths if path.is_file()]


def remove_partial(folder: str | os.PathLike) -> None:
    """Remove what killed processes have left in and below a folder; what others are writing there stays."""
    for path in list(Path(folder).rglob(f"{_PREFIX}*")):
        with _is_leftover(path) as is_leftover:
            if is_leftover:
                _remove(path)


@contextmanager
def _partial(folder: Path, suffix: str, make: Callable[[Path], None]) -> Iterator[Path]:
    """A new path in a folder, held while it is written to, so that others can tell it from what a kill has left."""
    while True:
        partial = _partial_path(folder, suffix)
        descriptor = None
        # A signal may end the process at any moment from here on.
        try:
            make(partial)
            with suppress(FileNotFoundError):
                descriptor = _hold(partial)
            # Someone may have taken it for a leftover before it was held.
            if descriptor is not None and partial.exists():
                yield partial
                return
        finally:
            _remove(partial)
            if descriptor is not None:
                os.close(descriptor)


def _partial_path(folder: Path, suffix: str) -> Path:
    return folder / f"{_PREFIX}{uuid.uuid4().hex[:12]}{suffix}"


def _hold(path: Path) -> int:
    """Lock a file or folder until the descriptor is closed; where the file system has no locks, only open it."""
    # Windows opens no folders.
    descriptor = os.open(path if fcntl else os.devnull, os.O_RDONLY)
    if fcntl:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


@contextmanager
def _is_leftover(partial: Path) -> Iterator[bool]:
    """
    Whether no process is writing it; if so, nobody begins before the block ends. Where the file system has no locks,
    nobody can tell, and it is not.
    """
    try:
        descriptor = os.open(partial, os.O_RDONLY) if fcntl else None
    except OSError:
        descriptor = None
    if descriptor is None:
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_held = True
    except OSError:
        is_held = False
    try:
        yield is_held
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
