"""VGGSound and its family: a table of clips, and videos in a folder or in tar archives."""

import os
from collections.abc import Sequence
from pathlib import Path

from ..annotations import ClipEntry, merge_labels, read_vggsound
from ..archives import VIDEO_SUFFIXES, clip_of, is_video
from .clip import Clip, Layout
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
    Annotated clips in a folder, or in tar archives.

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
    if shards is None and data_dir is not None:
        shards = find_shards(data_dir)
    if shards:
        return Layout(tuple(TarPart(shard, entries) for shard in shards), entries)
    files = find_videos(data_dir)
    if files.keys().isdisjoint(entry.id for entry in entries):
        raise ValueError(f"{data_dir}: holds {len(files)} clips, none of those annotated.")
    clips = [Clip(entry, tuple(files.get(entry.id, ()))) for entry in entries]
    return Layout(listed(clips, part_size), entries)


def find_videos(folder: str | os.PathLike) -> dict[str, list[str]]:
    """
    The video files in and below a folder, sorted, by the id of the clip they hold; others are left out. A file is
    named as its clip, or lies in a folder of that name.

    Raises:
        FileNotFoundError: If there is no such folder, or no video in it.
        ValueError: If no video is named as a clip.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder.")
    # Pipes, which could be waited for without end, and folders can have such names, too.
    videos = [path for path in sorted(folder.rglob("*")) if is_video(path.name) and path.is_file()]
    if not videos:
        raise FileNotFoundError(f"{folder}: holds no videos ({', '.join(VIDEO_SUFFIXES)}).")
    found: dict[str, list[str]] = {}
    for path in videos:
        clip = clip_of(path.name) or clip_of(path.parent.name + path.suffix)
        if clip is not None:
            found.setdefault(clip, []).append(str(path))
    if not found:
        raise ValueError(f"{folder}: holds {len(videos)} videos, none named <id>_<start>.")
    return found


def find_shards(folder: str | os.PathLike) -> list[str]:
    """The tar archives in a folder."""
    return sorted(str(path) for path in Path(folder).iterdir() if path.name.endswith(TAR_SUFFIXES) and path.is_file())
