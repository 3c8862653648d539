"""The sound of a film: that of the recording, as AAC."""

from collections.abc import Iterator
from typing import Any

import av
import numpy as np

from ..audio.loading import load_audio
from ..audio.original import plain_track


# What AAC takes, in Hz, and samples of each frame that is encoded.
RATE = 48000
BLOCK = 4096


def sound_frames(
    audio: Any, duration_s: float, audio_track: int | None, max_duration_s: float, name: str
) -> Iterator[av.AudioFrame]:
    """
    A recording at 48 kHz, frame after frame, exactly as long as the pictures. A file with one sound track of one or
    two channels is read piece by piece and keeps them; anything else is mixed down as the pipeline hears it.

    Args:
        audio (`Any`): As of `load_audio`.
        duration_s (`float`): The pictures' length, in seconds: silence is added, or the rest cut.
        audio_track (`int`, *optional*): Which of a file's tracks.
        max_duration_s (`float`): Longest recording accepted, in seconds.
        name (`str`): What errors call it.
    """
    total, position = round(duration_s * RATE), 0
    track = plain_track(audio, audio_track, duration_s)
    if track is not None and track.channels <= 2:
        blocks = track.blocks(RATE)
    else:
        blocks = _mixed_down(audio, audio_track, max_duration_s, name)
    for block in blocks:
        if len(block) == 1:
            block = np.tile(block, (2, 1))
        block = block[:, : total - position]
        if block.shape[1]:
            yield _frame(block, position)
            position += block.shape[1]
    if position < total:
        yield _frame(np.zeros((2, total - position), dtype=np.float32), position)


def _frame(block: np.ndarray, position: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format="fltp", layout="stereo")
    frame.sample_rate, frame.pts = RATE, position
    return frame


def _mixed_down(audio: Any, audio_track: int | None, max_duration_s: float, name: str) -> Iterator[np.ndarray]:
    """Blocks `(1, T)` of anything that `load_audio` reads."""
    waveform = load_audio(
        audio, target_sampling_rate=RATE, max_duration_s=max_duration_s, name=name, audio_track=audio_track
    )
    for start in range(0, len(waveform), BLOCK):
        yield waveform[None, start : start + BLOCK]
