"""Annotation files of VGGSound and its family, brought to one form: a clip, its labels, its split."""

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..loaders.labels import VGGSOUND_LABELS


# Best moments are counted in frames of 0.1 s, whatever the video's own rate.
MOMENTS_PER_SECOND = 10

_YOUTUBE_ID = r"[A-Za-z0-9_-]{11}"
_COLUMNS = {
    "video": ("ytid", "youtube_id", "youtubeid", "video_id", "id", "filename"),
    "start": ("start", "start_seconds", "start_s", "start_time"),
    "label": ("class", "label", "labels"),
    "split": ("set", "split"),
}


@dataclass(frozen=True)
class ClipEntry:
    """
    One annotated clip.

    Attributes:
        id (`str`): YouTube id and start, as in `---g-f_I2yQ_000001`.
        labels (`tuple[str, ...]`): What is heard, and seen where the annotation says so.
        split (`str`, *optional*): `train`, `test` or `val`.
    """

    id: str
    labels: tuple[str, ...]
    split: str | None = None


def clip_id(youtube_id: str, start_s: float) -> str:
    """VGGSound's name of a clip: YouTube id and start in whole seconds, six digits."""
    return f"{youtube_id}_{int(start_s):06d}"


def parse_clip_name(name: str) -> str | None:
    """
    The clip's id from any of its spellings, or `None`: `<id>_<start s>` with or without leading zeros,
    `<id>_<start s>_<end s>` (LLP) and `<id>_<start ms>_<end ms>` (best moments). YouTube ids may hold `_` and `-`.
    """
    match = re.fullmatch(rf"({_YOUTUBE_ID})_(\d+)(?:_(\d+))?", name)
    if match is None:
        return None
    youtube_id, start, end = match[1], int(match[2]), match[3]
    # Ten seconds are 10000 in milliseconds and 10 in seconds.
    if end is not None and int(end) - start >= 1000:
        start //= 1000
    return clip_id(youtube_id, start)


def read_vggsound(path: str | os.PathLike) -> list[ClipEntry]:
    """
    Read `vggsound.csv`: rows of YouTube id, start in seconds, label, split, labels with commas in quotes. A header is
    understood, and `test.csv`'s rows of clip name and label as well.

    Raises:
        ValueError: If a row can't be read or its label is none of VGGSound's 309; it names the line.
    """
    rows = list(csv.reader(io.StringIO(Path(path).read_text(encoding="utf-8-sig"))))
    columns = _header(rows[0]) if rows else None
    entries = []
    for number, row in enumerate(rows, start=1):
        if not row or (columns and number == 1):
            continue
        entries.append(_vggsound_entry(row, columns, f"{path}, line {number}"))
    return entries


def _header(row: list[str]) -> dict[str, int] | None:
    names = [cell.strip().lower().lstrip("# ") for cell in row]
    columns = {
        role: next(names.index(name) for name in known if name in names)
        for role, known in _COLUMNS.items()
        if any(name in names for name in known)
    }
    return columns if "video" in columns and "label" in columns else None


def _vggsound_entry(row: list[str], columns: dict[str, int] | None, where: str) -> ClipEntry:
    if columns is None:
        columns = {"video": 0, "label": 1} if len(row) == 2 else {"video": 0, "start": 1, "label": 2, "split": 3}
    try:
        cells = {role: row[column].strip() for role, column in columns.items()}
        video = re.sub(r"\.\w{3,4}$", "", cells["video"])
        name = parse_clip_name(video)
        if re.fullmatch(_YOUTUBE_ID, video) and "start" in cells:
            name = clip_id(video, float(cells["start"]))
    except (IndexError, ValueError):
        raise ValueError(f"{where}: not a clip: {row}") from None
    if name is None:
        raise ValueError(f"{where}: {cells['video']!r} is not the name of a clip.")
    if cells["label"] not in VGGSOUND_LABELS:
        raise ValueError(f"{where}: {cells['label']!r} is none of VGGSound's labels.")
    return ClipEntry(name, (cells["label"],), cells.get("split"))


def read_best_moments(path: str | os.PathLike) -> dict[str, list[float]]:
    """
    Read `top1_boxes_top10_moments.json`: for every clip its best moments, in seconds from its start, best first.

    The file is a dict from clip to ten frame numbers at 10 per second, or a list with that dict in it.

    Raises:
        ValueError: If it holds no such dict.
    """
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    for candidate in content if isinstance(content, list) else [content]:
        if isinstance(candidate, dict) and candidate and all(_are_frames(value) for value in candidate.values()):
            moments = {}
            for key, frames in candidate.items():
                name = parse_clip_name(key)
                if name is not None:
                    moments[name] = [frame / MOMENTS_PER_SECOND for frame in frames]
            return moments
    raise ValueError(f"{path}: holds no best moments (clips with lists of frame numbers).")


