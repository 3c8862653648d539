"""Annotation files of VGGSound and its family, brought to one form: a clip, its labels, its split."""

import csv
import os
import re
import reprlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from ..loaders.sounds import VGGSOUND_LABELS
from .report import SkipReport
from .text_files import read_csv, read_csv_columns, read_json
from .vocabulary import nearest_labels


# Best moments are counted in frames of 0.1 s, whatever the video's own rate.
MOMENTS_PER_SECOND = 10

# VGGSounder's: audible only, visible only, both.
MODALITIES = ("A", "V", "AV")
# Why a row of annotations is left out whose name is none of a clip.
NO_CLIP = "not the name of a clip"

_FLAGS = {"true": True, "1": True, "false": False, "0": False}
# AudioSet's, of classes.
_MACHINE_ID = re.compile(r"/[mtg]/\S+")
_YOUTUBE_ID = r"[A-Za-z0-9_-]{11}"
# A clip's name has six digits for its start.
_LATEST_START_S = 10**6 - 1
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
        labels (`tuple[str, ...]`): What is heard, and seen where the annotation says so; where one label is wanted,
            it is the first.
        split (`str`, *optional*): `train`, `test` or `val`.
        also_heard (`tuple[str, ...]`): Further labels that are heard, where not all of these are asked for: who hears
            them is neither right nor wrong.
    """

    id: str
    labels: tuple[str, ...]
    split: str | None = None
    also_heard: tuple[str, ...] = ()


def clip_id(youtube_id: str, start_s: float) -> str:
    """VGGSound's name of a clip: YouTube id and start in whole seconds, six digits."""
    return f"{youtube_id}_{int(start_s):06d}"


def parse_clip_name(name: str) -> str | None:
    """
    The clip's id from any of its spellings, or `None`: `<id>_<start s>` with or without leading zeros,
    `<id>_<start s>_<end s>` (LLP) and `<id>_<start ms>_<end ms>` (best moments). YouTube ids may hold `_` and `-`.
    """
    match = re.fullmatch(rf"({_YOUTUBE_ID})_(\d{{1,12}})(?:_(\d{{1,12}}))?", name)
    if match is None:
        return None
    youtube_id, start, end = match[1], int(match[2]), match[3]
    # Ten seconds are 10000 in milliseconds and 10 in seconds.
    if end is not None and int(end) - start >= 1000:
        start //= 1000
    return clip_id(youtube_id, start)


