"""VGGSound and its family: a table of clips, and videos in a folder or in tar archives."""

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from ..annotations import ClipEntry, merge_labels, read_vggsound
from ..archives import clip_of, is_video
from ..suffixes import VIDEO_SUFFIXES
from .clip import Clip, Layout
from .files import files_in
from .parts import TarPart, listed


TABLE = "vggsound.csv"
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")


def vggsound_layout(
    data_dir: str | os.PathLike | None,
    entries: Sequence[ClipEntry] | None = None,
    shards: Sequence[str] | None = None,
    part_size: int = 512,
) -> Layout:
    """
    Annotated clips in a folder, in tar archives, or both.

    Args:
        data_dir (`str` or `os.PathLike`, *optional*): Of videos, or of tar archives of videos.
        entries (`Sequence[ClipEntry]`, *optional*): Its clips; one that is there several
            times has all labels of these. `vggsound.csv` in the folder if not given.
        shards (`Sequence[str]`, *optional*): Tar archives, paths or URLs, in place of those in the folder.
        part_size (`int`, defaults to 512): Clips of a part.

    Raises:
        FileNotFoundError: If the data is not there.
        ValueError: If no video in the folder is an annotated clip.
    """
    if entries is None:
        entries = read_vggsound(Path(data_dir) / TABLE)
    entries = tuple(merge_labels(entries))
    wanted = {entry.id for entry in entries}
    files: dict[str, list[str]] = {}
    if shards is None:
        shards = find_shards(data_dir)
        # Where there are archives, videos may lie beside them, or only in them.
        files = _videos_by_clip(data_dir, wanted) if shards else find_videos(data_dir, wanted)
        if not shards and files.keys().isdisjoint(wanted):
            raise ValueError(f"{data_dir}: holds {len(files)} clips, none of those annotated.")
    elsewhere = tuple(entry for entry in entries if entry.id not in files)
    loose = entries if not shards else [entry for entry in entries if entry.id in files]
    parts = listed([Clip(entry, tuple(files.get(entry.id, ()))) for entry in loose], part_size)
    return Layout((*(TarPart(shard, elsewhere) for shard in shards if elsewhere), *parts), entries)


def find_videos(folder: str | os.PathLike, wanted: Collection[str] = ()) -> dict[str, list[str]]:
    """
    The video files in and below a folder, sorted, by the id of the clip they hold; others are left out. A file is
    named as its clip, or lies in a folder of that name.

    Args:
        folder (`str` or `os.PathLike`): Where they lie.
        wanted (`Collection[str]`, *optional*): Clips, which decide what a name means that can mean two.

    Raises:
        FileNotFoundError: If there is no such folder, or no video in it.
        ValueError: If no video is named as a clip.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder.")
    count = sum(is_video(path.name) for path in files_in(folder))
    if not count:
        raise FileNotFoundError(f"{folder}: holds no videos ({', '.join(VIDEO_SUFFIXES)}).")
    found = _videos_by_clip(folder, wanted)
    if not found:
        raise ValueError(f"{folder}: holds {count} videos, none named <id>_<start>.")
    return found


def _videos_by_clip(folder: str | os.PathLike, wanted: Collection[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in sorted(files_in(folder)):
        clip = clip_of(path.name, wanted) or clip_of(path.parent.name + path.suffix, wanted)
        if clip is not None:
            found.setdefault(clip, []).append(str(path))
    return found


def find_shards(folder: str | os.PathLike) -> list[str]:
    """The tar archives in a folder."""
    return sorted(str(path) for path in Path(folder).iterdir() if path.name.endswith(TAR_SUFFIXES) and path.is_file())
