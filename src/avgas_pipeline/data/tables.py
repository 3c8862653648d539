"""Clips and pictures of any data set by their ids, read only when they are needed."""

import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..audio.loading import load_audio


class ClipTable:
    """
    Clips by their ids. Decoded ones are kept, 4 bytes per sample, as far as there is room: those that were used last.

    Args:
        clips (`Sequence[Mapping]`): Rows as of [`~avgas_pipeline.data.mixtures.MixtureSampler`].
        sampling_rate (`int`): Of the waveforms, in Hz.
        most_cached_bytes (`int`, defaults to 2**30): Room for decoded clips; data sets need not fit in memory.

    Attributes:
        groups (`dict[str, list[list[str]]]`): Ids of the clips of every label, source group by source group.

    Raises:
        ValueError: If there is no clip, or no column `id`, `label` or `audio`, or an id or label is no text.
    """

    def __init__(self, clips: Sequence[Mapping[str, Any]], sampling_rate: int, most_cached_bytes: int = 2**30) -> None:
        check_columns(clips, "id", "label", "audio")
        self.clips = clips
        self.sampling_rate = sampling_rate
        self.groups = _group_by_label(clips)
        self._rows = {clip: row for row, clip in enumerate(_column(clips, "id"))}
        self._has_groups = "source_group" in _names(clips)
        self._cache: OrderedDict[str, np.ndarray] = OrderedDict()
        self._room = most_cached_bytes

    def __contains__(self, clip: str) -> bool:
        return clip in self._rows

    def row_number(self, clip: str) -> int:
        """
        Where a clip is in the data set.

        Raises:
            ValueError: If it is not.
        """
        if clip not in self._rows:
            raise ValueError(f"There is no clip {clip!r} in this data set.")
        return self._rows[clip]

    def row(self, clip: str) -> Mapping[str, Any]:
        """A clip as the data set has it."""
        return self.clips[self.row_number(clip)]

    def waveform(self, clip: str) -> np.ndarray:
        """A clip's samples `(T,)`, float32."""
        if clip in self._cache:
            self._cache.move_to_end(clip)
            return self._cache[clip]
        waveform = load_audio(self.row(clip)["audio"], target_sampling_rate=self.sampling_rate, name=clip)
        self._cache[clip] = waveform
        self._room -= waveform.nbytes
        while self._room < 0:
            self._room += self._cache.popitem(last=False)[1].nbytes
        return waveform

    def encoded(self, clip: str) -> bytes | Path:
        """A clip's bytes as the data set has them, or the path of its file."""
        value = self.row(clip)["audio"]
        if isinstance(value, Mapping):
            value = next((value[key] for key in ("bytes", "path", "array") if value.get(key) is not None), b"")
        if isinstance(value, (str, os.PathLike)):
            return Path(value)
        return value if isinstance(value, bytes) else np.asarray(value).tobytes()

    def source_group(self, clip: str) -> str:
        """The group of clips from one recording that a clip belongs to; its own id if it has none."""
        return (self.row(clip)["source_group"] or clip) if self._has_groups else clip


class PictureTable:
    """
    Pictures by their ids: those of the clips, if they have pictures of their own, or others, drawn by label.

    Args:
        clips (`Sequence[Mapping]`): Rows as of [`~avgas_pipeline.data.mixtures.MixtureSampler`].
        pictures (`Sequence[Mapping]`, *optional*): Rows with `id`, `label` and `image`; not used if clips have their
            own.

    Raises:
        ValueError: If a label has no picture.
    """

    def __init__(self, clips: Sequence[Mapping[str, Any]], pictures: Sequence[Mapping[str, Any]] | None) -> None:
        self._are_of_clips = "image" in _names(clips)
        self._pictures = clips if self._are_of_clips else pictures
        self._by_label: dict[str, list[str]] = {}
        self._rows: dict[str, int] = {}
        if self._pictures is None:
            return
        self._rows = {picture: row for row, picture in enumerate(_column(self._pictures, "id"))}
        if not self._are_of_clips:
            for picture, label in zip(_column(pictures, "id"), _column(pictures, "label"), strict=True):
                self._by_label.setdefault(label, []).append(picture)
            missing = sorted(set(_column(clips, "label")) - self._by_label.keys())
            if missing:
                raise ValueError(f"There is no picture for {missing[0]!r} (and {len(missing) - 1} more labels).")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, picture: str) -> Any:
        """A picture as the data set has it."""
        if picture not in self._rows:
            raise ValueError(f"There is no picture {picture!r} in this data set.")
        return self._pictures[self._rows[picture]]["image"]

    def draw(self, clip: str, label: str, rng: np.random.Generator) -> str | None:
        """The id of a picture for a source: its clip's own, or a random one of its label; `None` without pictures."""
        if self._are_of_clips:
            return clip
        candidates = self._by_label.get(label, [])
        return candidates[int(rng.integers(len(candidates)))] if candidates else None

    def suits(self, picture: str | None, label: str) -> bool:
        """Whether a picture can be that of a source with a label."""
        return picture in (self._rows if self._are_of_clips else self._by_label.get(label, ()))


def _names(table: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(table.column_names) if hasattr(table, "column_names") else list(table[0])


def check_columns(table: Sequence[Mapping[str, Any]], *names: str) -> None:
    """
    Raises:
        ValueError: If there are no rows, they lack one of the columns, or have an `id` or `label` that is no text.
    """
    if not len(table):
        raise ValueError("there are no clips or pictures.")
    missing = [name for name in names if name not in _names(table)]
    if missing:
        raise ValueError(f"there is no column {missing[0]!r}, but {', '.join(map(repr, _names(table)))}.")
    for name in {"id", "label"}.intersection(names):
        for number, value in enumerate(_column(table, name)):
            if not isinstance(value, str):
                raise ValueError(f"row {number} has {name!r} {value!r}, which is no text.")


def _column(table: Sequence[Mapping[str, Any]], name: str) -> list:
    """One column, without reading the others: rows may be heavy."""
    return list(table[name]) if hasattr(table, "column_names") else [row[name] for row in table]


def _group_by_label(clips: Sequence[Mapping[str, Any]]) -> dict[str, list[list[str]]]:
    """Ids of the clips of every label, source group by source group; a clip without group is one by itself."""
    ids, labels = _column(clips, "id"), _column(clips, "label")
    groups = _column(clips, "source_group") if "source_group" in _names(clips) else ids
    tree: dict[str, dict[str, list[str]]] = {}
    for clip, label, group in zip(ids, labels, groups, strict=True):
        tree.setdefault(label, {}).setdefault(clip if group is None else group, []).append(clip)
    return {label: [sorted(members) for _, members in sorted(by_group.items())] for label, by_group in tree.items()}