def parse_segment_id(name: str) -> str | None:
    """The clip's id from AudioSet's name of a segment, `<id>_<start ms>`; or `None`."""
    match = re.fullmatch(rf"({_YOUTUBE_ID})_(\d{{1,12}})", name)
    return None if match is None else clip_id(match[1], int(match[2]) // 1000)


def merge_labels(entries: Iterable[ClipEntry]) -> list[ClipEntry]:
    """
    Every clip once, with all labels that it has in any of its entries, in their order.

    Raises:
        ValueError: If a clip is in two splits.
    """
    merged: dict[str, ClipEntry] = {}
    for entry in entries:
        _merge(merged, entry)
    return list(merged.values())


def _merge(merged: dict[str, ClipEntry], entry: ClipEntry) -> None:
    known = merged.setdefault(entry.id, entry)
    splits = [each.split or "train" for each in (known, entry)]
    if splits[0] != splits[1]:
        raise ValueError(f"clip {entry.id} is in the split {splits[1]!r}, and before in {splits[0]!r}.")
    merged[entry.id] = replace(known, labels=tuple(dict.fromkeys(known.labels + entry.labels)))


def read_vggsound(path: str | os.PathLike) -> list[ClipEntry]:
    """
    Read `vggsound.csv`: rows of YouTube id, start in seconds, label, split, labels with commas in quotes. A header is
    understood, and `test.csv`'s rows of clip name and label as well. A clip of several rows has all their labels.

    Raises:
        ValueError: If a row can't be read, its label is none of VGGSound's 309, or its clip is in another split, too,
            or begins within the same second as another one, whose name would be the same; it names the line. Or if
            there is no row.
    """
    merged: dict[str, ClipEntry] = {}
    starts: dict[str, float] = {}
    columns = None
    for number, (where, row) in enumerate(read_csv(path)):
        if number == 0 and (columns := _header(row)) is not None:
            continue
        entry, start = _vggsound_entry(row, columns, where)
        if starts.setdefault(entry.id, start) != start:
            raise ValueError(f"{where}: {entry.id} starts at {start:g} s, and before at {starts[entry.id]:g} s.")
        try:
            _merge(merged, entry)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    if not merged:
        raise ValueError(f"{path}: has not one annotated clip.")
    return list(merged.values())


def _header(row: list[str]) -> dict[str, int] | None:
    names = [cell.strip().lower().lstrip("# ") for cell in row]
    columns = {
        role: next(names.index(name) for name in known if name in names)
        for role, known in _COLUMNS.items()
        if any(name in names for name in known)
    }
    return columns if "video" in columns and "label" in columns else None


def _vggsound_entry(row: list[str], columns: dict[str, int] | None, where: str) -> tuple[ClipEntry, float]:
    """A row's clip, and its start in seconds: that of its name where it has no other."""
    if columns is None:
        columns = {"video": 0, "label": 1} if len(row) == 2 else {"video": 0, "start": 1, "label": 2, "split": 3}
    try:
        cells = {role: row[column].strip() for role, column in columns.items()}
        start = float(cells.get("start", 0))
    except (IndexError, ValueError):
        raise ValueError(f"{where}: not a clip: {reprlib.repr(row)}") from None
    if not 0 <= start <= _LATEST_START_S:
        raise ValueError(f"{where}: a clip can't start at {cells['start']} s.")
    video = re.sub(r"\.\w{3,4}$", "", cells["video"])
    is_id = re.fullmatch(_YOUTUBE_ID, video) and "start" in cells
    name = clip_id(video, start) if is_id else parse_clip_name(video)
    if name is None:
        raise ValueError(f"{where}: {reprlib.repr(cells['video'])} is not the name of a clip.")
    label, split = cells["label"], cells.get("split")
    if label not in VGGSOUND_LABELS:
        nearest = nearest_labels(label, VGGSOUND_LABELS)
        raise ValueError(f"{where}: {reprlib.repr(label)} is none of VGGSound's labels{nearest}.")
    # It names files.
    if split and not re.fullmatch(r"\w+", split):
        raise ValueError(f"{where}: {reprlib.repr(split)} can't name a split.")
    return ClipEntry(name, (label,), split), start if is_id else float(name[12:])


def read_best_moments(path: str | os.PathLike) -> dict[str, list[float]]:
    """
    Read `top1_boxes_top10_moments.json`: for every clip its best moments, in seconds from its start, best first.

    The file is a dict from clip to ten frame numbers at 10 per second, or a list with that dict in it.

    Raises:
        ValueError: If it holds no such dict, or a clip has something else; it names the clip.
    """
    content = read_json(path)
    for candidate in content if isinstance(content, list) else [content]:
        if not isinstance(candidate, dict) or not any(_are_ten(value) for value in candidate.values()):
            continue
        named = {parse_clip_name(key): _moments(value, f"{path}: {key!r}") for key, value in candidate.items()}
        named.pop(None, None)
        if named:
            return named
    raise ValueError(f"{path}: holds no best moments (clips with lists of ten frame numbers).")


def _are_ten(value: object) -> bool:
    # A box is a list of numbers, too, but of four.
    return isinstance(value, list) and len(value) == 10


def _moments(frames: object, where: str) -> list[float]:
    """Ten frame numbers in seconds."""
    if not _are_ten(frames) or not all(type(frame) is int for frame in frames):
        raise ValueError(f"{where}: needs ten frame numbers, but has {reprlib.repr(frames)}.")
    latest = MOMENTS_PER_SECOND * _LATEST_START_S
    if not all(0 <= frame <= latest for frame in frames):
        raise ValueError(f"{where}: has frame numbers that are not from 0 to {latest}: {reprlib.repr(frames)}.")
    return [frame / MOMENTS_PER_SECOND for frame in frames]


def read_vggsounder(
    path: str | os.PathLike,
    modalities: Iterable[str] = ("AV",),
    min_labels: int = 1,
    background_music: bool = True,
    static_image: bool = True,
    voice_over: bool = True,
    left_out: SkipReport | None = None,
) -> list[ClipEntry]:
    """
    Read `vggsounder.csv` (VGGSounder, Apache-2.0): all labels of the clips of VGGSound's test split. What is audible
    but not kept is in `also_heard`.

    Args:
        path (`str` or `os.PathLike`): The file: one row per clip and label.
        modalities (`Iterable[str]`, defaults to `("AV",)`): Labels to keep: `A` audible only, `V` visible only, `AV`.
        min_labels (`int`, defaults to 1): Clips with fewer labels are left out; 2 gives real soundscapes.
        background_music, static_image, voice_over (`bool`, default to `True`): Whether to keep clips so flagged.
        left_out ([`SkipReport`], *optional*): Where to note clips that are left out.

    Raises:
        ValueError: If a row can't be read, or has another modality or flag than these; it names the line.
    """
    modalities = (modalities,) if isinstance(modalities, str) else tuple(modalities)
    if not set(modalities) <= set(MODALITIES):
        raise ValueError(f"`modalities` has to be among 'A', 'V' and 'AV' but is {modalities}.")
    left_out = SkipReport() if left_out is None else left_out
    keep = {"background_music": background_music, "static_image": static_image, "voice_over": voice_over}
    # Pairs of label and modality by clip.
    labels: dict[str, list[tuple[str, str]]] = {}
    reasons: dict[str, str] = {}
    for where, row in read_csv_columns(path, "video_id", "label", "modality", *keep):
        name = parse_clip_name(row["video_id"])
        if row["modality"] not in MODALITIES:
            raise ValueError(f"{where}: modality has to be A, V or AV but is {reprlib.repr(row['modality'])}.")
        flags = [flag for flag in keep if _is_true(row[flag], f"{where}: {flag}") and not keep[flag]]
        if name is None:
            name = row["video_id"]
            reasons[name] = NO_CLIP
        elif flags:
            reasons.setdefault(name, f"flagged {flags[0]}")
        labels.setdefault(name, []).append((row["label"], row["modality"]))
    entries = []
    for name, found in labels.items():
        chosen = dict.fromkeys(label for label, modality in found if modality in modalities)
        heard = dict.fromkeys(label for label, modality in found if modality != "V")
        if len(chosen) < min_labels:
            reasons.setdefault(name, f"fewer than {min_labels} labels")
        if name not in reasons:
            others = tuple(label for label in heard if label not in chosen)
            entries.append(ClipEntry(name, tuple(chosen), "test", others))
    for name, reason in reasons.items():
        left_out.add(name, reason, labels=dict.fromkeys(label for label, _ in labels[name]))
    return entries


def _is_true(text: str, where: str) -> bool:
    value = _FLAGS.get(text.strip().lower())
    if value is None:
        raise ValueError(f"{where} has to be true or false but is {reprlib.repr(text)}.")
    return value


def read_llp(path: str | os.PathLike, split: str | None = None, left_out: SkipReport | None = None) -> list[ClipEntry]:
    """
    Read an annotation file of LLP (AVVP): tab-separated `filename` (`<id>_<start s>_<end s>`), `event_labels`; also
    with a row, `onset` and `offset` for every event, as `AVVP_eval_audio.csv` has it.

    Args:
        path (`str` or `os.PathLike`): The file.
        split (`str`, *optional*): Of its clips.
        left_out ([`SkipReport`], *optional*): Where to note rows that name no clip.
    """
    rows = _read_tsv(path, "filename", "event_labels")
    pairs = ((name, parse_clip_name(name), label) for _, name, labels in rows for label in labels.split(","))
    return _grouped(pairs, split, left_out)


def llp_tells_events(path: str | os.PathLike) -> bool:
    """Whether a file of LLP has a row for every event that is heard (or seen), and not all labels of a video."""
    _, header = next(read_csv(path, delimiter="\t"), ("", []))
    return {"onset", "offset"} <= set(header)


def read_audioset_strong(
    path: str | os.PathLike,
    names: str | os.PathLike | None = None,
    split: str = "eval",
    left_out: SkipReport | None = None,
) -> list[ClipEntry]:
    """
    Read `audioset_eval_strong.tsv`: tab-separated `segment_id` (`<id>_<start ms>`), start, end and label of every
    event. Labels are machine ids, or names if `names` gives the two-column table of machine ids and display names.

    Args:
        path (`str` or `os.PathLike`): The file.
        names (`str` or `os.PathLike`, *optional*): That table.
        split (`str`, defaults to `"eval"`): Of its clips.
        left_out ([`SkipReport`], *optional*): Where to note rows that name no clip.

    Raises:
        ValueError: If a row can't be read, a label is a machine id without a name, or the table of names has no two
            columns; it names the line.
    """
    display = {} if names is None else _display_names(names)
    rows = _read_tsv(path, "segment_id", "label")
    pairs = ((name, parse_segment_id(name), _displayed(label, display, where, names)) for where, name, label in rows)
    return _grouped(pairs, split, left_out)


def _display_names(path: str | os.PathLike) -> dict[str, str]:
    names = {}
    for where, row in read_csv(path, delimiter="\t"):
        if len(row) < 2:
            raise ValueError(f"{where}: needs two columns with a tab between, a machine id and its name.")
        names[row[0].strip()] = row[1].strip()
    return names


def _displayed(label: str, display: dict[str, str], where: str, names: str | os.PathLike | None) -> str:
    label = label.strip()
    if label not in display and _MACHINE_ID.fullmatch(label):
        missing = "give --names mid_to_display_name.tsv" if names is None else f"{names} has no name for it"
        raise ValueError(f"{where}: {reprlib.repr(label)} is a machine id; {missing}.")
    return display.get(label, label)


def _read_tsv(path: str | os.PathLike, name: str, labels: str) -> Iterator[tuple[str, str, str]]:
    """Where a row is, its name and its labels."""
    for where, row in read_csv_columns(path, name, labels, delimiter="\t", quoting=csv.QUOTE_NONE):
        yield where, row[name], row[labels]


def _grouped(
    rows: Iterable[tuple[str, str | None, str]], split: str | None, left_out: SkipReport | None
) -> list[ClipEntry]:
    """Clips of rows: what a clip is called there, its id, and a label."""
    left_out = SkipReport() if left_out is None else left_out
    entries: list[ClipEntry] = []
    strange: dict[str, dict[str, None]] = {}
    for said, name, label in rows:
        if name is None:
            strange.setdefault(said, {})[label.strip()] = None
        elif label.strip():
            entries.append(ClipEntry(name, (label.strip(),), split))
    for said, labels in strange.items():
        left_out.add(said, NO_CLIP, labels=filter(None, labels))
    return merge_labels(entries)