def _are_frames(value: object) -> bool:
    # Ten of them: a box is a list of numbers, too.
    return isinstance(value, list) and len(value) == 10 and all(isinstance(frame, int) for frame in value)


def read_vggsounder(
    path: str | os.PathLike,
    modalities: Iterable[str] = ("AV",),
    min_labels: int = 1,
    background_music: bool = True,
    static_image: bool = True,
    voice_over: bool = True,
) -> list[ClipEntry]:
    """
    Read `vggsounder.csv` (VGGSounder, Apache-2.0): all labels of the clips of VGGSound's test split.

    Args:
        path (`str` or `os.PathLike`): The file: one row per clip and label.
        modalities (`Iterable[str]`, defaults to `("AV",)`): Labels to keep: `A` audible only, `V` visible only, `AV`.
        min_labels (`int`, defaults to 1): Clips with fewer labels are left out; 2 gives real soundscapes.
        background_music, static_image, voice_over (`bool`, default to `True`): Whether to keep clips so flagged.
    """
    modalities = (modalities,) if isinstance(modalities, str) else tuple(modalities)
    if not set(modalities) <= {"A", "V", "AV"}:
        raise ValueError(f"`modalities` has to be among 'A', 'V' and 'AV' but is {modalities}.")
    keep = {"background_music": background_music, "static_image": static_image, "voice_over": voice_over}
    labels: dict[str, list[str]] = {}
    dropped = set()
    with open(path, encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            try:
                name = parse_clip_name(row["video_id"])
                if any(not keep[flag] and row[flag] == "True" for flag in keep):
                    dropped.add(name)
                if row["modality"] in modalities:
                    labels.setdefault(name, []).append(row["label"])
            except (KeyError, TypeError):
                raise ValueError(f"{path}, line {number}: not a row of VGGSounder.") from None
    return [
        ClipEntry(name, tuple(dict.fromkeys(found)), "test")
        for name, found in labels.items()
        if name is not None and name not in dropped and len(set(found)) >= min_labels
    ]


def read_llp(path: str | os.PathLike, split: str | None = None) -> list[ClipEntry]:
    """Read an annotation file of LLP (AVVP): tab-separated `filename` (`<id>_<start s>_<end s>`), `event_labels`."""
    return list(_grouped(_tsv_pairs(path, "filename", "event_labels", separator=","), split))


def read_audioset_strong(
    path: str | os.PathLike, names: str | os.PathLike | None = None, split: str = "eval"
) -> list[ClipEntry]:
    """
    Read `audioset_eval_strong.tsv`: tab-separated `segment_id` (`<id>_<start ms>`), start, end and label of every
    event. Labels are machine ids, or names if `names` gives the two-column table of machine ids and display names.
    """
    display = {}
    if names is not None:
        with open(names, encoding="utf-8", newline="") as file:
            display = {row[0]: row[1] for row in csv.reader(file, delimiter="\t") if len(row) >= 2}
    pairs = _tsv_pairs(path, "segment_id", "label", separator=None)
    return list(_grouped(((_seconds(name), display.get(label, label)) for name, label in pairs), split))


def _seconds(segment_id: str) -> str:
    youtube_id, _, milliseconds = segment_id.rpartition("_")
    return f"{youtube_id}_{int(milliseconds) // 1000}" if milliseconds.isdigit() else segment_id


def _tsv_pairs(path: str | os.PathLike, name: str, labels: str, separator: str | None) -> Iterator[tuple[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        if reader.fieldnames is None or name not in reader.fieldnames or labels not in reader.fieldnames:
            raise ValueError(f"{path}: needs the columns {name!r} and {labels!r}, but has {reader.fieldnames}.")
        for row in reader:
            found = (row[labels] or "").split(separator) if separator else [row[labels] or ""]
            for label in found:
                yield row[name], label.strip()


def _grouped(pairs: Iterable[tuple[str, str]], split: str | None) -> Iterator[ClipEntry]:
    labels: dict[str, list[str]] = {}
    for name, label in pairs:
        found = parse_clip_name(name)
        if found is not None and label:
            labels.setdefault(found, []).append(label)
    for name, found in labels.items():
        yield ClipEntry(name, tuple(dict.fromkeys(found)), split)
