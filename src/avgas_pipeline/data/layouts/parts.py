"""Parts of a data set: clips in files, in a tar archive, or in a ZIP archive."""

import os
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..annotations import ClipEntry
from ..archives import read_shard
from ..report import DUPLICATE, SkipReport
from ..video import MAX_VIDEO_BYTES
from .clip import DEFAULT_SPLIT, Clip


# A clip or file that is left out: its name, the reason, and more of it.
Lost = tuple[str, str, str]


@dataclass(frozen=True)
class ListedPart:
    """
    Clips in files, all of one split.

    Attributes:
        clips (`tuple[Clip, ...]`): In their order.
        split (`str`, *optional*): Theirs.
    """

    clips: tuple[Clip, ...]
    split: str | None = None

    @property
    def size(self) -> int:
        """Number of clips."""
        return len(self.clips)

    def read(self, skipped: SkipReport) -> Iterator[Clip]:
        """As of [`Part`]."""
        return iter(self.clips)

    def fingerprint(self) -> Any:
        """As of [`Part`]."""
        return [
            [clip.entry.id, clip.entry.labels, self.split, [_size(path) for path in clip.files]] for clip in self.clips
        ]


@dataclass(frozen=True)
class TarPart:
    """
    Videos in a tar archive, named as clips.

    Attributes:
        path (`str`): Path or URL.
        entries (`tuple[ClipEntry, ...]`): Clips that may be in it; others are left out.
        split (`str`, *optional*): Of those entries, if it is one.
    """

    path: str
    entries: tuple[ClipEntry, ...]
    split: str | None = None
    size = None

    def read(self, skipped: SkipReport) -> Iterator[Clip]:
        """As of [`Part`]."""
        wanted = {entry.id: entry for entry in self.entries}
        return (Clip(wanted[clip], (video,)) for clip, video in read_shard(self.path, wanted, skipped))

    def fingerprint(self) -> Any:
        """As of [`Part`]."""
        return [Path(self.path).name, _size(self.path)]


@dataclass(frozen=True)
class ZipPart:
    """
    Clips in a ZIP archive.

    Attributes:
        path (`str`): Of the archive.
        clips (`tuple[Clip, ...]`): With names of members in place of paths.
        split (`str`, *optional*): Of all of them.
    """

    path: str
    clips: tuple[Clip, ...]
    split: str | None = None

    @property
    def size(self) -> int:
        """Number of clips."""
        return len(self.clips)

    def read(self, skipped: SkipReport) -> Iterator[Clip]:
        """As of [`Part`]."""
        with zipfile.ZipFile(self.path) as archive:
            for clip in self.clips:
                try:
                    yield replace(
                        clip,
                        videos=tuple(self._member(archive, name) for name in clip.videos),
                        audio=None if clip.audio is None else self._member(archive, clip.audio),
                        image=None if clip.image is None else self._member(archive, clip.image),
                    )
                # Damage and encryption make zipfile raise several kinds.
                except Exception as error:
                    skipped.add(clip.entry.id, "broken", f"{error} in {self.path}")

    def _member(self, archive: zipfile.ZipFile, name: str) -> bytes:
        size = archive.getinfo(name).file_size
        if size > MAX_VIDEO_BYTES:
            raise ValueError(f"{name} has {size} bytes")
        return archive.read(name)

    def fingerprint(self) -> Any:
        """As of [`Part`]."""
        clips = [[clip.entry.id, clip.entry.labels, clip.files] for clip in self.clips]
        return [Path(self.path).name, _size(self.path), clips]


@dataclass(frozen=True)
class LostPart:
    """
    What is known to be of no use before it is read.

    Attributes:
        lost (`tuple`): Clips or files.
        split (`str`): With which it is told.
    """

    lost: tuple[Lost, ...]
    split: str
    size = 0

    def read(self, skipped: SkipReport) -> Iterator[Clip]:
        """As of [`Part`]; there is none."""
        for each in self.lost:
            skipped.add(*each)
        return iter(())

    def fingerprint(self) -> Any:
        """As of [`Part`]."""
        return [list(each) for each in self.lost]


def unique(clips: Iterable[Clip], seen: set[tuple[str, str]] | None = None) -> tuple[list[Clip], list[Lost]]:
    """
    The clips that have an id of their own in their split, and the others.

    Args:
        clips (`Iterable[Clip]`): In their order: of several with one id, the first stays.
        seen (`set`, *optional*): Splits and ids of clips before; those of these are added.
    """
    seen = set() if seen is None else seen
    kept: list[Clip] = []
    lost: list[Lost] = []
    for clip in clips:
        key = (clip.entry.split or DEFAULT_SPLIT, clip.entry.id)
        if key in seen:
            lost.append((clip.entry.id, DUPLICATE, ", ".join(clip.files)))
        else:
            seen.add(key)
            kept.append(clip)
    return kept, lost


def listed(clips: Sequence[Clip], size: int) -> tuple[ListedPart, ...]:
    """Parts of so many neighbours of one split each, so that splits can be loaded alone."""
    by_split: dict[str | None, list[Clip]] = {}
    for clip in clips:
        by_split.setdefault(clip.entry.split, []).append(clip)
    return tuple(
        ListedPart(tuple(members[start : start + size]), split)
        for split, members in sorted(by_split.items(), key=lambda item: item[0] or DEFAULT_SPLIT)
        for start in range(0, len(members), size)
    )


def told(lost: Sequence[Lost], split: str | None) -> tuple[LostPart, ...]:
    """A part that tells what is lost, with one split of the data set: else it would be told with each."""
    return (LostPart(tuple(lost), split or DEFAULT_SPLIT),) if lost else ()


def _size(path: str) -> int | None:
    """Of a file; `None` if it is missing."""
    return os.path.getsize(path) if os.path.exists(path) else None
