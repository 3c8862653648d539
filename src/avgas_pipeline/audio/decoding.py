"""Audio and video files to a waveform, with PyAV (FFmpeg): tracks, gaps, damage."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import av
import numpy as np

from .byte_stream import ByteStream, known_format
from .downmix import ChannelSampler, Downmix, mix
from .wav_header import wav_size
from .waveform import WaveformBuilder
from .windows import is_silent


# The largest layout that FFmpeg knows, 22.2, has 24.
_MAX_CHANNELS = 64
# Containers that hold sound and nothing else than sound and pictures: playlist formats (hls, concat) open other files.
_CONTAINERS = (
    "aac,ac3,aiff,amr,asf,au,avi,caf,eac3,flac,flv,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mp3,mpeg,mpegts,ogg,wav,w64,"
    "wv"
)
# A data chunk of unknown size in Apple's Core Audio Format.
_OPEN_ENDED_CAF = b"data" + b"\xff" * 8
# Samples of a channel that are mixed at once: frames of codecs have a thousand, and each step costs as much for few.
_MIXED_AT_ONCE = 1 << 14
# Time stamps of some containers are off by as much without a gap.
_MAX_OFFSET_S = 0.1
# A step ahead by more than this, where the file does not say that it is as long, is a new clock rather than a gap.
_MAX_GAP_S = 60.0


@dataclass
class _Track:
    """What decoding one sound track gave: its waveform, and what there is to say about it."""

    waveform: np.ndarray
    damage: str | None
    downmix: Downmix | None
    gaps: list[float]


@dataclass
class Clock:
    """
    Where in a track the decoder is by its time stamps, in seconds.

    Attributes:
        origin (`float`): When the file begins.
        end (`float`, *optional*): The track's length, where the file says.
        limit (`float`): The longest recording accepted.
        shift (`float`): How far the time stamps have jumped.
        gaps (`list[float]`): Lengths of what is missing between frames.
        jump (`float`): The furthest jump ahead.
    """

    origin: float
    end: float | None
    limit: float
    shift: float = 0.0
    gaps: list[float] = field(default_factory=list)
    jump: float = 0.0

    @classmethod
    def of(cls, container: Any, track: Any, limit: float) -> "Clock":
        """That of an open container's sound track, which may have `limit` seconds."""
        return cls(_origin(container, track), _claimed_seconds(container, track), limit)

    def silence_before(self, frame: Any, position: float) -> float:
        """How many seconds are missing before a frame where `position` seconds have been decoded so far."""
        if frame.pts is None or frame.time_base is None:
            return 0.0
        missing = float(frame.pts * frame.time_base) - self.origin - self.shift - position
        if abs(missing) <= _MAX_OFFSET_S:
            return 0.0
        after = position + missing
        is_plausible = missing <= _MAX_GAP_S or (self.end is not None and after < self.end)
        if missing < 0 or not is_plausible or after > self.limit:
            # Clips that were put together each begin at 0.
            self.shift += missing
            self.jump = max(self.jump, missing)
            return 0.0
        if position > 0:
            self.gaps.append(missing)
        return missing


class _Mixer:
    """
    Frames to a mono waveform.

    Args:
        builder ([`WaveformBuilder`]): What takes it.
        downmixes (`dict`): How to mix, for every number of channels; their mean if there are none yet, and then
            `samplers` are there to choose by.
    """

    def __init__(self, builder: WaveformBuilder, downmixes: dict[int, Downmix | None]) -> None:
        self.samplers: dict[int, ChannelSampler] = {}
        self.seconds = 0.0
        self._builder = builder
        self._downmixes = downmixes
        self._kind: tuple[int, np.dtype, int] | None = None
        self._waiting: list[np.ndarray] = []
        self._num_waiting = 0

    def add(self, frame: Any, silence: float) -> None:
        """Take in a frame after so many seconds of silence."""
        samples = _samples(frame)
        kind = (len(samples), samples.dtype, frame.sample_rate)
        if silence or kind != self._kind or self._num_waiting >= _MIXED_AT_ONCE:
            self.flush()
            self._kind = kind
        if silence:
            self._builder.add_silence(silence, frame.sample_rate)
        self._waiting.append(samples)
        self._num_waiting += samples.shape[1]
        self.seconds += silence + samples.shape[1] / frame.sample_rate

    def flush(self) -> None:
        """Mix what waits."""
        if not self._waiting:
            return
        samples = np.concatenate(self._waiting, axis=1)
        self._waiting, self._num_waiting = [], 0
        num_channels, _, rate = self._kind
        if num_channels > 1 and not self._downmixes:
            self.samplers.setdefault(num_channels, ChannelSampler(num_channels)).add(samples)
        downmix = self._downmixes.get(num_channels)
        self._builder.add(mix(samples, None if downmix is None else downmix.weights), rate)


