"""Which layout a data set has."""

import os
import re
import reprlib
from collections.abc import Callable
from pathlib import Path

from ..suffixes import AUDIO_SUFFIXES, VIDEO_SUFFIXES
from .clip import Layout
from .columns import ColumnMap
from .corpora import ESC50_TABLE, FSD50K_TRUTH, esc50_layout, fsd50k_layout
from .files import files_in
from .folders import class_folders_layout
from .metadata import find_metadata, metadata_layout
from .tables import table_layout
from .vggsound import TABLE, TAR_SUFFIXES, vggsound_layout


LAYOUTS = ("vggsound", "metadata", "class-folders", "table", "esc50", "fsd50k")
WITH_COLUMNS = ("metadata", "table")


def find_layout(data: str | os.PathLike) -> str:
    """
    The name of a data set's layout, by the files in it; a Hub repository is a table.

    Raises:
        ValueError: If two tables in a folder contradict each other.
    """
    folder = Path(data)
    if not folder.is_dir():
        return "table"
    if (folder / TABLE).is_file():
        return "vggsound"
    if (folder / ESC50_TABLE).is_file():
        return "esc50"
    if (folder / FSD50K_TRUTH).is_dir():
        return "fsd50k"
    if find_metadata(folder):
        return "metadata"
    files = list(files_in(folder))
    has_clips = any(path.suffix.lower() in (*AUDIO_SUFFIXES, *VIDEO_SUFFIXES, ".zip") for path in files)
    # Shards that were prepared into a folder of clips are not its data; but a folder may hold nothing else.
    if any(_is_table(path) for path in (files if has_clips else folder.rglob("*"))):
        return "table"
    return "class-folders"


def _is_table(path: Path) -> bool:
    return path.suffix == ".parquet" or path.name.endswith(TAR_SUFFIXES)


def read_layout(
    data: str | os.PathLike, layout: str | None = None, columns: ColumnMap | None = None, part_size: int = 512
) -> Layout:
    """
    A data set's parts.

    Args:
        data (`str` or `os.PathLike`): Folder, or Hub repository.
        layout (`str`, *optional*): One of `LAYOUTS`; found by the files if not given.
        columns ([`ColumnMap`], *optional*): Which column says what, of tables and metadata.
        part_size (`int`, defaults to 512): Clips of a part, where that can be chosen.

    Raises:
        ValueError: If the layout is unknown or does not fit, columns are given for one that has none, or what a
            column says can't name a split.
        FileNotFoundError: If files are missing.
    """
    name = layout or find_layout(data)
    readers: dict[str, Callable[[], Layout]] = {
        "vggsound": lambda: vggsound_layout(data, part_size=part_size),
        "metadata": lambda: metadata_layout(data, columns, part_size),
        "class-folders": lambda: class_folders_layout(data, part_size),
        "table": lambda: table_layout(data, columns),
        "esc50": lambda: esc50_layout(data, part_size),
        "fsd50k": lambda: fsd50k_layout(data, part_size),
    }
    if name not in readers:
        raise ValueError(f"layout has to be one of {', '.join(LAYOUTS)} but is {name!r}.")
    if name not in WITH_COLUMNS and columns not in (None, ColumnMap()):
        raise ValueError(
            f"{data}: columns are for the layouts {' and '.join(WITH_COLUMNS)}; it has the layout {name}."
        )
    found = readers[name]()
    for split in {part.split for part in found.parts} - {None}:
        # It names files.
        if not re.fullmatch(r"\w+", split):
            raise ValueError(f"{data}: {reprlib.repr(split)} can't name a split.")
    return found
