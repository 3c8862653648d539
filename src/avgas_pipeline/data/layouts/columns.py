"""Which column of a table says what."""

import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import yaml

from ..annotations import clip_id


# Names that columns have in data sets on the Hub, likeliest first.
KNOWN = {
    "id": ("id", "video_id", "clip_id", "ytid", "youtube_id", "key", "__key__", "fname", "filename", "file_name"),
    "audio": ("audio", "flac", "wav", "mp3", "ogg", "opus", "m4a"),
    "video": ("video", "mp4", "webm", "mkv", "mov", "avi"),
    "image": ("image", "jpg", "jpeg", "png", "webp", "frame"),
    # Names before numbers of machines.
    "labels": ("human_labels", "labels", "label", "category", "class", "text", "txt", "cls"),
    "split": ("split", "set"),
    "start": ("start", "start_seconds", "start_s", "start_time"),
}
_LIST_SEPARATOR = re.compile(r"\s*[;|]\s*")


@dataclass(frozen=True)
class ColumnMap:
    """
    Names of a table's columns, by what they say; those that are not given are found by their usual names.

    Attributes:
        id, audio, video, image, labels, split, start (`str`, *optional*): Columns. `labels` may hold one label or
            several; with `start`, in seconds, ids become VGGSound's names of clips.
    """

    id: str | None = None
    audio: str | None = None
    video: str | None = None
    image: str | None = None
    labels: str | None = None
    split: str | None = None
    start: str | None = None

    @classmethod
    def parse(cls, text: str | None) -> "ColumnMap":
        """
        Read it from `label=category,audio=sound`, or from a YAML file of the same.

        Raises:
            ValueError: If it is something else, or has another name than the attributes' (`label` counts as `labels`).
        """
        if text is None:
            return cls()
        if text.endswith((".yaml", ".yml")):
            try:
                with open(text, encoding="utf-8") as file:
                    given = yaml.safe_load(file)
            except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
                raise ValueError(f"{text}: can't be read ({' '.join(str(error).split())}).") from None
        else:
            given = dict(pair.partition("=")[::2] for pair in text.split(","))
        if not isinstance(given, dict) or not all(isinstance(value, str) and value for value in given.values()):
            raise ValueError(f"columns: {text!r} has to be like 'labels=category,audio=sound'.")
        given = {"labels" if name == "label" else name: column for name, column in given.items()}
        known = [field.name for field in fields(cls)]
        unknown = [str(name) for name in given if name not in known]
        if unknown:
            raise ValueError(f"columns: {unknown[0]!r} is none of {', '.join(known)}.")
        return cls(**given)

    def found_in(self, names: Sequence[str], where: str) -> "ColumnMap":
        """
        The columns that a table has for each.

        Args:
            names (`Sequence[str]`): Its columns.
            where (`str`): What errors call it.

        Raises:
            ValueError: If a column that was given is missing, or there is none of labels, or neither sound nor video.
        """
        by_name = {name.strip().casefold(): name for name in names}
        found: dict[str, str | None] = {}
        for role, usual in KNOWN.items():
            given = getattr(self, role)
            if given is not None and given not in names:
                raise ValueError(f"{where}: has no column {given!r}, but {', '.join(map(repr, names))}.")
            found[role] = given or next((by_name[name] for name in usual if name in by_name), None)
        if found["labels"] is None:
            raise ValueError(
                f"{where}: which column has the labels? It has {', '.join(map(repr, names))}; say it as labels=NAME."
            )
        return ColumnMap(**found)


def labels_of(value: object) -> tuple[str, ...]:
    """Labels in a cell: one, a list, or several between semicolons or bars; each once, in their order."""
    values = (
        value
        if isinstance(value, (list, tuple))
        else _LIST_SEPARATOR.split(value or "")
        if isinstance(value, str)
        else [value]
    )
    return tuple(dict.fromkeys(text for text in (str(each).strip() for each in values if each is not None) if text))


def id_of(row: Mapping[str, object], columns: ColumnMap, made: str) -> str:
    """A row's id: with a start, VGGSound's name of the clip; one that is made where it has none.

    Raises:
        ValueError: If the start is no number of seconds.
    """
    value = row.get(columns.id) if columns.id is not None else None
    if value is None or not str(value).strip():
        return made
    start = row.get(columns.start) if columns.start is not None else None
    if start is None or start == "":
        return str(value).strip()
    try:
        return clip_id(str(value).strip(), float(start))
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{made}: a clip can't start at {reprlib.repr(start)} s.") from None
