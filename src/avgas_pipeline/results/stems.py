"""Separated audio at a recording's own rate and with its channels, written as it is computed."""

import wave
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from ..audio.original import PlainTrack
from ..audio.stems import stem_blocks
from ..pipeline_output import SoundSource


REST = "rest.wav"
_BYTES_PER_SAMPLE = 2


def save_stems(
    folder: Path, recording: PlainTrack, sources: Sequence[SoundSource], names: Sequence[str | None]
) -> None:
    """
    Write a WAV file, 16 bit, for each source with separated audio, and `rest.wav` for what they leave.

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
    with ExitStack() as stack:
        # Not soundfile, which does not report a full disk.
        files = [
            stack.enter_context(wave.open(stack.enter_context((folder / name).open("wb")), "wb"))
            for name in (*(name for _, name in chosen), REST)
        ]
        for file in files:
            file.setnchannels(recording.channels)
            file.setsampwidth(_BYTES_PER_SAMPLE)
            file.setframerate(recording.sampling_rate)
        for block, stems in blocks:
            rest = block - stems.sum(axis=0)
            for file, sound in zip(files, (*stems, rest), strict=True):
                file.writeframes(_pcm(sound))


def _pcm(sound: np.ndarray) -> bytes:
    """Samples `(channels, T)` in [-1, 1] as interleaved integers of 16 bit."""
    return np.round(np.clip(sound.T, -1.0, 1.0) * 32767).astype("<i2").tobytes()
