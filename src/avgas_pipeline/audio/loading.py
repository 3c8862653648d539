"""Audio in: anything a user may hold becomes one mono float32 waveform at the rate that was asked for."""

import io
import os
import re
import warnings
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import torch

from .byte_stream import ByteStream
from .decoding import decode
from .downmix import ChannelSampler, mix
from .samples import check_sampling_rate, is_pair, read_samples, unpack_pair
from .waveform import BLOCK, WaveformBuilder


DEFAULT_MAX_DURATION_S = 3600.0


def load_audio(
    audio: Any,
    sampling_rate: int | None = None,
    target_sampling_rate: int = 16000,
    max_duration_s: float = DEFAULT_MAX_DURATION_S,
    name: str | None = None,
    audio_track: int | None = None,
) -> np.ndarray:
    r"""
    Load a recording as a mono waveform.

    Files are decoded with PyAV (FFmpeg) as a stream, channels are averaged, and the result is resampled with soxr's
    high-quality setting (aliasing below -120 dB). A recording that exceeds full scale is scaled down to a peak of 1.

    Args:
        audio (`str`, `os.PathLike`, `bytes`, file object, `np.ndarray`, `torch.Tensor`, `tuple` or `dict`):
            A file (wav, flac, ogg, opus, mp3, m4a, aac, or a video whose sound track is used), its bytes, or an open
            binary file; samples of shape `(T,)`, `(channels, T)` or `(T, channels)`, float in [-1, 1], or uint8,
            int16 or int32 at full scale; samples with their rate, `(rate, samples)` or `(samples, rate)`; or a
            `datasets` Audio value: a dict with `array` and `sampling_rate`, or with `bytes` or `path`.
        sampling_rate (`int`, *optional*):
            Rate of samples given as an array or tensor alone, in Hz. Files and pairs carry their own.
        target_sampling_rate (`int`, defaults to 16000):
            Rate of the result, in Hz.
        max_duration_s (`float`, defaults to 3600):
            Longest recording accepted, in seconds; enforced while decoding.
        name (`str`, *optional*):
            What to call this recording in errors. Defaults to its path.
        audio_track (`int`, *optional*):
            Which of a file's audio tracks to take, counted from 0. If not given, the one that the file or FFmpeg
            marks as the best, or else the first that can be decoded and is not silent.

    Returns:
        `np.ndarray` of shape `(T,)`, float32, in [-1, 1], writable.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file or array can't be read as audio, holds no samples, or is longer than `max_duration_s`.

    A `UserWarning` says what was done with a file that is damaged or truncated (what could be decoded is used), that
    has several audio tracks, whose time stamps have gaps (filled with silence), or whose channels cancel out in their
    mean (one is inverted, or used alone).
    """
    target_sampling_rate = check_sampling_rate(target_sampling_rate, "target_sampling_rate")
    max_duration_s = _check_duration(max_duration_s)
    if audio_track is not None and (
        isinstance(audio_track, bool) or not isinstance(audio_track, (int, np.integer)) or audio_track < 0
    ):
        raise ValueError(f"`audio_track` has to be a number from 0 but is {audio_track!r}.")

    if isinstance(audio, dict) or hasattr(audio, "get_all_samples"):
        audio, sampling_rate, name = _unpack_audio_value(audio, sampling_rate, name)
    if is_pair(audio):
        audio, sampling_rate = unpack_pair(audio)
        audio = audio if isinstance(audio, torch.Tensor) else np.asanyarray(audio)

    name = name or describe(audio)
    if isinstance(audio, (np.ndarray, torch.Tensor)):
        if audio_track is not None:
            raise ValueError(f"{name}: samples have no tracks; leave `audio_track` out.")
        if sampling_rate is None:
            raise ValueError(f"{name}: samples need `sampling_rate` (Hz).")
        builder = WaveformBuilder(target_sampling_rate, max_duration_s, name)
        return _mix_down(read_samples(audio, name), check_sampling_rate(sampling_rate, "sampling_rate"), builder)
    if isinstance(audio, (str, os.PathLike)):
        with _open(audio, name) as file:
            return decode(ByteStream(file, name), target_sampling_rate, max_duration_s, name, audio_track)
    if isinstance(audio, memoryview) and not audio.c_contiguous:
        raise ValueError(f"{name}: is a memoryview with gaps, not the bytes of a file.")
    if isinstance(audio, (bytes, bytearray, memoryview)):
        audio = io.BytesIO(audio)
    elif not hasattr(audio, "read") or isinstance(audio, io.TextIOBase):
        raise ValueError(
            f"{name}: audio has to be a path, bytes, a binary file, an array or tensor, or a datasets Audio dict, but"
            f" is {type(audio).__name__}."
        )
    try:
        stream = ByteStream(audio, name)
    except OSError as error:
        raise ValueError(f"{name}: not a readable audio or video file ({error.strerror or error}).") from None
    return decode(stream, target_sampling_rate, max_duration_s, name, audio_track)


