"""Audio in: anything a user may hold becomes one mono float32 waveform at the rate that was asked for."""

import io
import math
import os
import warnings
from dataclasses import dataclass
from numbers import Real
from typing import Any, BinaryIO

import av
import numpy as np
import soxr
import torch


DEFAULT_MAX_DURATION_S = 3600.0
MAX_CHANNELS = 16
# The largest layout that FFmpeg knows, 22.2, has 24.
MAX_DECODED_CHANNELS = 64

# Containers that hold sound and nothing else than sound and pictures: playlist formats (hls, concat) open other files.
_CONTAINERS = (
    "aac,ac3,aiff,amr,asf,au,avi,caf,flac,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mp3,mpeg,mpegts,ogg,wav,w64,wv"
)
_BLOCK = 1 << 16


def load_audio(
    audio: Any,
    sampling_rate: int | None = None,
    target_sampling_rate: int = 16000,
    max_duration_s: float = DEFAULT_MAX_DURATION_S,
    name: str | None = None,
) -> np.ndarray:
    r"""
    Load a recording as a mono waveform.

    Files are decoded with PyAV (FFmpeg) as a stream, channels are averaged, and the result is resampled with soxr's
    high-quality setting (aliasing below -120 dB). A recording that exceeds full scale is scaled down to a peak of 1.

    Args:
        audio (`str`, `os.PathLike`, `bytes`, file object, `np.ndarray`, `torch.Tensor` or `dict`):
            A file (wav, flac, ogg, opus, mp3, m4a, aac, or a video whose sound track is used), its bytes, or an open
            binary file; samples of shape `(T,)`, `(channels, T)` or `(T, channels)`, float in [-1, 1], or uint8,
            int16 or int32 at full scale; or a `datasets` Audio value: a dict with `array` and `sampling_rate`, or
            with `bytes` or `path`.
        sampling_rate (`int`, *optional*):
            Rate of samples given as an array or tensor, in Hz. Files carry their own.
        target_sampling_rate (`int`, defaults to 16000):
            Rate of the result, in Hz.
        max_duration_s (`float`, defaults to 3600):
            Longest recording accepted, in seconds; enforced while decoding.
        name (`str`, *optional*):
            What to call this recording in errors. Defaults to its path.

    Returns:
        `np.ndarray` of shape `(T,)`, float32, in [-1, 1], writable.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file or array can't be read as audio, holds no samples, or is longer than `max_duration_s`.

    A damaged or truncated file gives what could be decoded, with a `UserWarning`.
    """
    target_sampling_rate = _check_sampling_rate(target_sampling_rate, "target_sampling_rate")
    if (
        isinstance(max_duration_s, bool)
        or not isinstance(max_duration_s, Real)
        or math.isnan(max_duration_s)
        or max_duration_s <= 0
    ):
        raise ValueError(f"`max_duration_s` has to be a positive number of seconds but is {max_duration_s!r}.")

    if isinstance(audio, dict) or hasattr(audio, "get_all_samples"):
        audio, sampling_rate, name = _unpack_audio_value(audio, sampling_rate, name)
    if isinstance(audio, torch.Tensor):
        audio = audio.detach().to("cpu")
        audio = (audio.float() if audio.dtype == torch.bfloat16 else audio).numpy()

    name = name or describe(audio)
    sink = _Sink(target_sampling_rate, max_duration_s, name)
    if isinstance(audio, np.ndarray):
        _read_array(audio, sampling_rate, sink)
    elif isinstance(audio, (str, os.PathLike)):
        if not os.path.exists(audio):
            raise FileNotFoundError(f"{name}: no such file.")
        if os.path.isdir(audio):
            raise ValueError(f"{name}: is a folder, not an audio file.")
        with open(audio, "rb") as file:
            _decode(file, sink)
    elif isinstance(audio, (bytes, bytearray, memoryview)):
        _decode(io.BytesIO(audio), sink)
    elif hasattr(audio, "read") and not isinstance(audio, io.TextIOBase):
        _decode(audio, sink)
    else:
        raise ValueError(
            f"{name}: audio has to be a path, bytes, a binary file, an array or tensor, or a datasets Audio dict, but"
            f" is {type(audio).__name__}."
        )
    return sink.finish()


@dataclass(frozen=True)
class Recording:
    """
    A loaded recording.

    Attributes:
        name (`str`): What errors call it.
        waveform (`np.ndarray` of shape `(T,)`): Mono, float32 in [-1, 1].
    """

    name: str
    waveform: np.ndarray


def load_recordings(
    audio: Any, sampling_rate: int | None, target_sampling_rate: int, max_duration_s: float = DEFAULT_MAX_DURATION_S
) -> list[Recording]:
    """
    Load one recording, or a list or tuple of them; arguments as of [`load_audio`].

    Raises:
        ValueError: As [`load_audio`], or if the list is empty.
    """
    batch = list(audio) if isinstance(audio, (list, tuple)) else [audio]
    if not batch:
        raise ValueError("`audio` is an empty list.")
    recordings = []
    for number, item in enumerate(batch):
        if isinstance(item, (int, float)):
            raise ValueError("A list is a batch of recordings: give samples as an array or tensor.")
        name = describe(item)
        if len(batch) > 1 and not isinstance(item, (str, os.PathLike)):
            name = f"{name}, number {number} of the batch"
        recordings.append(Recording(name, load_audio(item, sampling_rate, target_sampling_rate, max_duration_s, name)))
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


