"""Clips that a table beside their files names: `metadata.csv` or `metadata.jsonl`."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..annotations import ClipEntry
from ..archives import is_video
from ..text_files import read_csv, read_json_lines
from .clip import Clip, Layout
from .columns import ColumnMap, id_of, is_missing, labels_of
from .files import SPLITS, made_ids, path_inside, split_of
from .parts import listed, told, unique


METADATA = ("metadata.csv", "metadata.jsonl")
FILE_NAME = "file_name"


@dataclass(frozen=True)
class _Row:
    """
    A row of a table.

    Attributes:
        where (`str`): What errors call it.
        base (`Path`): Folder of the table.
        cells (`Mapping`): By column.
        columns ([`ColumnMap`]): Of the table.
        file (`str`): Path of its file in the data's folder.
    """

    where: str
    base: Path
    cells: Mapping[str, Any]
    columns: ColumnMap
    file: str

    def cell(self, column: str | None) -> Any:
        """What it has in a column; `None` for nothing."""
        value = None if column is None else self.cells.get(column)
        return None if is_missing(value) else value


def metadata_layout(folder: str | os.PathLike, columns: ColumnMap | None = None, part_size: int = 512) -> Layout:
    """
    Files that a table names: `metadata.csv` or `metadata.jsonl` with `file_name`, in the folder or in folders of
    splits, as of `datasets`' audiofolder and videofolder. Ids are what a column says, or else as of
    [`~avgas_pipeline.data.layouts.files.made_ids`]; splits are what a column says, or else the files' folders. A file
    of several rows has all their labels.

    Raises:
        ValueError: If a table can't be read, has no `file_name` or no labels, names something outside of the folder,
            or has another one beside it.
    """
    folder, columns = Path(folder), columns or ColumnMap()
    if columns.audio is not None or columns.video is not None:
        raise ValueError(f"{folder}: sounds and videos are named by {FILE_NAME!r} and not by other columns.")
    rows = [row for path in find_metadata(folder) for row in _table_rows(path, columns, folder)]
    made = made_ids(row.file for row in rows)
    clips, lost = unique(_merged(_row_clip(row, folder, made[row.file]) for row in rows))
    parts = (*listed(clips, part_size), *told(lost, clips[0].entry.split))
    return Layout(parts, tuple(clip.entry for clip in clips))


def find_metadata(folder: Path) -> list[Path]:
    """
    Tables that name files, in a folder or in its folders of splits.

    Raises:
        ValueError: If there are two in one folder.
    """
    places = [folder, *sorted(path for path in folder.iterdir() if path.is_dir() and path.name.lower() in SPLITS)]
    found = []
    for place in places:
        tables = [place / name for name in METADATA if (place / name).is_file()]
        if len(tables) > 1:
            raise ValueError(f"{place}: has both {' and '.join(METADATA)}; remove one of them.")
        found += tables
    return found


def _table_rows(path: Path, columns: ColumnMap, folder: Path) -> Iterator[_Row]:
    rows = list(_cells(path))
    if not rows:
        raise ValueError(f"{path}: has no rows.")
    # Rows of JSON need not all have the same.
    names = list(dict.fromkeys(name for _, cells in rows for name in cells))
    if FILE_NAME not in names:
        raise ValueError(f"{path}: has no column {FILE_NAME!r}.")
    # A file's name is no id, and no medium either.
    found = columns.found_in([name for name in names if name != FILE_NAME], str(path))
    for where, cells in rows:
        name = cells.get(FILE_NAME)
        if not isinstance(name, str) or not name:
            raise ValueError(f"{where}: needs a {FILE_NAME}.")
        medium = os.path.normpath(path_inside(folder, path.parent / name, where))
        yield _Row(where, path.parent, cells, found, Path(os.path.relpath(medium, folder)).as_posix())


def _cells(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if path.suffix == ".jsonl":
        for where, row in read_json_lines(path):
            if not isinstance(row, dict):
                raise ValueError(f"{where}: has to be an object, not {type(row).__name__}.")
            yield where, row
        return
    table = read_csv(path)
    where, header = next(table, (str(path), []))
    for where, row in table:
        if len(row) != len(header):
            raise ValueError(f"{where}: has {len(row)} cells, not {len(header)}.")
        yield where, dict(zip(header, row, strict=True))


def _row_clip(row: _Row, folder: Path, made: str) -> Clip:
    labels = labels_of(row.cell(row.columns.labels))
    if not labels:
        raise ValueError(f"{row.where}: needs a label.")
    said, image = row.cell(row.columns.split), row.cell(row.columns.image)
    if image is not None and not isinstance(image, str):
        raise ValueError(f"{row.where}: {row.columns.image!r} has to be a path, not {type(image).__name__}.")
    split = split_of(Path(row.file).parts[:-1]) if said is None else str(said).strip()
    try:
        clip_id = id_of(row.cells, row.columns, made)
    except ValueError as error:
        raise ValueError(f"{row.where}: {error}") from None
    medium = str(folder / row.file)
    picture = None if image is None else path_inside(folder, row.base / image, row.where)
    is_film = is_video(row.file)
    entry = ClipEntry(clip_id, labels, split)
    return Clip(entry, (medium,) if is_film else (), None if is_film else medium, picture)


def _merged(clips: Iterable[Clip]) -> list[Clip]:
    """Clips of the same id and files as one with all their labels."""
    merged: dict[tuple[Any, ...], Clip] = {}
    for clip in clips:
        key = (clip.entry.id, clip.entry.split, *clip.files)
        entry = merged.setdefault(key, clip).entry
        labels = tuple(dict.fromkeys(entry.labels + clip.entry.labels))
        merged[key] = replace(clip, entry=replace(entry, labels=labels))
    return list(merged.values())
