"""Recordings as they are: at their own rate and with all their channels, where their file is that simple."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import av
import numpy as np

from .byte_stream import ByteStream
from .decoding import decoded_frames, open_container


# Time stamps that begin later than the file have silence before the sound, which mono loading puts there.
_LATEST_START_S = 1 / 48000
# What encoders add at both ends is shorter.
_MOST_APART_S = 0.1


@dataclass(frozen=True)
class PlainTrack:
    """
    A file with one sound track, whose time stamps begin with the file.

    Attributes:
        path (`str`): The file.
        channels (`int`): Of the track.
        sampling_rate (`int`): Its own, in Hz.
        subtype (`str`): What holds its samples in a WAV file: `"PCM_16"`, `"PCM_24"` or `"FLOAT"`.
    """

    path: str
    channels: int
    sampling_rate: int
    subtype: str = "PCM_16"

    def blocks(self, sampling_rate: int | None = None) -> Iterator[np.ndarray]:
        """Block after block `(channels, T)`, float32, at its own rate or another, in Hz; without what is damaged."""
        with _opened(self.path) as container:
            track = container.streams.audio[0]
            layout, rate = track.layout, sampling_rate or self.sampling_rate
            resampler, kind = None, None
            # `load_audio`, which is asked first, has warned of damage.
            for frame in decoded_frames(container, track, damage=[], is_open_ended=True):
                own = frame.sample_rate, frame.layout.name, frame.format.name
                if own != kind:
                    yield from _resampled(resampler, None)
                    resampler, kind = av.AudioResampler(format="fltp", layout=layout, rate=rate), own
                yield from _resampled(resampler, frame)
            yield from _resampled(resampler, None)


def _resampled(resampler: av.AudioResampler | None, frame: av.AudioFrame | None) -> Iterator[np.ndarray]:
    """What comes out for a frame, or at the end."""
    for resampled in resampler.resample(frame) if resampler is not None else ():
        yield resampled.to_ndarray()


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    """A file's container. PyAV would take a name with a colon for an address, so it is given the open file."""
    with open(path, "rb") as file, open_container(ByteStream(file, path), path) as container:
        yield container


def plain_track(audio: Any, audio_track: int | None = None, duration_s: float | None = None) -> PlainTrack | None:
    """
    The track of a file; `None` for anything else, and for files of several tracks, of late time stamps or with gaps.

    Args:
        audio (`Any`): As of `load_audio`.
        audio_track (`int`, *optional*): The track that was asked for.
        duration_s (`float`, *optional*): How long `load_audio` found it, in seconds: with gaps it is longer than its
            sound, and damaged it is shorter.
    """
    if not isinstance(audio, (str, os.PathLike)):
        return None
    path = os.fspath(audio)
    with _opened(path) as container:
        tracks = container.streams.audio
        if len(tracks) != 1 or audio_track not in (None, 0):
            return None
        begins = (container.start_time or 0) / av.time_base
        first = (tracks[0].start_time or 0) * float(tracks[0].time_base)
        if abs(first - begins) > _LATEST_START_S:
            return None
        length_s = float((tracks[0].duration or 0) * tracks[0].time_base)
        if duration_s is not None and length_s and abs(length_s - duration_s) > _MOST_APART_S:
            return None
        return PlainTrack(path, tracks[0].channels, tracks[0].rate, _subtype(tracks[0].codec_context))


def _subtype(codec: Any) -> str:
    if codec.name.startswith(("pcm_f32", "pcm_f64")):
        return "FLOAT"
    # Decoders give more than 16 bits as 32.
    return "PCM_24" if codec.format.name in ("s32", "s32p") else "PCM_16"
