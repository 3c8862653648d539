"""Tables that `datasets` reads as a stream: Parquet and WebDataset, in a folder or on the Hub."""

import os
import reprlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
from datasets import ClassLabel, Features, IterableDataset, Value, load_dataset, load_dataset_builder
from huggingface_hub import HfApi

from ..annotations import ClipEntry
from ..report import SkipReport
from .clip import Clip, Layout, Medium
from .columns import ColumnMap, id_of, is_missing, labels_of
from .files import contents_digest, path_inside


# A WebDataset's columns of a clip's name, and of what else is known of it.
KEY, JSON = "__key__", "json"
# How types of numbers begin.
_NUMBERS = ("int", "uint", "float", "bool")
_MEDIA = (datasets.Audio, datasets.Video, datasets.Image)


@dataclass(frozen=True)
class TablePart:
    """
    One shard of a table's split.

    Attributes:
        data (`str`): Folder or Hub repository.
        table (`str`): The table's split.
        split (`str`): That of its clips: rows of others are left out.
        columns ([`ColumnMap`]): What was found in it.
        index, count (`int`): Which shard, of how many.
        version (`str`): Of the data: a folder's digest, or a repository's revision.
    """

    data: str
    table: str
    split: str
    columns: ColumnMap
    index: int
    count: int
    version: str
    size = None

    def read(self, skipped: SkipReport) -> Iterator[Clip]:
        """As of [`Part`]."""
        rows = stream_table(self.data, self.table).shard(self.count, self.index)
        names = {column: _class_names(rows, column) for column in (self.columns.labels, self.columns.split)}
        for number, row in enumerate(map(_flat, rows)):
            if _split_of(row, self.columns.split, names[self.columns.split], self.table) != self.split:
                continue
            made = f"{self.table}-{self.index:05d}-{number:06d}"
            try:
                clip = self._clip(row, names[self.columns.labels], made)
            except (ValueError, TypeError, OSError) as error:
                skipped.add(made, "no clip", str(error))
            else:
                yield clip

    def fingerprint(self) -> Any:
        """As of [`Part`]."""
        return [self.version, self.table, self.split, vars(self.columns), self.index, self.count]

    def _clip(self, row: dict[str, Any], names: Sequence[str] | None, made: str) -> Clip:
        columns = self.columns
        value = row.get(columns.labels)
        if names is not None:
            numbers = value if isinstance(value, list) else [value]
            # Data sets write -1 for none, as of test splits whose labels are kept secret.
            value = [_class_name(number, names) for number in numbers if number not in (None, -1)]
        labels = labels_of(value)
        if not labels:
            raise ValueError("it has no label")
        entry = ClipEntry(id_of(row, columns, made), labels, self.split)
        audio, image = (self._medium(row, name) for name in (columns.audio, columns.image))
        try:
            video = self._medium(row, columns.video)
        except (ValueError, OSError):
            # Some tables call YouTube's ids so.
            if audio is None:
                raise
            video = None
        if audio is None and video is None:
            raise ValueError("it has neither sound nor video")
        return Clip(entry, () if video is None else (video,), audio, image)

    def _medium(self, row: dict[str, Any], column: str | None) -> Medium | None:
        """Bytes of a file, or its path in the data's folder, as `datasets` stores it undecoded."""
        value = None if column is None else row.get(column)
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if value is None or isinstance(value, bytes):
            return value
        if not isinstance(value, str):
            raise ValueError(f"{column!r} holds {type(value).__name__}, which is no file")
        folder = Path(self.data)
        if not folder.is_dir() or not (folder / value).is_file():
            raise ValueError(f"{column!r} has {reprlib.repr(value)}, which is no file in {self.data}")
        return path_inside(folder, folder / value, repr(column))


