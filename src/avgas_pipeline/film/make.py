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

from ..audio.loading import DEFAULT_MAX_DURATION_S, load_audio
from ..files import atomic_files, write_text
from ..pipeline_output import EncodedAudio, SoundSource
from .captions import caption, captions, to_srt, to_vtt
from .scenes import Scene, find_scenes
from .sound import sound_frames
from .video import BAND, SIDE, draw_frame, write_film


if TYPE_CHECKING:
    from ..pipeline_avgas import AVGASPipeline


CAPTIONS = "captions"
# Of a still in the storyboard, in pixels, and stills in a row.
STORYBOARD_WIDTH, STORYBOARD_COLUMNS = 256, 4


@dataclass
class Film:
    """
    What a film shows.

    Attributes:
        scenes (`list[Scene]`): One after another.
        sources (`list[SoundSource]`): Of the whole recording; scenes have their numbers.
        pictures (`dict`): A picture for every set of sources, `None` for none.
    """

    scenes: list[Scene]
    sources: list[SoundSource]
    pictures: dict[tuple[int, ...], PIL.Image.Image | None]

    def still(self, number: int) -> PIL.Image.Image:
        """The frame of a scene, with its caption."""
        scene = self.scenes[number]
        previous = self.scenes[number - 1] if number else None
        return draw_frame(self.pictures[scene.sources], caption(scene, previous, self.sources))


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
    value = {"array": waveform, "sampling_rate": pipe.sampling_rate, "path": name}
    with torch.no_grad():
        encoded = pipe.encode_audio(value, return_audio=False, max_duration_s=max_duration_s)
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
    pictures = _draw(pipe, encoded, sorted({scene.sources for scene in scenes}), seed, **call)
    return Film(scenes, sources, pictures)


def _draw(
    pipe: "AVGASPipeline", encoded: EncodedAudio, sets: Sequence[tuple[int, ...]], seed: int, **call: Any
) -> dict[tuple[int, ...], PIL.Image.Image | None]:
    """A picture for every set of sources, all from the same noise; none of none."""
    pictures: dict[tuple[int, ...], PIL.Image.Image | None] = {(): None}
    count = len(encoded.sources[0])
    with _without_bar(pipe):
        for chosen in tqdm([each for each in sets if each], desc="drawing scenes"):
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
    """All scenes on one sheet, in their order."""
    columns = min(STORYBOARD_COLUMNS, len(film.scenes))
    height, gap = round((SIDE + BAND) * STORYBOARD_WIDTH / SIDE), 8
    rows = math.ceil(len(film.scenes) / columns)
    sheet = PIL.Image.new("RGB", (columns * (STORYBOARD_WIDTH + gap) + gap, rows * (height + gap) + gap), "white")
    for number in range(len(film.scenes)):
        row, column = divmod(number, columns)
        small = film.still(number).resize((STORYBOARD_WIDTH, height), PIL.Image.Resampling.LANCZOS)
        sheet.paste(small, (gap + column * (STORYBOARD_WIDTH + gap), gap + row * (height + gap)))
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
    appear when the last is done; what was there before stays until then.

    Args:
        film ([`Film`]): Of [`plan_film`].
        audio (`Any`): The recording, as it was given there, and so `max_duration_s`, `name` and `audio_track`.
        path (`Path`): Of the film, an MP4 file.
        with_storyboard (`bool`, defaults to `False`): Whether to write all scenes on one sheet, too.
    """
    cues = captions(film.scenes, film.sources)
    with atomic_files(path.parent, path.name) as folder:
        sound = sound_frames(audio, film.scenes[-1].end_s, audio_track, max_duration_s, name or "recording")
        write_film(folder / path.name, film.scenes, film.still, sound)
        write_text(folder / f"{CAPTIONS}.vtt", to_vtt(cues))
        write_text(folder / f"{CAPTIONS}.srt", to_srt(cues))
        if with_storyboard:
            storyboard(film).save(folder / "storyboard.png")