def decode(
    stream: ByteStream, sampling_rate: int, max_duration_s: float, name: str, audio_track: int | None = None
) -> np.ndarray:
    """
    Decode a file's sound track to a mono waveform `(T,)`, float32 in [-1, 1], at `sampling_rate` Hz.

    Without `audio_track` it is the one that FFmpeg thinks best, or else the first that can be decoded and is not
    silent.

    Raises:
        ValueError: If there is none, or the result is longer than `max_duration_s` seconds.
    """
    tracks = _tracks(stream, name)
    if audio_track is not None and audio_track >= len(tracks):
        raise ValueError(f"{name}: has no audio track {audio_track}; it has {len(tracks)}, counted from 0.")
    order = list(tracks) if audio_track is None else [audio_track]
    chosen, found, failures = order[0], None, []
    for number in order:
        try:
            candidate = _decode_track(stream, number, sampling_rate, max_duration_s, name)
        except _TrackError as error:
            failures.append(str(error))
            continue
        if found is None or not is_silent(candidate.waveform):
            chosen, found = number, candidate
        if not is_silent(candidate.waveform):
            break
    if found is None:
        raise ValueError(f"{name}: {failures[0]}.")
    if len(tracks) > 1 and audio_track is None:
        listed = "; ".join(f"{number}: {tracks[number]}" for number in sorted(tracks))
        _warn(f"{name}: has {len(tracks)} audio tracks ({listed}); taking {chosen}, choose with `audio_track`.")
    if found.downmix is not None:
        _warn(f"{name}: {found.downmix.reason}.")
    if found.gaps:
        count = f"{len(found.gaps)} gap{'s' * (len(found.gaps) > 1)}"
        _warn(f"{name}: has {count} in its time stamps, {sum(found.gaps):.2f} s in all, filled with silence.")
    if found.damage:
        _warn(f"{name}: damaged or truncated, using what could be decoded ({found.damage}).")
    return found.waveform


class _TrackError(ValueError):
    """A sound track that gives nothing."""


def _warn(text: str) -> None:
    # The caller of `load_audio`.
    warnings.warn(text, stacklevel=5)


def open_container(stream: ByteStream, name: str) -> Any:
    """
    A file as PyAV's container; nothing that it names is opened.

    Raises:
        ValueError: If it is no audio or video file.
    """
    options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "none"}
    kind = None
    try:
        head = stream.head()
        # FFmpeg seeks to before the start of an empty file, and PyAV prints a traceback of that.
        if not head:
            raise ValueError(f"{name}: is empty.")
        kind = known_format(head)
        return av.open(stream, options=options, metadata_errors="ignore")
    except (av.error.FFmpegError, OSError, UnicodeError) as error:
        if kind is not None:
            raise ValueError(f"{name}: not audio that can be decoded: it is {kind}.") from None
        reason = _reason(error)
        # What FFmpeg says of a format that is not among those allowed.
        reason = "a format that is not supported" if reason == "Invalid argument" else reason
        raise ValueError(f"{name}: not a readable audio or video file ({reason}).") from None


def _tracks(stream: ByteStream, name: str) -> dict[int, str]:
    """Sound tracks by number, the most promising first, with a few words about each."""
    with open_container(stream, name) as container:
        tracks = list(container.streams.audio)
        if not tracks:
            raise ValueError(f"{name}: has no sound track.")
        best = container.streams.best("audio") or tracks[0]
        numbers = sorted(range(len(tracks)), key=lambda number: tracks[number].index != best.index)
        return {number: _describe(tracks[number]) for number in numbers}


def _describe(track: Any) -> str:
    context = track.codec_context
    words = [track.metadata.get("title"), track.language, context and context.name, context and context.layout.name]
    return ", ".join(word for word in words if word) or "a format that can't be decoded"