@dataclass(frozen=True)
class Recording:
    """
    A loaded recording. Given to the pipeline at its own rate, it is taken as it is, without another copy.

    Attributes:
        name (`str`): What errors call it.
        waveform (`np.ndarray` of shape `(T,)`): Mono, float32 in [-1, 1].
        sampling_rate (`int`): In Hz.
    """

    name: str
    waveform: np.ndarray
    sampling_rate: int


def as_batch(audio: Any) -> list[Any]:
    """Recordings one by one: a list or tuple of them is a batch, unless it is a pair of samples and their rate."""
    return list(audio) if isinstance(audio, (list, tuple)) and not is_pair(audio) else [audio]


def load_recordings(
    audio: Any,
    sampling_rate: int | None,
    target_sampling_rate: int,
    max_duration_s: float = DEFAULT_MAX_DURATION_S,
    audio_track: int | None = None,
) -> list[Recording]:
    """
    Load one recording, or a list or tuple of them; arguments as of [`load_audio`].

    Raises:
        ValueError: As [`load_audio`], or if the list is empty.
    """
    batch = as_batch(audio)
    if not batch:
        raise ValueError("`audio` is an empty list.")
    recordings = []
    for number, item in enumerate(batch):
        if isinstance(item, Recording) and item.sampling_rate == target_sampling_rate:
            recordings.append(item)
            continue
        if isinstance(item, (int, float)):
            raise ValueError("A list is a batch of recordings: give samples as an array or tensor.")
        name = describe(item)
        if len(batch) > 1 and not isinstance(item, (str, os.PathLike)):
            name = f"{name}, number {number} of the batch"
        waveform = load_audio(item, sampling_rate, target_sampling_rate, max_duration_s, name, audio_track)
        recordings.append(Recording(name, waveform, target_sampling_rate))
    return recordings


def describe(audio: Any) -> str:
    """A short name of `audio` for messages: its path if it has one."""
    if isinstance(audio, (str, os.PathLike)):
        return os.fspath(audio)
    if isinstance(audio, dict) and audio.get("path"):
        return str(audio["path"])
    file_name = getattr(audio, "name", None)
    if isinstance(file_name, str):
        return file_name
    return f"audio ({type(audio).__name__})"


def _check_duration(seconds: Any) -> float:
    try:
        if isinstance(seconds, Real) and not isinstance(seconds, bool) and float(seconds) > 0:
            return float(seconds)
    except OverflowError:
        pass
    raise ValueError(f"`max_duration_s` has to be a positive number of seconds but is {str(seconds)[:40]!r}.")


def _open(path: str | os.PathLike, name: str) -> io.BufferedReader:
    try:
        # A FIFO without a writer would be waited for.
        if os.path.exists(path) and not os.path.isfile(path):
            raise ValueError(f"{name}: is {'a folder' if os.path.isdir(path) else 'no ordinary file'}, not audio.")
        return open(path, "rb")
    except FileNotFoundError:
        if re.match(r"[a-z][a-z0-9+.-]+://", os.fspath(path)):
            raise ValueError(f"{name}: is an address, which is not fetched; download it first.") from None
        raise FileNotFoundError(f"{name}: no such file.") from None
    except OSError as error:
        raise ValueError(f"{name}: can't be opened ({error.strerror or error}).") from None


def _unpack_audio_value(audio: Any, sampling_rate: int | None, name: str | None) -> tuple[Any, int | None, str | None]:
    """Takes a datasets Audio value apart: decoded (`array`), not decoded (`bytes`, `path`), or a lazy decoder."""
    if not isinstance(audio, dict):
        return audio["array"], audio["sampling_rate"], name
    if audio.get("array") is not None:
        rate = audio.get("sampling_rate")
        array = audio["array"] if isinstance(audio["array"], torch.Tensor) else np.asanyarray(audio["array"])
        return array, sampling_rate if rate is None else rate, name or audio.get("path")
    for key in ("bytes", "path"):
        if audio.get(key) is not None:
            return audio[key], sampling_rate, name or audio.get("path")
    raise ValueError(f"An audio dict needs `array` and `sampling_rate`, or `bytes`, or `path`, but has {list(audio)}.")


def _mix_down(samples: np.ndarray, rate: int, builder: WaveformBuilder) -> np.ndarray:
    """The waveform of samples `(channels, T)` at `rate` Hz."""
    downmix = None
    if len(samples) > 1:
        sampler = ChannelSampler(len(samples))
        for start in range(0, samples.shape[1], BLOCK):
            sampler.add(samples[:, start : start + BLOCK])
        downmix = sampler.choose()
        if downmix is not None:
            warnings.warn(f"{builder.name}: {downmix.reason}.", stacklevel=3)
    for start in range(0, samples.shape[1], BLOCK):
        block = samples[:, start : start + BLOCK]
        builder.add(mix(block, None if downmix is None else downmix.weights), rate)
    return builder.finish()
