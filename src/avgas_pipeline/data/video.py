"""One video clip to one example: its sound, and the frame that shows it best; or why there is none."""

import io
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import av
import numpy as np
import PIL.Image
import soundfile

from ..audio.loading import load_audio
from ..audio.loudness import active_rms


# Where a clip is looked at, as shares of its length: for its frame, in this order, and to tell a still picture from a
# film. All else would have to be decoded up to the last look, so none is at the end.
_LOOKS = (0.5, 0.65, 0.25)
# Without the furthest, which most clips do not need.
_FIRST_LOOKS = (0.5, 0.25)
# Grey levels (of 255) that two looks at a still picture may differ by, on average, after compression.
_STILL_LEVELS = 1.5
# A frame with less contrast than this, in grey levels, is black or blank.
_BLANK_LEVELS = 6.0
_QUIETEST_RMS = 10.0 ** (-60.0 / 20)
_JPEG_QUALITY = 90
# Ten seconds at 100 Mbit/s: a clip with more is none.
MAX_VIDEO_BYTES = 128 * 2**20


class SkipClipError(ValueError):
    """A clip that is no use; `reason` is the same for all of a kind, for counting."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason} ({detail})" if detail else reason)
        self.reason = reason


@dataclass(frozen=True)
class VideoExample:
    """
    What a clip gives.

    Attributes:
        audio (`bytes`): FLAC, mono, 16 bit.
        image (`bytes`): JPEG.
        duration (`float`): Of the sound, in seconds.
        frame_s (`float`): When the frame is shown, in seconds from the clip's start.
    """

    audio: bytes
    image: bytes
    duration: float
    frame_s: float


def read_video_clip(
    video: str | os.PathLike | bytes,
    moments: Sequence[float] = (),
    sampling_rate: int = 16000,
    image_size: int = 256,
    min_duration_s: float = 1.0,
    keep_still: bool = False,
) -> VideoExample:
    """
    Decode a clip.

    The frame is that of the first of `moments` that is not blank, or else the middle one that is not.

    Args:
        video (`str`, `os.PathLike` or `bytes`): A video file or its bytes.
        moments (`Sequence[float]`, *optional*): Best moments, in seconds from the start, best first.
        sampling_rate (`int`, defaults to 16000): Of the sound, in Hz.
        image_size (`int`, defaults to 256): Longest side of the frame; smaller ones stay as they are.
        min_duration_s (`float`, defaults to 1.0): Shorter sounds are too short.
        keep_still (`bool`, defaults to `False`): Whether a still picture is a clip, too.

    Raises:
        SkipClipError: If the clip is broken, too large, silent, too short, a still picture that is not to be kept, or
            has no sound or picture.
    """
    with _any_fault_skips():
        waveform = _useful_sound(video, sampling_rate, min_duration_s)
        duration = len(waveform) / sampling_rate
        image, frame_s = _encoded_frame(video, moments, duration, image_size, keep_still)
        return VideoExample(encode_flac(waveform, sampling_rate), image, duration, frame_s)


def read_video_frame(
    video: str | os.PathLike | bytes,
    moments: Sequence[float] = (),
    sound_s: float = 0.0,
    image_size: int = 256,
    keep_still: bool = False,
) -> tuple[bytes, float]:
    """
    Only the frame of a clip whose sound is elsewhere: JPEG, and when it is shown, in seconds from the clip's start.

    Args:
        video, moments, image_size, keep_still: As of [`read_video_clip`].
        sound_s (`float`, defaults to 0): How long the clip's sound is, for videos that do not say how long they are.

    Raises:
        SkipClipError: If the video is missing, broken, too large, a still picture, or has no picture.
    """
    with _any_fault_skips():
        _check_size(video)
        return _encoded_frame(video, moments, sound_s, image_size, keep_still)


@contextmanager
def _any_fault_skips() -> Iterator[None]:
    try:
        yield
    except SkipClipError:
        raise
    except FileNotFoundError as error:
        raise SkipClipError("missing", error.filename or "") from None
    # A damaged file makes demuxers and decoders raise nearly anything.
    except Exception as error:
        raise SkipClipError("broken", repr(error)) from None


def _encoded_frame(
    video: str | os.PathLike | bytes, moments: Sequence[float], sound_s: float, image_size: int, keep_still: bool
) -> tuple[bytes, float]:
    frame, frame_s = _read_frame(video, moments, sound_s, keep_still)
    frame.thumbnail((image_size, image_size), PIL.Image.Resampling.LANCZOS)
    return _encode_jpeg(frame), frame_s


def read_sound(
    audio: str | os.PathLike | bytes, sampling_rate: int = 16000, min_duration_s: float = 1.0
) -> tuple[bytes, float]:
    """
    Decode a clip's sound alone, of a sound file or a video: FLAC, mono, 16 bit, and how long it is, in seconds.
    Arguments are as of [`read_video_clip`].

    Raises:
        SkipClipError: If it is broken, too large, silent or too short.
    """
    with _any_fault_skips():
        waveform = _useful_sound(audio, sampling_rate, min_duration_s)
        return encode_flac(waveform, sampling_rate), len(waveform) / sampling_rate


def encode_picture(picture: str | os.PathLike | bytes, image_size: int = 256) -> bytes:
    """
    A picture as JPEG, its longest side at most `image_size` pixels; what is transparent becomes white.

    Raises:
        SkipClipError: If it is missing or broken.
    """
    try:
        opened = PIL.Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture).convert("RGBA")
    except FileNotFoundError as error:
        raise SkipClipError("missing", error.filename or "") from None
    # Damage makes decoders raise nearly anything.
    except Exception as error:
        raise SkipClipError("broken", repr(error)) from None
    white = PIL.Image.new("RGBA", opened.size, "white")
    white.alpha_composite(opened)
    white.thumbnail((image_size, image_size), PIL.Image.Resampling.LANCZOS)
    return _encode_jpeg(white)


def _useful_sound(source: str | os.PathLike | bytes, sampling_rate: int, min_duration_s: float) -> np.ndarray:
    _check_size(source)
    waveform = _read_sound(source, sampling_rate)
    if len(waveform) < min_duration_s * sampling_rate:
        raise SkipClipError("too short", f"{len(waveform) / sampling_rate:.2f} s")
    if active_rms(waveform, sampling_rate) < _QUIETEST_RMS:
        raise SkipClipError("silent")
    return waveform


def _check_size(source: str | os.PathLike | bytes) -> None:
    size = len(source) if isinstance(source, bytes) else os.path.getsize(source)
    if size > MAX_VIDEO_BYTES:
        raise SkipClipError("too large", f"{size} bytes")


def encode_flac(waveform: np.ndarray, sampling_rate: int) -> bytes:
    """Samples `(T,)` in [-1, 1] as FLAC, 16 bit."""
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, sampling_rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def _read_sound(video: str | os.PathLike | bytes, sampling_rate: int) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            # A clip that ends early is judged by what there is.
            warnings.simplefilter("ignore", UserWarning)
            return load_audio(video, target_sampling_rate=sampling_rate)
    except ValueError as error:
        no_sound = "no sound track" in str(error)
        raise SkipClipError("no sound" if no_sound else "broken", "" if no_sound else str(error)) from None


def _read_frame(
    video: str | os.PathLike | bytes, moments: Sequence[float], sound_s: float, keep_still: bool
) -> tuple[PIL.Image.Image, float]:
    for looks in (_FIRST_LOOKS, _LOOKS):
        pictures = _pictures_at(video, moments, looks, sound_s)
        is_still = len({seconds for _, seconds in pictures}) > 1 and _is_still([picture for picture, _ in pictures])
        useful = [shown for shown in pictures if not _is_blank(shown[0])]
        # What moves is no still picture, and the last of the first looks is the last one to be taken.
        if looks is _FIRST_LOOKS and len(useful) > 1 and not is_still:
            return useful[0]
    if is_still and not keep_still:
        raise SkipClipError("still picture")
    return useful[0] if useful else pictures[0]


def _pictures_at(
    video: str | os.PathLike | bytes, moments: Sequence[float], looks: Sequence[float], sound_s: float
) -> list[tuple[PIL.Image.Image, float]]:
    """The pictures shown at some moments, in seconds, and then at shares of a video's length, and when they begin."""
    # FFmpeg would take a relative name with a colon for an address.
    source = io.BytesIO(video) if isinstance(video, bytes) else os.path.abspath(video)
    try:
        with av.open(source, metadata_errors="ignore", options={"protocol_whitelist": "file"}) as container:
            if not container.streams.video:
                raise SkipClipError("no picture")
            stream = container.streams.video[0]
            # Live recordings do not say how long they are; their sound does.
            length = _length(container, stream) or sound_s
            times = [*moments, *(share * length for share in looks)]
            shown = _frames_at(container, stream, times)
            frames = [shown[time] for time in times if time in shown]
            if not frames:
                raise SkipClipError("broken", "no frame can be decoded")
            # One thread: a forked worker that frees a scaler of several, inherited, waits for them without end.
            return [(frame.to_image(threads=1), seconds) for frame, seconds in frames]
    except av.error.FFmpegError as error:
        raise SkipClipError("broken", str(error)) from None


