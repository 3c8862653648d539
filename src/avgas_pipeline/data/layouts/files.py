"""Files of a data set: which there are, and what their names and folders say."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from ..annotations import parse_clip_name


# Folders and archives of these names hold what is of a split.
SPLITS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
}
# Lies in every folder that `avgas prepare` writes.
PREPARED = "prepare.json"


def files_in(folder: str | os.PathLike) -> Iterator[Path]:
    """
    Files in and below a folder, sorted; but not those below it that `avgas prepare` wrote, nor what systems hide.
    """
    for place, folders, names in os.walk(folder):
        inner = Path(place)
        if inner != Path(folder) and PREPARED in names:
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        # Pipes, which could be waited for without end, are no data.
        yield from (inner / name for name in sorted(names) if not is_hidden(name) and (inner / name).is_file())


def is_hidden(path: str) -> bool:
    """
    Whether a file or a folder of it has a name that systems keep for themselves: with a dot first, as the `._` files
    that macOS puts beside every file of an archive, or in `__MACOSX`.
    """
    return any(name.startswith(".") or name == "__MACOSX" for name in PurePosixPath(path).parts)


def contents_digest(folder: str | os.PathLike) -> str:
    """Of the names and sizes of a folder's files, wherever it lies."""
    sizes = [f"{path.relative_to(folder).as_posix()} {path.stat().st_size}" for path in files_in(folder)]
    return hashlib.sha256(os.fsencode("\n".join(sizes))).hexdigest()[:16]


def split_of(folders: Iterable[str]) -> str | None:
    """The split that the first of some folders names."""
    return next((SPLITS[name.lower()] for name in folders if name.lower() in SPLITS), None)


def path_inside(folder: Path, path: Path, where: str) -> str:
    """
    A path that a table gives.

    Raises:
        ValueError: If it leaves the data's folder.
    """
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{where}: '{path}' is outside of {folder}.")
    return str(path)


def made_ids(files: Iterable[str]) -> dict[str, str]:
    """
    An id of its own for every file, by its path in the data's folder: VGGSound's name of a clip, if the file is named
    so, or the folder that it has to itself, and no other one is; or else the path, without suffix where that is
    enough.
    """
    paths = {name: PurePosixPath(name) for name in files}
    in_folder = Counter(path.parent for path in paths.values())
    clips = {
        name: parse_clip_name(path.stem)
        or (parse_clip_name(path.parent.name) if in_folder[path.parent] == 1 else None)
        for name, path in paths.items()
    }
    stems = {name: path.with_suffix("").as_posix() for name, path in paths.items()}
    clip_counts, stem_counts = Counter(clips.values()), Counter(stems.values())
    return {
        name: clips[name]
        if clips[name] is not None and clip_counts[clips[name]] == 1
        else stems[name]
        if stem_counts[stems[name]] == 1
        else name
        for name in paths
    }
