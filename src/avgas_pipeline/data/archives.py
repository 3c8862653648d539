"""Videos in tar archives, read as a stream, with limits on what an archive may ask for."""

import os
import re
import tarfile
from collections.abc import Collection, Iterator
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from datasets.utils.file_utils import xopen

from .annotations import parse_clip_name, parse_segment_id
from .report import SkipReport
from .suffixes import VIDEO_SUFFIXES
from .video import MAX_VIDEO_BYTES


# Names and attributes of one member take less.
_MAX_HEADER_BYTES = 2**20
# Videos hardly get smaller; what grows so much is made to fill disks and memory.
_MAX_EXPANSION = 100
_CHUNK_BYTES = 2**20


def clip_of(path: str, wanted: Collection[str] = ()) -> str | None:
    """
    The clip a video file holds, by its name. It may also be a segment of AudioSet, whose start is in milliseconds, if
    it is that clip which is wanted.
    """
    if not is_video(path):
        return None
    name = PurePosixPath(path).stem
    clip = parse_clip_name(name)
    # Starts in seconds are shorter, or have leading zeros.
    segment = parse_segment_id(name) if re.search(r"_[1-9]\d{3,}$", name) else None
    return segment if segment in wanted and clip not in wanted else clip


def is_video(path: str) -> bool:
    """Whether a file is a video, by its name."""
    return PurePosixPath(path).suffix.lower() in VIDEO_SUFFIXES


def read_shard(shard: str, wanted: Collection[str], skipped: SkipReport) -> Iterator[tuple[str, bytes]]:
    """
    The wanted clips of a tar archive (path or URL), id and bytes, in its order, without unpacking it.

    Left out and noted in `skipped` are members with paths that leave the archive, sparse ones and those above
    `MAX_VIDEO_BYTES`; folders, links and devices are passed over. Damage ends the archive, and so does one that asks
    for much more than it has; both are noted, too.
    """
    videos = clips = 0
    try:
        with (
            xopen(shard, "rb") as file,
            _Archive.open(fileobj=file, mode="r|*", compressed=file) as archive,
        ):
            for member in archive:
                # tarfile remembers every member, which grows over a long stream.
                archive.members = []
                if not member.isfile() or not is_video(member.name):
                    continue
                name = clip_of(member.name, wanted)
                videos, clips = videos + 1, clips + (name is not None)
                if name not in wanted:
                    continue
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts:
                    skipped.add(member.name, "unsafe path", f"in {shard}")
                elif member.issparse():
                    skipped.add(name, "sparse", f"{member.name} in {shard}")
                elif member.size > MAX_VIDEO_BYTES:
                    skipped.add(name, "too large", f"{member.size} bytes: {member.name} in {shard}")
                else:
                    yield name, archive.extractfile(member).read()
    # Damaged headers make tarfile raise nearly anything.
    except Exception as error:
        skipped.add(os.path.basename(shard), "damaged shard", str(error) or type(error).__name__)
    if videos and not clips:
        skipped.add(os.path.basename(shard), "no clips", f"holds {videos} videos, none named <id>_<start>")


class _StrictTarInfo(tarfile.TarInfo):
    """Headers that are damaged or missing end an archive with an error; tarfile takes them for its end."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> tarfile.TarInfo:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None


class _Archive(tarfile.TarFile):
    """
    A tar archive that is read with limits.

    Args:
        name, mode, fileobj: As of `tarfile.TarFile`; `fileobj` is decompressed.
        compressed (`BinaryIO`): What `fileobj` is read from.
    """

    tarinfo = _StrictTarInfo

    def __init__(self, name: str | None, mode: str, fileobj: Any, compressed: BinaryIO, **options: Any) -> None:
        super().__init__(name, mode, _BoundedStream(fileobj, compressed, self), **options)


class _BoundedStream:
    """Reads an archive's stream forward, as far as headers may reach and compressed data may grow."""

    def __init__(self, stream: Any, compressed: BinaryIO, archive: tarfile.TarFile) -> None:
        self._stream = stream
        self._compressed = compressed
        self._archive = archive

    def read(self, size: int) -> bytes:
        if self.tell() + size > self._archive.offset + _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header is longer than {_MAX_HEADER_BYTES} bytes")
        if self.tell() > _MAX_EXPANSION * max(self._compressed.tell(), _CHUNK_BYTES):
            raise tarfile.ReadError(f"it decompresses to more than {_MAX_EXPANSION} times its size")
        return self._stream.read(size)

    def seek(self, position: int) -> None:
        # In pieces: what a large member is compressed to shows on the way.
        while self.tell() < position:
            if not self.read(min(position - self.tell(), _CHUNK_BYTES)):
                raise tarfile.ReadError("unexpected end of data")

    def tell(self) -> int:
        return self._stream.tell()

    def close(self) -> None:
        self._stream.close()