def _length(container: av.container.InputContainer, stream: av.VideoStream) -> float:
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else 0.0


def _frames_at(
    container: av.container.InputContainer, stream: av.VideoStream, times: Sequence[float]
) -> dict[float, tuple[av.VideoFrame, float]]:
    """The frames shown at some times, with when they begin, in one pass; after damage, those before it."""
    start = float((stream.start_time or 0) * stream.time_base)
    found: dict[float, tuple[av.VideoFrame, float]] = {}
    waiting = sorted(set(times), reverse=True)
    last = None
    try:
        for frame in container.decode(stream):
            shown = (frame.time or 0.0) - start
            while waiting and last is not None and waiting[-1] < shown:
                found[waiting.pop()] = last
            last = (frame, round(max(shown, 0.0), 3))
            if not waiting:
                break
    except av.error.FFmpegError:
        return found
    # What is asked for after the end is the last frame.
    return found if last is None else found | dict.fromkeys(waiting, last)


def _thumbnail(picture: PIL.Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("L").resize((32, 32), PIL.Image.Resampling.BOX), dtype=np.float32)


def _is_still(pictures: Sequence[PIL.Image.Image]) -> bool:
    if len(pictures) < 2:
        return False
    first, *others = (_thumbnail(picture) for picture in pictures)
    return all(np.abs(first - other).mean() < _STILL_LEVELS for other in others)


def _is_blank(picture: PIL.Image.Image) -> bool:
    return float(_thumbnail(picture).std()) < _BLANK_LEVELS


def _encode_jpeg(picture: PIL.Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()
