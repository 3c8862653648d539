"""Recordings as they are: at their own rate and with all their channels, where their file is that simple."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import av
import numpy as np

from .byte_stream import ByteStream
from .decoding import Clock, decoded_frames, open_container


# What encoders add at both ends is shorter.
_MOST_APART_S = 0.1
# Samples of silence that are given at once.
_BLOCK = 1 << 16


@dataclass(frozen=True)
class PlainTrack:
    """
    A file with one sound track.

    Attributes:
        path (`str`): The file.
        channels (`int`): Of the track.
        sampling_rate (`int`): Its own, in Hz.
        subtype (`str`): What holds its samples in a WAV file: `"PCM_16"`, `"PCM_24"` or `"FLOAT"`.
        limit_s (`float`): No gap in its time stamps goes on after this, in seconds.
    """

    path: str
    channels: int
    sampling_rate: int
    subtype: str = "PCM_16"
    limit_s: float = math.inf

    def blocks(self, sampling_rate: int | None = None) -> Iterator[np.ndarray]:
        """
        Block after block `(channels, T)`, float32, at its own rate or another, in Hz; without what is damaged, and
        with silence where `load_audio` has it: in gaps, and before sound that begins late.
        """
        with _opened(self.path) as container:
            track = container.streams.audio[0]
            clock, position = Clock.of(container, track, self.limit_s), 0.0
            resampler = _Resampler(track.layout, sampling_rate or self.sampling_rate)
            # `load_audio`, which is asked first, has warned of damage.
            for frame in decoded_frames(container, track, damage=[], is_open_ended=True):
                silence = clock.silence_before(frame, position)
                if silence:
                    yield from resampler.add_silence(position + silence)
                yield from resampler.add(frame)
                position += silence + frame.samples / frame.sample_rate
            yield from resampler.finish()


class _Resampler:
    """
    Frames of any kind to blocks `(channels, T)`, float32.

    Args:
        layout (`av.AudioLayout`): Of the blocks.
        rate (`int`): Theirs, in Hz.
    """

    def __init__(self, layout: av.AudioLayout, rate: int) -> None:
        self.layout = layout
        self.rate = rate
        self._num_given = 0
        self._kind: tuple[int, str, str] | None = None
        self._resampler: av.AudioResampler | None = None

    def add(self, frame: av.AudioFrame) -> Iterator[np.ndarray]:
        """Take a frame, and give what comes out for it."""
        kind = frame.sample_rate, frame.layout.name, frame.format.name
        if kind != self._kind:
            yield from self.finish()
            self._kind = kind
            self._resampler = av.AudioResampler(format="fltp", layout=self.layout, rate=self.rate)
        yield from self._resampled(frame)

    def add_silence(self, until_s: float) -> Iterator[np.ndarray]:
        """Silence up to a time in seconds, counted from the start, so that roundings do not add up."""
        yield from self.finish()
        while (missing := round(until_s * self.rate) - self._num_given) > 0:
            yield self._counted(np.zeros((self.layout.nb_channels, min(missing, _BLOCK)), dtype=np.float32))

    def finish(self) -> Iterator[np.ndarray]:
        """What comes out at the end."""
        yield from self._resampled(None)
        self._kind, self._resampler = None, None

    def _resampled(self, frame: av.AudioFrame | None) -> Iterator[np.ndarray]:
        for resampled in () if self._resampler is None else self._resampler.resample(frame):
            yield self._counted(resampled.to_ndarray())

    def _counted(self, block: np.ndarray) -> np.ndarray:
        self._num_given += block.shape[1]
        return block


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    """A file's container. PyAV would take a name with a colon for an address, so it is given the open file."""
    with open(path, "rb") as file, open_container(ByteStream(file, path), path) as container:
        yield container


def plain_track(audio: Any, audio_track: int | None = None, duration_s: float | None = None) -> PlainTrack | None:
    """
    The track of a file; `None` for anything else, for files of several tracks, and for those that are damaged.

    Args:
        audio (`Any`): As of `load_audio`.
        audio_track (`int`, *optional*): The track that was asked for.
        duration_s (`float`, *optional*): How long `load_audio` found it, in seconds: damaged it is shorter than it
            says.
    """
    if not isinstance(audio, (str, os.PathLike)):
        return None
    path = os.fspath(audio)
    with _opened(path) as container:
        tracks = container.streams.audio
        if len(tracks) != 1 or audio_track not in (None, 0):
            return None
        track = tracks[0]
        clock = Clock.of(container, track, math.inf)
        # Some containers count from where the sound begins, and others from where the file does.
        late_s = float((track.start_time or 0) * track.time_base) - clock.origin
        if duration_s is not None and track.duration:
            lengths_s = clock.end, clock.end + late_s
            if min(abs(length_s - duration_s) for length_s in lengths_s) > _MOST_APART_S:
                return None
        limit_s = math.inf if duration_s is None else duration_s
        return PlainTrack(path, track.channels, track.rate, _subtype(track.codec_context), limit_s)


def _subtype(codec: Any) -> str:
    if codec.name.startswith(("pcm_f32", "pcm_f64")):
        return "FLOAT"
    # Decoders give more than 16 bits as 32.
    return "PCM_24" if codec.format.name in ("s32", "s32p") else "PCM_16"
