"""Clips in folders, one for each label: as they are, or in ZIP archives."""

import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from ..annotations import ClipEntry
from ..report import DUPLICATE
from ..suffixes import AUDIO_SUFFIXES, IMAGE_SUFFIXES, VIDEO_SUFFIXES
from .clip import Clip, Layout, Part
from .files import files_in, is_hidden, split_of
from .parts import Lost, ZipPart, listed, told, unique


_KINDS = {"audio": AUDIO_SUFFIXES, "video": VIDEO_SUFFIXES, "image": IMAGE_SUFFIXES}


def class_folders_layout(folder: str | os.PathLike, part_size: int = 512) -> Layout:
    """
    One folder for each label, in folders of splits or without; all of it may lie in ZIP archives, which may be named
    as splits. Files of one name in one folder are the sound, video and picture of one clip. Ids are paths without
    suffix, an archive counting as a folder. What is in no folder of a label, and archives that are damaged, are told
    when the clips are read.

    Raises:
        ValueError: If no file is a sound or video in the folder of a label.
    """
    folder = Path(folder)
    files = [path.relative_to(folder).as_posix() for path in files_in(folder)]
    seen: set[tuple[str, str]] = set()
    lost: list[Lost] = []
    found = _clips({name: name for name in files}, lost, PurePosixPath())
    loose, repeated = unique((_rooted(clip, folder) for clip in found), seen)
    lost += repeated
    zipped: list[Part] = []
    entries = [clip.entry for clip in loose]
    for name in files:
        if PurePosixPath(name).suffix.lower() != ".zip":
            continue
        archive = PurePosixPath(name).with_suffix("")
        try:
            members = {f"{archive}/{path}": member for path, member in _members(folder / name).items()}
        except ValueError as error:
            lost.append((name, "damaged archive", str(error)))
            continue
        clips, repeated = unique(_clips(members, lost, archive), seen)
        lost += repeated
        by_split: dict[str | None, list[Clip]] = {}
        for clip in clips:
            by_split.setdefault(clip.entry.split, []).append(clip)
        zipped += [ZipPart(str(folder / name), tuple(members), split) for split, members in by_split.items()]
        entries += [clip.entry for clip in clips]
    if not entries:
        reason = f" ({lost[0][0]}: {lost[0][2] or lost[0][1]})" if lost else ""
        raise ValueError(f"{folder}: holds no sounds or videos in folders named as their labels{reason}.")
    return Layout((*listed(loose, part_size), *zipped, *told(lost, entries[0].split)), tuple(entries))


def _clips(files: Mapping[str, str], lost: list[Lost], archive: PurePosixPath) -> Iterator[Clip]:
    """
    Clips of files in folders of labels, which may be in a folder of a split.

    Args:
        files (`Mapping[str, str]`): What to read each by, by its path.
        lost (`list`): Where to note files that are of no clip.
        archive (`PurePosixPath`): Folder that stands for the archive that they are in: it is no label.
    """
    by_stem: dict[PurePosixPath, dict[str, str]] = {}
    for name in sorted(files):
        path = PurePosixPath(name)
        kind = next((kind for kind, suffixes in _KINDS.items() if path.suffix.lower() in suffixes), None)
        if kind is None:
            continue
        media = by_stem.setdefault(path.with_suffix(""), {})
        if not _is_text(name):
            lost.append((name, "name is not in UTF-8", ""))
        elif len(path.parts) - len(archive.parts) < 2:
            if kind != "image":
                lost.append((name, "no label", "lies in no folder of a label"))
        elif kind in media:
            lost.append((name, DUPLICATE, f"is named as {media[kind]}"))
        else:
            media[kind] = files[name]
    words = re.split(r"[^a-z]+", archive.name.lower())
    for stem, media in by_stem.items():
        if "audio" not in media and "video" not in media:
            continue
        *outer, label = stem.parts[:-1]
        inner = outer[len(archive.parts) :]
        split = split_of(inner) or split_of(words) or split_of(archive.parts[:-1])
        videos = (media["video"],) if "video" in media else ()
        yield Clip(ClipEntry(stem.as_posix(), (label,), split), videos, media.get("audio"), media.get("image"))


def _is_text(name: str) -> bool:
    """Whether a name can be written; files may have others."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _rooted(clip: Clip, folder: Path) -> Clip:
    """Names in a folder as paths."""
    audio, image = (None if name is None else str(folder / name) for name in (clip.audio, clip.image))
    return replace(clip, videos=tuple(str(folder / name) for name in clip.videos), audio=audio, image=image)


def _members(path: Path) -> dict[str, str]:
    """An archive's files by their paths: some programs write backslashes."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(info.filename for info in archive.infolist() if not info.is_dir())
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"can't be read, {error}") from None
    return {path: name for name in names if not is_hidden(path := name.replace("\\", "/"))}
