"""What the header of a WAV file says about its length, which FFmpeg replaces by what it finds."""

from .byte_stream import ByteStream


# Programs that write to a pipe put 0, or nearly the largest number there is, for a length that they don't know.
_UNKNOWN_SIZES = ((0, 0), (2**31 - 2**16, 2**31 - 1), (2**32 - 2**16, 2**32 - 1))
_MAX_CHUNKS = 64


def wav_size(stream: ByteStream) -> tuple[int, int | None] | None:
    """
    Bytes of sound in a WAV file: those it holds, and those its header claims, `None` where its writer did not know.

    `None` for files that are no plain WAV. The stream is at its start after it.
    """
    stream.seek(0)
    try:
        if stream.read(4) != b"RIFF" or stream.read(8)[4:] != b"WAVE":
            return None
        for _ in range(_MAX_CHUNKS):
            chunk = stream.read(8)
            if len(chunk) < 8:
                return None
            size = int.from_bytes(chunk[4:], "little")
            if chunk[:4] == b"data":
                start = stream.tell()
                is_unknown = any(low <= size <= high for low, high in _UNKNOWN_SIZES)
                return stream.seek(0, 2) - start, None if is_unknown else size
            # Chunks begin at even places.
            stream.seek(size + size % 2, 1)
        return None
    finally:
        stream.seek(0)
