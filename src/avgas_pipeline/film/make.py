"""From a recording to its film, captions and storyboard."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import PIL.Image
import torch
from tqdm.auto import tqdm

from ..audio.loading import DEFAULT_MAX_DURATION_S, Recording, describe, load_audio
from ..files import atomic_files, write_text
from ..pipeline_output import EncodedAudio, SoundSource
from .beside import SRT, STORYBOARD, VTT, list_beside, listed_beside
from .captions import caption, captions, clock, to_srt, to_vtt
from .scenes import Scene, find_scenes
from .sound import sound_frames
from .video import BAND, NOTHING_HEARD, SIDE, draw_frame, write_film


if TYPE_CHECKING:
    from ..pipeline_avgas import AVGASPipeline


# Of a still in the storyboard, in pixels, and stills in a row at least; and of all stills, in pixels.
STORYBOARD_WIDTH, STORYBOARD_COLUMNS, STORYBOARD_PIXELS = 256, 4, 30_000_000


@dataclass
class Film:
    """
    What a film shows.

    Attributes:
        scenes (`list[Scene]`): One after another.
        sources (`list[SoundSource]`): Of the whole recording; scenes have their numbers.
        pictures (`dict`): A picture for every set of sources that are drawn together; none for the empty one.
    """

    scenes: list[Scene]
    sources: list[SoundSource]
    pictures: dict[tuple[int, ...], PIL.Image.Image]

    def still(self, number: int, with_time: bool = False) -> PIL.Image.Image:
        """The frame of a scene, with its caption, and before that, if asked for, when it begins."""
        scene = self.scenes[number]
        previous = self.scenes[number - 1] if number else None
        picture = self.pictures.get(_drawn(scene, self.sources))
        text = caption(scene, previous, self.sources)
        if with_time:
            text = f"{clock(scene.start_s)} {text or NOTHING_HEARD}"
        return draw_frame(picture, text)


def plan_film(
    pipe: "AVGASPipeline",
    audio: Any,
    seed: int = 0,
    max_duration_s: float = DEFAULT_MAX_DURATION_S,
    name: str | None = None,
    audio_track: int | None = None,
    **call: Any,
) -> Film:
    """
    Hear a recording and draw its scenes; sources that are heard together again have the same picture again.

    Args:
        pipe ([`AVGASPipeline`]): Hears and draws.
        audio (`Any`): As of `load_audio`.
        seed (`int`, defaults to 0): Of every picture's noise.
        max_duration_s (`float`, defaults to 3600): Longest recording accepted, in seconds.
        name (`str`, *optional*): What errors call the recording.
        audio_track (`int`, *optional*): Which of a file's audio tracks.
        **call: Further arguments of `pipe`, such as `num_inference_steps`.

    Raises:
        ValueError: If the recording can't be read or is silent.
    """
    waveform = load_audio(
        audio,
        target_sampling_rate=pipe.sampling_rate,
        max_duration_s=max_duration_s,
        name=name,
        audio_track=audio_track,
    )
    recording = Recording(name or describe(audio), waveform, pipe.sampling_rate)
    with torch.no_grad():
        encoded = pipe.encode_audio(recording, return_audio=False, max_duration_s=max_duration_s)
    return draw_film(pipe, encoded, len(waveform) / pipe.sampling_rate, seed, **call)


def draw_film(pipe: "AVGASPipeline", encoded: EncodedAudio, duration_s: float, seed: int = 0, **call: Any) -> Film:
    """
    Draw the scenes of a recording that is encoded already.

    Args:
        pipe ([`AVGASPipeline`]): Draws.
        encoded ([`EncodedAudio`]): Of one soundscape.
        duration_s (`float`): Its length, in seconds.
        seed (`int`, defaults to 0): Of every picture's noise.
        **call: Further arguments of `pipe`.
    """
    sources = encoded.sources[0]
    scenes = find_scenes(sources, duration_s)
    pictures = _draw(pipe, encoded, sorted({_drawn(scene, sources) for scene in scenes} - {()}), seed, **call)
    return Film(scenes, sources, pictures)


def _drawn(scene: Scene, sources: Sequence[SoundSource]) -> tuple[int, ...]:
    """Those of a scene's sources that its picture shows: unknown sounds are in the caption alone."""
    return tuple(number for number in scene.sources if sources[number].is_drawn)


def _draw(
    pipe: "AVGASPipeline", encoded: EncodedAudio, sets: Sequence[tuple[int, ...]], seed: int, **call: Any
) -> dict[tuple[int, ...], PIL.Image.Image]:
    """A picture for every set of sources, all from the same noise."""
    pictures = {}
    count = len(encoded.sources[0])
    is_quiet = getattr(pipe, "_progress_bar_config", {}).get("disable", False)
    with _without_bar(pipe):
        for chosen in tqdm(sets, desc="drawing scenes", disable=is_quiet):
            weights = [float(number in chosen) for number in range(count)]
            generator = torch.Generator().manual_seed(seed)
            pictures[chosen] = pipe(**encoded, source_weights=[weights], generator=generator, **call).images[0]
    return pictures


@contextmanager
def _without_bar(pipe: "AVGASPipeline") -> Iterator[None]:
    """No bar for the steps of every picture."""
    config = getattr(pipe, "_progress_bar_config", {})
    pipe.set_progress_bar_config(disable=True)
    try:
        yield
    finally:
        pipe.set_progress_bar_config(**config)


def storyboard(film: Film) -> PIL.Image.Image:
    """All scenes on one sheet, in their order; the more there are, the smaller."""
    count, gap = len(film.scenes), 8
    columns = min(max(STORYBOARD_COLUMNS, math.ceil(math.sqrt(count))), count)
    width = min(STORYBOARD_WIDTH, math.floor(math.sqrt(STORYBOARD_PIXELS / count * SIDE / (SIDE + BAND))))
    height = round((SIDE + BAND) * width / SIDE)
    rows = math.ceil(count / columns)
    sheet = PIL.Image.new("RGB", (columns * (width + gap) + gap, rows * (height + gap) + gap), "white")
    for number in range(count):
        row, column = divmod(number, columns)
        small = film.still(number, with_time=True).resize((width, height), PIL.Image.Resampling.LANCZOS)
        sheet.paste(small, (gap + column * (width + gap), gap + row * (height + gap)))
    return sheet


def save_film(
    film: Film,
    audio: Any,
    path: Path,
    with_storyboard: bool = False,
    max_duration_s: float = DEFAULT_MAX_DURATION_S,
    name: str | None = None,
    audio_track: int | None = None,
) -> None:
    """
    Write a film, and beside it `captions.vtt`, `captions.srt`, and `storyboard.png` if it is asked for. All of them
    appear when the last is done; what was there before stays until then. Those of an earlier film at `path` go.

    Args:
        film ([`Film`]): Of [`plan_film`].
        audio (`Any`): The recording, as it was given there, and so `max_duration_s`, `name` and `audio_track`.
        path (`Path`): Of the film, an MP4 file.
        with_storyboard (`bool`, defaults to `False`): Whether to write all scenes on one sheet, too.
    """
    cues = captions(film.scenes, film.sources)
    with atomic_files(path.parent, path.name, listed_beside) as folder:
        sound = sound_frames(audio, film.scenes[-1].end_s, audio_track, max_duration_s, name or "recording")
        write_text(folder / VTT, to_vtt(cues))
        write_text(folder / SRT, to_srt(cues))
        if with_storyboard:
            storyboard(film).save(folder / STORYBOARD)
        write_film(folder / path.name, film.scenes, film.still, sound, list_beside(folder))