class _Sink:
    """Takes mono blocks at any rate, and keeps one float32 waveform at the target rate, up to a limit."""

    def __init__(self, sampling_rate: int, max_duration_s: float, name: str) -> None:
        self.sampling_rate = sampling_rate
        self.max_duration_s = max_duration_s
        self.name = name
        # A bytearray grows in place, so the waveform is never held twice.
        self._buffer = bytearray()
        self._waiting: list[np.ndarray] = []
        self._num_waiting = 0
        self._seconds = 0.0
        self._rate: int | None = None
        self._resampler: soxr.ResampleStream | None = None

    @property
    def seconds(self) -> float:
        """Duration taken in so far."""
        return self._seconds

    def add(self, block: np.ndarray, rate: int) -> None:
        if block.size == 0:
            return
        self._seconds += len(block) / rate
        # The sum of many blocks is off by some rounding.
        if self._seconds > self.max_duration_s + 1e-6:
            raise ValueError(f"{self.name}: longer than `max_duration_s` = {self.max_duration_s:g} s.")
        if rate != self._rate:
            self._flush()
            self._rate = rate
            if rate != self.sampling_rate:
                self._resampler = soxr.ResampleStream(rate, self.sampling_rate, 1, dtype="float32", quality="HQ")
        self._waiting.append(block)
        self._num_waiting += len(block)
        if self._num_waiting >= _BLOCK:
            self._push()

    def finish(self) -> np.ndarray:
        self._flush()
        waveform = np.frombuffer(self._buffer, dtype=np.float32)
        if waveform.size == 0:
            raise ValueError(f"{self.name}: holds no audio samples.")
        peak = max(float(waveform.max()), -float(waveform.min()))
        # Finite samples near float32's limit overflow in the resampler.
        if not math.isfinite(peak):
            raise ValueError(f"{self.name}: its samples are too large for float32.")
        if peak > 1.0:
            waveform /= np.float32(peak)
            np.clip(waveform, -1.0, 1.0, out=waveform)
        return waveform

    def _push(self) -> None:
        """Takes the blocks that wait, all at once: codecs give very short ones."""
        if not self._waiting:
            return
        block = np.concatenate(self._waiting)
        self._waiting, self._num_waiting = [], 0
        if not np.isfinite(block).all():
            raise ValueError(f"{self.name}: holds NaN or infinite samples.")
        if self._resampler is not None:
            block = self._resampler.resample_chunk(block)
        self._buffer += memoryview(np.ascontiguousarray(block)).cast("B")

    def _flush(self) -> None:
        self._push()
        if self._resampler is not None:
            tail = self._resampler.resample_chunk(np.zeros(0, dtype=np.float32), last=True)
            self._buffer += memoryview(np.ascontiguousarray(tail)).cast("B")
            self._resampler = None


def _check_sampling_rate(sampling_rate: Any, name: str) -> int:
    if (
        isinstance(sampling_rate, bool)
        or not isinstance(sampling_rate, (Real, np.integer, np.floating))
        or not math.isfinite(sampling_rate)
        or sampling_rate != int(sampling_rate)
        or not 1 <= sampling_rate <= 10_000_000
    ):
        raise ValueError(f"`{name}` has to be a positive whole number of Hz but is {sampling_rate!r}.")
    return int(sampling_rate)


def _unpack_audio_value(audio: Any, sampling_rate: int | None, name: str | None) -> tuple[Any, int | None, str | None]:
    """Takes a datasets Audio value apart: decoded (`array`), not decoded (`bytes`, `path`), or a lazy decoder."""
    if not isinstance(audio, dict):
        return audio["array"], audio["sampling_rate"], name
    if audio.get("array") is not None:
        rate = audio.get("sampling_rate")
        array = audio["array"] if isinstance(audio["array"], torch.Tensor) else np.asarray(audio["array"])
        return array, sampling_rate if rate is None else rate, name or audio.get("path")
    for key in ("bytes", "path"):
        if audio.get(key) is not None:
            return audio[key], sampling_rate, name or audio.get("path")
    raise ValueError(f"An audio dict needs `array` and `sampling_rate`, or `bytes`, or `path`, but has {list(audio)}.")


