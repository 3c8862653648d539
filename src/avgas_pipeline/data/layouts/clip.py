"""One clip as a data set holds it, and as training wants it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ...loaders.sounds import VGGSOUND_LABELS
from ..annotations import ClipEntry
from ..report import SkipReport
from ..video import SkipClipError, encode_picture, read_sound, read_video_clip, read_video_frame


Medium = str | bytes
# What a video's picture may be: of a film, of a film or a still picture, and none at all.
PICTURES = ("film", "any", "none")
# Of clips that say none.
DEFAULT_SPLIT = "train"


@dataclass(frozen=True)
class Clip:
    """
    A clip and what it is read from: paths, or the bytes of files.

    Attributes:
        entry (`ClipEntry`): Id, labels and split.
        videos (`tuple`): Copies of its video; the first that is of use counts.
        audio (`str` or `bytes`, *optional*): Its sound; the video's if not given.
        image (`str` or `bytes`, *optional*): Its picture; the video's best frame if not given.
    """

    entry: ClipEntry
    videos: tuple[Medium, ...] = ()
    audio: Medium | None = None
    image: Medium | None = None

    @property
    def files(self) -> list[str]:
        """The paths among its media."""
        return [medium for medium in (*self.videos, self.audio, self.image) if isinstance(medium, str)]


class Part(Protocol):
    """
    Clips that one process reads; it can be sent to another one.

    Attributes:
        split (`str`, *optional*): Of all its clips; `None` if they say it.
        size (`int`, *optional*): How many clips it has, if that is known.
    """

    split: str | None
    size: int | None

    def read(self, skipped: SkipReport) -> Iterator[Clip]:
        """Its clips, in their order; what is damaged is noted."""

    def fingerprint(self) -> Any:
        """What tells other data apart, but not where it lies; JSON."""


@dataclass(frozen=True)
class Layout:
    """
    A data set.

    Attributes:
        parts (`tuple[Part, ...]`): All of it.
        entries (`tuple[ClipEntry, ...]`, *optional*): Its annotated clips, if they are known before they are read: one
            that is in no part is missing.
    """

    parts: tuple[Part, ...]
    entries: tuple[ClipEntry, ...] | None = None


def make_example(
    clip: Clip,
    moments: Sequence[float] = (),
    sampling_rate: int = 16000,
    image_size: int = 256,
    min_duration_s: float = 1.0,
    pictures: str = "film",
) -> dict[str, Any]:
    """
    One row of the dataset; `image` is `None` for clips of sound alone.

    Args:
        clip ([`Clip`]): What to read.
        moments (`Sequence[float]`, *optional*): Best moments for its frame, in seconds from the start, best first.
        sampling_rate (`int`, defaults to 16000): Of the sound, in Hz.
        image_size (`int`, defaults to 256): Longest side of the picture, in pixels.
        min_duration_s (`float`, defaults to 1.0): Shorter sounds are too short.
        pictures (`str`, defaults to `"film"`): Of [`PICTURES`]: with `"any"` still pictures are of use, and with
            `"none"` only the sound is read.

    Raises:
        SkipClipError: If it is of no use.
    """
    label = clip.entry.labels[0]
    image = frame_s = None
    keep_still, wants_picture = pictures == "any", pictures != "none"
    if clip.audio is None and clip.image is None and wants_picture:
        how = (moments, sampling_rate, image_size, min_duration_s, keep_still)
        read = _first_of_use(clip.videos, lambda video: read_video_clip(video, *how))
        audio, duration, image, frame_s = read.audio, read.duration, read.image, read.frame_s
    else:
        # What a video has beside that does not matter.
        sounds = clip.videos if clip.audio is None else (clip.audio,)
        audio, duration = _first_of_use(sounds, lambda sound: read_sound(sound, sampling_rate, min_duration_s))
        if clip.image is not None and wants_picture:
            image = encode_picture(clip.image, image_size)
        elif clip.videos and wants_picture:
            image, frame_s = _first_of_use(
                clip.videos, lambda video: read_video_frame(video, moments, duration, image_size, keep_still)
            )
    return {
        "id": clip.entry.id,
        "label": label,
        "labels": list(clip.entry.labels),
        "label_index": _LABEL_INDEX.get(label, -1),
        "split": clip.entry.split or DEFAULT_SPLIT,
        "audio": audio,
        "duration": duration,
        "image": image,
        "frame_s": frame_s,
    }


def _first_of_use(media: Sequence[Medium], read: Callable[[Medium], Any]) -> Any:
    failure = None
    for medium in media:
        try:
            return read(medium)
        except SkipClipError as error:
            failure = failure or error
    try:
        raise failure or SkipClipError("missing")
    finally:
        # An error held by a frame of its own traceback would keep the film's frames for the garbage collector.
        failure = None


_LABEL_INDEX = {label: index for index, label in enumerate(VGGSOUND_LABELS)}
