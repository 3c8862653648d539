"""Files and file objects as decoders need them: checked, seekable, and named when they are no audio at all."""

import tempfile
from typing import Any


# More than this is not read from what can't seek, such as a pipe.
MAX_PIPED_BYTES = 1 << 31
_SPOOL_IN_MEMORY = 1 << 26
_CHUNK = 1 << 20
_HEAD_BYTES = 1 << 13

# How files begin that are taken for audio by mistake, or that are in a format without a decoder here.
_BEGINNINGS = (
    (b"version https://git-lfs.github.com", "a Git LFS pointer, whose file was not downloaded"),
    (b"/annex/objects/", "a git-annex pointer, whose file was not downloaded"),
    (b"#EXTM3U", "a playlist"),
    (b"ffconcat version", "a playlist"),
    (b"[playlist]", "a playlist"),
    (b"<?xml", "an XML file"),
    (b"<!doctype html", "a web page"),
    (b"<html", "a web page"),
    (b"MThd", "MIDI, which holds notes rather than sound"),
    (b".RMF", "RealMedia"),
    (b".ra\xfd", "RealAudio"),
    (b"MAC ", "Monkey's Audio (APE)"),
    (b"MPCK", "Musepack"),
    (b"MP+", "Musepack"),
    (b"TTA1", "True Audio (TTA)"),
    (b"DSD ", "DSD (DSF)"),
    (b"FRM8", "DSD (DSDIFF)"),
    (b"OFR ", "OptimFROG"),
    (b"tBaK", "TAK"),
    (b"Creative Voice File", "Creative Voice (VOC)"),
    (b"\x7f\xfe\x80\x01", "DTS"),
    (b"FWS", "Flash (SWF)"),
    (b"CWS", "Flash (SWF)"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a picture (PNG)"),
    (b"\xff\xd8\xff", "a picture (JPEG)"),
    (b"GIF8", "a picture (GIF)"),
    (b"\x93NUMPY", "a NumPy array, to be loaded and passed with its rate"),
    (b"PAR1", "a Parquet table"),
)


class ByteStream:
    """
    A binary file object from where it stands, checked at every read: decoders write to memory what `read` returns.

    What can't seek is read to its end first, into memory or a temporary file.

    Args:
        file (file object): With `read`.
        name (`str`): What errors call it.

    Raises:
        ValueError: If it gives anything else than bytes, or too many of them.
    """

    def __init__(self, file: Any, name: str) -> None:
        self.name = name
        self.fault: str | None = None
        self._file = file
        self._start = 0
        if hasattr(file, "seekable") and file.seekable():
            self._start = file.tell()
        else:
            self._file = self._spooled()

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes; none after what can't be trusted, which `fault` names."""
        if self.fault is not None:
            return b""
        data = self._file.read(size)
        if not isinstance(data, (bytes, bytearray, memoryview)):
            self.fault = f"{self.name}: its `read` has to return bytes but returned {type(data).__name__}."
        elif 0 <= size < memoryview(data).nbytes:
            self.fault = f"{self.name}: its `read({size})` returned {memoryview(data).nbytes} bytes."
        if self.fault is not None:
            raise ValueError(self.fault)
        return bytes(data)

    def seekable(self) -> bool:
        """Always true."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """As of file objects, from where the file stood at first."""
        self._file.seek(offset + self._start if whence == 0 else offset, whence)
        return self.tell()

    def tell(self) -> int:
        """Bytes from where the file stood at first."""
        return self._file.tell() - self._start

    def head(self) -> bytes:
        """The first bytes; the stream is at its start after it."""
        self.seek(0)
        head = self.read(_HEAD_BYTES)
        self.seek(0)
        return head

    def _spooled(self) -> Any:
        copy = tempfile.SpooledTemporaryFile(_SPOOL_IN_MEMORY)  # noqa: SIM115 - as long as the stream
        while chunk := self.read(_CHUNK):
            copy.write(chunk)
            if copy.tell() > MAX_PIPED_BYTES:
                raise ValueError(f"{self.name}: holds more than {MAX_PIPED_BYTES >> 30} GiB; give it as a file.")
        copy.seek(0)
        return copy


def known_format(head: bytes) -> str | None:
    """What a file is whose first bytes are given, if it is of a kind that is not decoded."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for beginning, kind in _BEGINNINGS:
        if head.startswith(beginning) or text.startswith(beginning.lower()):
            return kind
    return None