def table_layout(data: str | os.PathLike, columns: ColumnMap | None = None) -> Layout:
    """
    All splits of a table. Media are read as they are stored, and decoded by our own loader. Where a column says a
    clip's split, that counts; else the table's.

    Args:
        data (`str` or `os.PathLike`): Folder or Hub repository.
        columns ([`ColumnMap`], *optional*): Which column says what, where it is not their usual names that do.

    Raises:
        ValueError: If a column is missing, or there are no labels, or neither sound nor video.
    """
    data = os.fspath(data)
    version = contents_digest(data) if os.path.isdir(data) else HfApi().dataset_info(data).sha
    parts = []
    for table in table_names(data):
        rows = stream_table(data, table)
        inner = rows.features.get(JSON)
        names = list(dict.fromkeys([*rows.column_names, *(inner if isinstance(inner, dict) else ())]))
        found = _without_numbers((columns or ColumnMap()).found_in(names, data), columns or ColumnMap(), rows.features)
        if found.audio is None and found.video is None:
            raise ValueError(
                f"{data}: has neither sound nor video, but {', '.join(map(repr, names))}; say it as audio=NAME or"
                " video=NAME."
            )
        count = rows.num_shards
        parts += [
            TablePart(data, table, split, found, index, count, version)
            for split in _splits(rows, found.split, table)
            for index in range(count)
        ]
    return Layout(tuple(parts))


def _without_numbers(found: ColumnMap, given: ColumnMap, features: Features) -> ColumnMap:
    """Without columns of numbers that were taken for media by their names alone, such as the `frame` of a label."""
    numbers = [
        role
        for role in ("audio", "video", "image")
        if getattr(given, role) is None
        and getattr(features.get(getattr(found, role)), "dtype", "").startswith(_NUMBERS)
    ]
    return replace(found, **dict.fromkeys(numbers))


def table_names(data: str) -> list[str]:
    """The splits that a data set has as files; columns may say others."""
    return list(load_dataset_builder(data).info.splits or datasets.get_dataset_split_names(data))


def stream_table(data: str, split: str) -> IterableDataset:
    """A split as a stream, its media undecoded."""
    rows = load_dataset(data, split=split, streaming=True)
    if rows.features is None:
        rows = rows._resolve_features()
    media = {name: feature for name, feature in rows.features.items() if isinstance(feature, _MEDIA)}
    if KEY in rows.features:
        # A WebDataset's files are encoded as they are read, for which `datasets` needs torchcodec.
        plain = rows.features | dict.fromkeys(media, Value("binary"))
        return load_dataset(data, split=split, streaming=True, features=Features(plain))
    for name, feature in media.items():
        rows = rows.cast_column(name, type(feature)(decode=False))
    return rows


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """A row with what a WebDataset's JSON file says of it."""
    inner = row.get(JSON)
    return {**inner, **row} if isinstance(inner, dict) else row


def _splits(rows: IterableDataset, column: str | None, table: str) -> list[str]:
    """The splits of a table's clips, as far as possible without reading the other columns."""
    if column is None:
        return [table]
    names = _class_names(rows, column)
    narrow = rows.select_columns([column if column in rows.column_names else JSON])
    return sorted({_split_of(row, column, names, table) for row in map(_flat, narrow)})


def _split_of(row: dict[str, Any], column: str | None, names: Sequence[str] | None, table: str) -> str:
    """The split that a column says, or else the table's."""
    value = None if column is None else row.get(column)
    if is_missing(value) or (names is not None and value == -1):
        return table
    return str(value).strip() if names is None else _class_name(value, names)


def _class_names(rows: IterableDataset, column: str | None) -> list[str] | None:
    """Names of what a column stores as numbers."""
    feature = rows.features.get(column)
    inner = getattr(feature, "feature", feature)
    return inner.names if isinstance(inner, ClassLabel) else None


def _class_name(number: Any, names: Sequence[str]) -> str:
    if number not in range(len(names)):
        raise ValueError(f"{number!r} is the number of none of {len(names)} names")
    return names[number]
