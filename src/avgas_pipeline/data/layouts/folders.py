"""Clips in folders: one folder for each label, or a table beside the files; as they are, or in ZIP archives."""

import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from ..annotations import ClipEntry, parse_clip_name
from ..archives import VIDEO_SUFFIXES
from ..text_files import read_csv, read_json_lines
from .clip import Clip, Layout, Part
from .columns import ColumnMap, id_of, labels_of
from .parts import ZipPart, listed


AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".aac")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
# Folders of these names hold the labels' folders of a split.
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
METADATA = ("metadata.csv", "metadata.jsonl")
FILE_NAME = "file_name"


def class_folders_layout(folder: str | os.PathLike, part_size: int = 512) -> Layout:
    """
    One folder for each label, in folders of splits or without; all of it may lie in ZIP archives. Files of one name
    in one folder are the sound, video and picture of one clip. Ids are paths without suffix.

    Raises:
        ValueError: If no file is a sound or video in the folder of a label, or an archive is damaged.
    """
    folder = Path(folder)
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    found = [_rooted(clip, folder) for clip in _clips_by_folder(files)]
    parts: list[Part] = list(listed(found, part_size))
    entries = [clip.entry for clip in found]
    for path in sorted(folder.glob("*.zip")):
        clips = list(_clips_by_folder(_members(path)))
        by_split: dict[str | None, list[Clip]] = {}
        for clip in clips:
            by_split.setdefault(clip.entry.split, []).append(clip)
        parts += [ZipPart(str(path), tuple(members), split) for split, members in sorted(by_split.items())]
        entries += [clip.entry for clip in clips]
    if not entries:
        raise ValueError(f"{folder}: holds no sounds or videos in folders named as their labels.")
    return Layout(tuple(parts), tuple(entries))


def metadata_layout(folder: str | os.PathLike, columns: ColumnMap | None = None, part_size: int = 512) -> Layout:
    """
    Files that a table names: `metadata.csv` or `metadata.jsonl` with `file_name`, in the folder or in folders of
    splits, as of `datasets`' audiofolder and videofolder. Ids are VGGSound's names of clips where files or their
    folders have them, or else paths without suffix, unless a column says them.

    Raises:
        ValueError: If a table can't be read, or has no `file_name` or no labels.
    """
    folder, columns = Path(folder), columns or ColumnMap()
    clips = []
    for path in find_metadata(folder):
        split = SPLITS.get(path.parent.name.lower()) if path.parent != folder else None
        rows = list(_rows(path))
        if not rows:
            raise ValueError(f"{path}: has no rows.")
        if FILE_NAME not in rows[0][1]:
            raise ValueError(f"{path}: has no column {FILE_NAME!r}.")
        # A file's name is no id, and no medium either.
        names = [name for name in rows[0][1] if name != FILE_NAME]
        found = columns.found_in(names, str(path))
        for where, row in rows:
            clips.append(_row_clip(path.parent, row, found, split, where, folder))
    return Layout(listed(clips, part_size), tuple(clip.entry for clip in clips))


def find_metadata(folder: Path) -> list[Path]:
    """Tables that name files, in a folder or in its folders of splits."""
    places = [folder, *sorted(path for path in folder.iterdir() if path.is_dir() and path.name.lower() in SPLITS)]
    return [place / name for place in places for name in METADATA if (place / name).is_file()]


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if path.suffix == ".jsonl":
        yield from read_json_lines(path)
        return
    table = read_csv(path)
    where, header = next(table, (str(path), []))
    for where, row in table:
        if len(row) != len(header):
            raise ValueError(f"{where}: has {len(row)} cells, not {len(header)}.")
        yield where, dict(zip(header, row, strict=True))


def _row_clip(
    base: Path, row: Mapping[str, Any], columns: ColumnMap, split: str | None, where: str, folder: Path
) -> Clip:
    name = row.get(FILE_NAME)
    labels = labels_of(row.get(columns.labels))
    if not isinstance(name, str) or not name or not labels:
        raise ValueError(f"{where}: needs a {FILE_NAME} and a label.")
    path = base / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{where}: {name!r} is outside of {folder}.")
    pure = PurePosixPath(name)
    made = parse_clip_name(pure.stem) or parse_clip_name(pure.parent.name) or pure.with_suffix("").as_posix()
    said = row.get(columns.split) if columns.split is not None else None
    entry = ClipEntry(id_of(row, columns, made), labels, str(said) if said else split)
    medium = str(path)
    image = row.get(columns.image) if columns.image is not None else None
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return Clip(entry, (medium,))
    return Clip(entry, audio=medium, image=str(base / image) if image else None)


def _clips_by_folder(files: Sequence[str]) -> Iterator[Clip]:
    """Clips of files in folders of labels, which may be in a folder of a split."""
    by_stem: dict[PurePosixPath, dict[str, str]] = {}
    for name in files:
        path = PurePosixPath(name)
        kind = next((kind for kind, suffixes in _KINDS.items() if path.suffix.lower() in suffixes), None)
        if kind is not None and len(path.parts) > 1:
            by_stem.setdefault(path.with_suffix(""), {})[kind] = name
    for stem, media in by_stem.items():
        if "audio" not in media and "video" not in media:
            continue
        *outer, label = stem.parts[:-1]
        split = next((SPLITS[part.lower()] for part in outer if part.lower() in SPLITS), None)
        videos = (media["video"],) if "video" in media else ()
        yield Clip(ClipEntry(stem.as_posix(), (label,), split), videos, media.get("audio"), media.get("image"))


def _rooted(clip: Clip, folder: Path) -> Clip:
    """Names in a folder as paths."""
    audio, image = (None if name is None else str(folder / name) for name in (clip.audio, clip.image))
    return replace(clip, videos=tuple(str(folder / name) for name in clip.videos), audio=audio, image=image)


def _members(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return sorted(info.filename for info in archive.infolist() if not info.is_dir())
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: can't be read ({error}).") from None


_KINDS = {"audio": AUDIO_SUFFIXES, "video": VIDEO_SUFFIXES, "image": IMAGE_SUFFIXES}
