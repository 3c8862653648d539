"""Separated audio at a recording's own rate and with its channels, written as it is computed."""

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import soundfile

from ..audio.original import PlainTrack
from ..audio.stems import stem_blocks
from ..pipeline_output import SoundSource


REST = "rest.wav"
# On a disk, in bytes.
_LITTLE_SPACE = 1 << 20
_BYTES_PER_SAMPLE = {"PCM_16": 2, "PCM_24": 3, "FLOAT": 4}


def save_stems(
    folder: Path, recording: PlainTrack, sources: Sequence[SoundSource], names: Sequence[str | None]
) -> None:
    """
    Write a WAV file for each source with separated audio, and `rest.wav` for what they leave: with 16 or 24 bits a
    sample, or floating point, as the recording has.

    Args:
        folder (`Path`): Where to.
        recording ([`PlainTrack`]): Of all sources.
        sources (`Sequence[SoundSource]`): With `audio` and `soundscape`.
        names (`Sequence[str]`): Of their files.

    Raises:
        OSError: If they can't be written.
    """
    chosen = [(source, name) for source, name in zip(sources, names, strict=True) if name is not None]
    first = chosen[0][0]
    blocks = stem_blocks(
        recording.blocks(),
        recording.sampling_rate,
        first.soundscape,
        [source.audio for source, _ in chosen],
        first.sampling_rate,
    )
    paths = [folder / name for name in (*(name for _, name in chosen), REST)]
    num_samples = 0
    with _full_disk_told(paths[0]), ExitStack() as stack:
        how = ("w", recording.sampling_rate, recording.channels, recording.subtype)
        files = [stack.enter_context(soundfile.SoundFile(os.fsencode(path), *how, format="WAV")) for path in paths]
        for block, stems in blocks:
            num_samples += block.shape[1]
            rest = block - stems.sum(axis=0)
            for file, sound in zip(files, (*stems, rest), strict=True):
                file.write(sound.T)
    size = num_samples * recording.channels * _BYTES_PER_SAMPLE[recording.subtype]
    for path in paths:
        # What soundfile could not write when it closed the file, it does not tell.
        if path.stat().st_size < size:
            raise _unwritten(path)


@contextmanager
def _full_disk_told(path: Path) -> Iterator[None]:
    """soundfile knows no reasons."""
    try:
        yield
    except soundfile.SoundFileError:
        raise _unwritten(path) from None


def _unwritten(path: Path) -> OSError:
    reason = errno.ENOSPC if shutil.disk_usage(path.parent).free < _LITTLE_SPACE else errno.EIO
    return OSError(reason, os.strerror(reason), str(path))
