"""Tables that `datasets` reads as a stream: Parquet and WebDataset, in a folder or on the Hub."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import datasets
from datasets import ClassLabel, Features, IterableDataset, Value, load_dataset, load_dataset_builder

from ..annotations import ClipEntry
from ..cached import folder_digest
from ..report import SkipReport
from .clip import Clip, Layout, Medium
from .columns import ColumnMap, id_of, labels_of


# A WebDataset's columns of a clip's name, and of what else is known of it.
KEY, JSON = "__key__", "json"
_MEDIA = (datasets.Audio, datasets.Video, datasets.Image)


@dataclass(frozen=True)
class TablePart:
    """
    One shard of a table's split.

    Attributes:
        data (`str`): Folder or Hub repository.
        table (`str`): The table's split.
        split (`str`): That of its clips: where a column says it, only such rows are read.
        columns ([`ColumnMap`]): What was found in it.
        index, count (`int`): Which shard, of how many.
    """

    data: str
    table: str
    split: str
    columns: ColumnMap
    index: int
    count: int
    size = None

    def read(self, skipped: SkipReport) -> Iterator[Clip]:
        """As of [`Part`]."""
        rows = stream_table(self.data, self.table).shard(self.count, self.index)
        names = _label_names(rows, self.columns.labels)
        for number, row in enumerate(map(_flat, rows)):
            if self.columns.split is not None and str(row[self.columns.split]) != self.split:
                continue
            made = f"{self.table}-{self.index:05d}-{number:06d}"
            try:
                clip = _clip(row, self.columns, names, made, self.split)
            except (ValueError, TypeError, IndexError) as error:
                skipped.add(made, "no clip", str(error))
            else:
                yield clip

    def fingerprint(self) -> Any:
        """As of [`Part`]."""
        digest = folder_digest(self.data) if os.path.isdir(self.data) else self.data
        return [digest, self.table, self.split, vars(self.columns), self.index, self.count]


def table_layout(data: str | os.PathLike, columns: ColumnMap | None = None) -> Layout:
    """
    All splits of a table. Media are read as they are stored, and decoded by our own loader.

    Args:
        data (`str` or `os.PathLike`): Folder or Hub repository.
        columns ([`ColumnMap`], *optional*): Which column says what, where it is not their usual names that do.

    Raises:
        ValueError: If a column is missing, or there are no labels, or neither sound nor video.
    """
    data = os.fspath(data)
    parts = []
    for split in load_dataset_builder(data).info.splits or datasets.get_dataset_split_names(data):
        rows = stream_table(data, split)
        inner = rows.features.get(JSON)
        names = [*rows.column_names, *(inner if isinstance(inner, dict) else ())]
        found = (columns or ColumnMap()).found_in(names, data)
        if found.audio is None and found.video is None:
            raise ValueError(
                f"{data}: has neither sound nor video, but {', '.join(map(repr, names))}; say it as audio=NAME or"
                " video=NAME."
            )
        said = [split]
        if found.split in rows.column_names:
            said = _values(rows, found.split)
        else:
            found = replace(found, split=None)
        count = rows.num_shards
        parts += [TablePart(data, split, each, found, index, count) for each in said for index in range(count)]
    return Layout(tuple(parts))


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


def _values(rows: IterableDataset, column: str) -> list[str]:
    """What a column has, without reading the others."""
    return sorted({str(row[column]) for row in rows.select_columns([column])})


def _label_names(rows: IterableDataset, column: str) -> list[str] | None:
    """Names of labels that are stored as numbers."""
    feature = rows.features.get(column)
    inner = getattr(feature, "feature", feature)
    return inner.names if isinstance(inner, ClassLabel) else None


def _clip(row: dict[str, Any], columns: ColumnMap, names: list[str] | None, made: str, split: str) -> Clip:
    value = row[columns.labels]
    if names is not None:
        value = [names[number] for number in (value if isinstance(value, list) else [value])]
    labels = labels_of(value)
    if not labels:
        raise ValueError("it has no label")
    entry = ClipEntry(id_of(row, columns, made), labels, split)
    audio, video, image = (_medium(row, name) for name in (columns.audio, columns.video, columns.image))
    if audio is None and video is None:
        raise ValueError("it has neither sound nor video")
    return Clip(entry, () if video is None else (video,), audio, image)


def _medium(row: dict[str, Any], column: str | None) -> Medium | None:
    """Bytes of a file, or its path, as `datasets` stores it undecoded."""
    value = None if column is None else row[column]
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if value is None or isinstance(value, (bytes, str)):
        return value
    raise ValueError(f"{column!r} holds {type(value).__name__}, which is no file")