def _read_array(samples: np.ndarray, sampling_rate: int | None, sink: _Sink) -> None:
    if sampling_rate is None:
        raise ValueError(f"{sink.name}: samples need `sampling_rate` (Hz).")
    rate = _check_sampling_rate(sampling_rate, "sampling_rate")
    # Wider integers are usually 16-bit samples in a wide type, so their full scale can't be told.
    if samples.dtype.kind != "f" and samples.dtype not in (np.uint8, np.int16, np.int32):
        raise ValueError(f"{sink.name}: samples have to be floats, uint8, int16 or int32 but are {samples.dtype}.")
    if samples.size == 0:
        raise ValueError(f"{sink.name}: holds no audio samples.")
    if samples.ndim == 1:
        samples = samples[None]
    elif samples.ndim == 2:
        samples = _channels_first(samples, sink.name)
    else:
        raise ValueError(
            f"{sink.name}: samples have to be of shape (T,), (channels, T) or (T, channels) but are of shape"
            f" {tuple(samples.shape)}; give several recordings as a list."
        )
    for start in range(0, samples.shape[1], _BLOCK):
        sink.add(_mix(samples[:, start : start + _BLOCK]), rate)


def _channels_first(samples: np.ndarray, name: str) -> np.ndarray:
    few = [size <= MAX_CHANNELS for size in samples.shape]
    if few[0] == few[1]:
        raise ValueError(
            f"{name}: can't tell channels from time in samples of shape {tuple(samples.shape)}: one side has to be at"
            f" most {MAX_CHANNELS} channels and the other longer."
        )
    return samples if few[0] else samples.T


def _mix(samples: np.ndarray) -> np.ndarray:
    """Average of the channels of `(channels, T)` samples, as float32 with full scale at 1."""
    if samples.dtype.kind == "f":
        # float16 sums overflow, and float64 beyond float32's range has to show as infinite.
        with np.errstate(over="ignore", invalid="ignore"):
            mixed = samples[0] if len(samples) == 1 else samples.mean(axis=0, dtype=np.float64)
            return mixed.astype(np.float32)
    info = np.iinfo(samples.dtype)
    mixed = samples.mean(axis=0, dtype=np.float64)
    middle = 0 if samples.dtype.kind == "i" else (info.max + 1) / 2
    full_scale = (info.max + 1) / (1 if samples.dtype.kind == "i" else 2)
    return ((mixed - middle) / full_scale).astype(np.float32)


def _decode(file: BinaryIO, sink: _Sink) -> None:
    options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "none"}
    try:
        if _is_empty(file):
            raise ValueError(f"{sink.name}: is empty.")
        container = av.open(file, options=options, metadata_errors="ignore")
    except (av.error.FFmpegError, OSError, UnicodeError) as error:
        raise ValueError(f"{sink.name}: not a readable audio or video file ({_reason(error)}).") from None
    with container:
        if not container.streams.audio:
            raise ValueError(f"{sink.name}: has no sound track.")
        stream = container.streams.best("audio") or container.streams.audio[0]
        if stream.codec_context is None:
            raise ValueError(f"{sink.name}: its sound is in a format that can't be decoded.")
        damage = _decode_stream(container, stream, sink)
        expected = _stream_seconds(container, stream)
        # Encoder padding and container rounding stay well below this.
        if expected is not None and sink.seconds < 0.98 * expected - 0.1:
            damage = damage or "it ends early"
            damage = f"{damage}; {sink.seconds:.2f} s of {expected:.2f} s"
    if sink.seconds == 0:
        raise ValueError(f"{sink.name}: no audio could be decoded ({damage or 'its sound track is empty'}).")
    if damage:
        warnings.warn(f"{sink.name}: damaged or truncated, using what could be decoded ({damage}).", stacklevel=3)


def _is_empty(file: BinaryIO) -> bool:
    # FFmpeg seeks to before the start of an empty file, and PyAV prints a traceback of that.
    if not hasattr(file, "seekable") or not file.seekable():
        return False
    start = file.tell()
    empty = not file.read(1)
    file.seek(start)
    return empty


def _decode_stream(container: Any, stream: Any, sink: _Sink) -> str | None:
    """Decodes one sound track into `sink`, over broken packets; returns what was wrong with it, if anything."""
    damage = None
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return damage
        except av.error.FFmpegError as error:
            return _reason(error)
        try:
            frames = packet.decode()
        except av.error.FFmpegError as error:
            # The decoder reports its own end as an error when it is flushed twice.
            damage = damage if isinstance(error, av.error.EOFError) else _reason(error)
            continue
        if packet.is_corrupt:
            damage = damage or "corrupt data"
        for frame in frames:
            if frame.sample_rate <= 0 or frame.samples <= 0:
                continue
            # A damaged frame may claim channels that it has no samples for; reading them would crash.
            num_planes = frame.layout.nb_channels if frame.format.is_planar else 1
            if len(frame.planes) != num_planes or not 0 < frame.layout.nb_channels <= MAX_DECODED_CHANNELS:
                damage = damage or "corrupt data"
                continue
            sink.add(_mix(_frame_samples(frame)), frame.sample_rate)


def _frame_samples(frame: Any) -> np.ndarray:
    samples = frame.to_ndarray()
    return samples if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels).T


def _stream_seconds(container: Any, stream: Any) -> float | None:
    """Duration the file claims for its sound track, in seconds, if it says."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    if container.duration is not None and len(container.streams) == 1:
        return container.duration / av.time_base
    return None


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