def _decode_track(stream: ByteStream, number: int, sampling_rate: int, max_duration_s: float, name: str) -> _Track:
    track, samplers = _decode_once(stream, number, sampling_rate, max_duration_s, name, {})
    downmixes = {count: sampler.choose() for count, sampler in samplers.items()}
    if any(downmixes.values()):
        # From the start, as what cancelled is gone; one waveform in memory is enough.
        del track
        track, _ = _decode_once(stream, number, sampling_rate, max_duration_s, name, downmixes)
        track.downmix = next(filter(None, downmixes.values()))
    return track


def _decode_once(
    stream: ByteStream,
    number: int,
    sampling_rate: int,
    max_duration_s: float,
    name: str,
    downmixes: dict[int, Downmix | None],
) -> tuple[_Track, dict[int, ChannelSampler]]:
    """One pass over a track, with the downmix for every number of channels; the means if there is none yet."""
    builder = WaveformBuilder(sampling_rate, max_duration_s, name)
    mixer = _Mixer(builder, downmixes)
    wav = wav_size(stream)
    # FFmpeg marks the last packet of what was written to a pipe, which may be short, as corrupt.
    is_open_ended = wav is not None or stream.head().find(_OPEN_ENDED_CAF) >= 0
    with open_container(stream, name) as container:
        track = container.streams.audio[number]
        if track.codec_context is None:
            raise _TrackError("its sound is in a format that can't be decoded")
        clock = Clock.of(container, track, max_duration_s)
        expected = clock.end
        damage: list[str] = []
        for frame in decoded_frames(container, track, damage, is_open_ended):
            mixer.add(frame, clock.silence_before(frame, mixer.seconds))
        mixer.flush()
    if stream.fault is not None:
        raise ValueError(stream.fault)
    if builder.seconds == 0:
        raise _TrackError(f"no audio could be decoded ({damage[0] if damage else 'its sound track is empty'})")
    if wav is not None and expected is not None:
        held, claimed = wav
        if claimed is not None and held < claimed:
            damage.append("it ends early")
            expected *= claimed / max(held, 1)
    if clock.jump > 0:
        damage.append(f"its time stamps jump ahead by {clock.jump:.0f} s")
    # Encoder padding and container rounding stay well below this.
    if expected is not None and builder.seconds < 0.98 * expected - 0.1:
        damage = [f"{damage[0] if damage else 'it ends early'}; {builder.seconds:.2f} s of {expected:.2f} s"]
    return _Track(builder.finish(), next(iter(damage), None), None, clock.gaps), mixer.samplers


def decoded_frames(container: Any, track: Any, damage: list[str], is_open_ended: bool) -> Iterator[Any]:
    """The frames of a sound track, over broken packets; what was wrong is added to `damage`."""
    packets = container.demux(track)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        # PyAV raises IndexError and others of Python's own where a file changes its streams midway.
        except Exception as error:
            damage.append(_reason(error))
            return
        try:
            frames = packet.decode()
        except Exception as error:
            # The decoder reports its own end as an error when it is flushed twice.
            if not isinstance(error, av.error.EOFError):
                damage.append(_reason(error))
            continue
        if packet.is_corrupt and not is_open_ended:
            damage.append("corrupt data")
        for frame in frames:
            if frame.sample_rate <= 0 or frame.samples <= 0:
                continue
            # A damaged frame may claim channels that it has no samples for; reading them would crash.
            num_planes = frame.layout.nb_channels if frame.format.is_planar else 1
            if len(frame.planes) != num_planes or not 0 < frame.layout.nb_channels <= _MAX_CHANNELS:
                damage.append("corrupt data")
                continue
            yield frame


def _samples(frame: Any) -> np.ndarray:
    """Samples `(channels, T)` of a frame."""
    samples = frame.to_ndarray()
    return samples if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels).T


def _origin(container: Any, track: Any) -> float:
    """When the file begins by its track's clock, in seconds: a track may begin later than its picture."""
    if container.start_time is not None:
        return container.start_time / av.time_base
    if track.start_time is not None and track.time_base is not None:
        return float(track.start_time * track.time_base)
    return 0.0


def _claimed_seconds(container: Any, track: Any) -> float | None:
    """Duration the file claims for its sound track, in seconds, if it says."""
    if track.duration is not None and track.time_base is not None:
        return float(track.duration * track.time_base)
    if container.duration is not None and len(container.streams) == 1:
        return container.duration / av.time_base
    return None


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
