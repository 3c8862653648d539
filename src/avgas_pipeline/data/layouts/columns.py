"""Which column of a table says what."""

import ast
import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import yaml

from ..annotations import clip_id, parse_clip_name


# Names that columns have in data sets on the Hub, likeliest first.
KNOWN = {
    "id": ("id", "video_id", "clip_id", "ytid", "youtube_id", "key", "__key__", "fname", "filename", "file_name"),
    "audio": ("audio", "flac", "wav", "mp3", "ogg", "opus", "m4a", "aac", "aif", "aiff"),
    "video": ("video", "mp4", "webm", "mkv", "mov", "avi", "m4v"),
    "image": ("image", "jpg", "jpeg", "png", "webp", "frame"),
    # Names before numbers of machines.
    "labels": ("human_labels", "labels", "label", "category", "class", "text", "txt", "cls"),
    "split": ("split", "set"),
    "start": ("start", "start_seconds", "start_s", "start_time"),
}
_LIST_SEPARATOR = re.compile(r"\s*[;|]\s*")
_QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
# Lists as Python, pandas, NumPy and JSON write them into a cell of text.
_WRITTEN_LIST = re.compile(rf"\[\s*(?:(?:{_QUOTED})\s*(?:,\s*)?)*\]")


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
    def parse(cls, text: "str | Mapping[str, str] | ColumnMap | None") -> "ColumnMap":
        """
        Read it from `label=category,audio=sound`, from a dict, or from a YAML file of the same.

        Raises:
            ValueError: If it is something else, or has another name than the attributes' (`label` counts as `labels`).
        """
        if text is None or isinstance(text, cls):
            return text or cls()
        if isinstance(text, Mapping):
            given = dict(text)
        elif text.endswith((".yaml", ".yml")):
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


def is_missing(value: object) -> bool:
    """Whether a cell says nothing: null, NaN or empty text."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def labels_of(value: object) -> tuple[str, ...]:
    """
    Labels in a cell: one, a list, a list that is written as text, or several between semicolons or bars; each once, in
    their order.
    """
    if isinstance(value, str):
        text = value.strip()
        if _WRITTEN_LIST.fullmatch(text):
            value = [ast.literal_eval(quoted) for quoted in re.findall(_QUOTED, text)]
        else:
            value = _LIST_SEPARATOR.split(text)
    values = value if isinstance(value, (list, tuple)) else [value]
    return tuple(dict.fromkeys(str(each).strip() for each in values if not is_missing(each)))


def id_of(row: Mapping[str, object], columns: ColumnMap, made: str) -> str:
    """
    A row's id: with a start, VGGSound's name of the clip, and parts of a second where there are some; one that is made
    where it has none.

    Raises:
        ValueError: If the start is no number of seconds from 0 on.
    """
    value = row.get(columns.id) if columns.id is not None else None
    if is_missing(value):
        return made
    name = str(value).strip()
    start = row.get(columns.start) if columns.start is not None else None
    if is_missing(start):
        return name
    try:
        seconds = float(start)
    except (TypeError, ValueError, OverflowError):
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"a clip can't start at {reprlib.repr(start)} s.")
    name = parse_clip_name(name) or name
    whole, milliseconds = divmod(round(1000 * seconds), 1000)
    suffix = clip_id("", whole) + (f".{milliseconds:03d}" if milliseconds else "")
    # Some tables have names of clips and starts.
    return name if name.endswith(suffix) else name + suffix
