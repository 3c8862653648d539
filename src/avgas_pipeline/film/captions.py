"""What is heard, in words, for people who can't hear: WebVTT and SubRip captions of a film's scenes."""

import html
from collections.abc import Sequence

from ..pipeline_output import SoundSource
from .scenes import Scene


# Name of the files beside a film.
CAPTIONS = "captions"


def caption(scene: Scene, previous: Scene | None, sources: Sequence[SoundSource]) -> str:
    """What is heard in a scene, each source in brackets: "[dog barking] [raining continues]"; empty for silence."""
    parts = []
    for number in scene.sources:
        goes_on = previous is not None and number in previous.sources
        perhaps = "perhaps " * sources[number].is_doubtful
        parts.append(f"[{perhaps}{short_name(sources[number])}{' continues' if goes_on else ''}]")
    return " ".join(dict.fromkeys(parts))


def short_name(source: SoundSource) -> str:
    """A source's label up to its first comma: "vehicle horn" of "vehicle horn, car horn, honking"."""
    return source.name.partition(",")[0].strip()


def captions(scenes: Sequence[Scene], sources: Sequence[SoundSource]) -> list[tuple[float, float, str]]:
    """Start and end, in seconds, and text of every caption; there is none in silence."""
    cues, previous = [], None
    for scene in scenes:
        text = caption(scene, previous, sources)
        if text:
            cues.append((scene.start_s, scene.end_s, text))
        previous = scene
    return cues


def to_vtt(cues: Sequence[tuple[float, float, str]]) -> str:
    """[WebVTT](https://www.w3.org/TR/webvtt1/)."""
    blocks = [
        f"{_timestamp(start, '.')} --> {_timestamp(end, '.')}\n{html.escape(text, quote=False)}"
        for start, end, text in cues
    ]
    return "\n\n".join(["WEBVTT", *blocks]) + "\n"


def to_srt(cues: Sequence[tuple[float, float, str]]) -> str:
    """SubRip."""
    blocks = [
        f"{number}\n{_timestamp(start, ',')} --> {_timestamp(end, ',')}\n{text}\n"
        for number, (start, end, text) in enumerate(cues, start=1)
    ]
    return "\n".join(blocks)


def clock(seconds: float) -> str:
    """A time as people read it: "1:05", "1:02:03"."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _timestamp(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    hours, rest = divmod(milliseconds, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"
