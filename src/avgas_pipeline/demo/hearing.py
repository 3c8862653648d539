"""What the page asks of the pipeline: a recording is heard once, and drawn as often as its sliders move."""

import os
import secrets
import shutil
import tempfile
import threading
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image
import torch

from ..audio.loading import Recording, load_audio
from ..audio.original import plain_track
from ..film.make import Film, draw_film, save_film
from ..layout import MOST_PLACED
from ..pipeline_output import AVGASPipelineOutput, EncodedAudio, SoundSource
from ..printable import printable
from ..results.outputs import save_results, slug
from ..results.overview import draw_overview


if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from ..pipeline_avgas import AVGASPipeline


# Sources that the page has room for: those that a picture has.
MOST_CARDS = MOST_PLACED
# What messages call it.
UNWANTED = "The sound that should not show"


@dataclass
class Sampling:
    """How pictures are drawn."""

    seed: int
    num_inference_steps: int | None
    guidance_scale: float | None
    num_images: int = 1

    @property
    def way(self) -> tuple[int, int | None, float | None]:
        """What a source's own picture depends on."""
        return self.seed, self.num_inference_steps, self.guidance_scale

    @property
    def options(self) -> dict[str, Any]:
        """The pipeline's arguments that are not left to its defaults."""
        names = ("num_inference_steps", "guidance_scale")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


class Heard:
    """
    A recording that was heard, and what was drawn of it last. One visitor's own.

    Args:
        name (`str`): Of the recording.
        path (`str`): Where it lies, in its own folder.
        waveform (`np.ndarray` of shape `(samples,)`): Mono.
        sampling_rate (`int`): In Hz.
        encoded ([`EncodedAudio`]): Of one soundscape.
        folder (`tempfile.TemporaryDirectory`): Its own folder, which is there until this is closed.
    """

    def __init__(
        self,
        name: str,
        path: str,
        waveform: np.ndarray,
        sampling_rate: int,
        encoded: EncodedAudio,
        folder: tempfile.TemporaryDirectory,
    ) -> None:
        self.name = name
        self.path = path
        self.waveform = waveform
        self.sampling_rate = sampling_rate
        self.encoded = encoded
        self.sources: list[SoundSource] = encoded.sources[0]
        self.images: list[PIL.Image.Image] = []
        self.weights: list[float] = [1.0] * len(self.sources)
        self.sampling: Sampling | None = None
        self.planned: Film | None = None
        self.is_closed = False
        self._folder = folder
        self._num_results = 0

    @property
    def folder(self) -> Path:
        """Its own folder."""
        return Path(self._folder.name)

    @contextmanager
    def results(self, kind: str) -> Iterator[Path]:
        """
        A new folder for results of a kind, which takes the place of the one before when the block ends: browsers take
        what has the same address for the same file. It is removed after an error.
        """
        self._num_results += 1
        before, new = list(self.folder.glob(f"{kind}-*")), self.folder / f"{kind}-{self._num_results}"
        try:
            new.mkdir()
            yield new
        except BaseException:
            before = [new]
            raise
        finally:
            for path in before:
                shutil.rmtree(path, ignore_errors=True)
            if self.is_closed:
                # Whoever left while this was written has no results.
                self._folder.cleanup()

    @property
    def duration_s(self) -> float:
        """In seconds."""
        return len(self.waveform) / self.sampling_rate

    def overview(self) -> PIL.Image.Image:
        """The figure that `avgas generate` makes."""
        return draw_overview(
            self.waveform, self.sampling_rate, self.images, self.sources, self.name, weights=self.weights
        )

    def archive(self) -> Path:
        """
        A ZIP file with what `avgas generate` writes, in place of the one before.

        Raises:
            OSError: If it can't be written.
        """
        output = AVGASPipelineOutput(images=self.images, sources=[self.sources])
        sampling = {} if self.sampling is None else vars(self.sampling)
        settings = {"audio": self.name, **sampling}
        track = plain_track(self.path, duration_s=self.duration_s)
        sound = (self.waveform, self.sampling_rate)
        with self.results("archive") as folder:
            written = folder / "results"
            save_results(output, *sound, written, self.name, settings, weights=self.weights, recording=track)
            path = folder / f"{slug(Path(self.name).stem)}.zip"
            with zipfile.ZipFile(path, "w") as archive:
                for file in sorted(written.iterdir()):
                    archive.write(file, file.name)
            shutil.rmtree(written)
        return path

    def close(self) -> None:
        """Forget it, and remove its files."""
        self.is_closed = True
        self.waveform, self.images, self.sources = np.zeros(0, dtype=np.float32), [], []
        self.encoded, self.planned = EncodedAudio(), None
        self._folder.cleanup()


class Listener:
    """
    Hears and draws for all visitors, one after another.

    Args:
        pipe ([`AVGASPipeline`]): Hears, and draws unless there is a painter.
        painter (`DiffusionPipeline`, *optional*): Draws by the names of what is heard.
        style (`str`, *optional*): The painter's.
        max_duration_s (`float`, defaults to 600): Longest recording accepted, in seconds.
    """

    def __init__(
        self,
        pipe: "AVGASPipeline",
        painter: "DiffusionPipeline | None" = None,
        style: str | None = None,
        max_duration_s: float = 600.0,
    ) -> None:
        self.pipe = pipe
        self.painter = painter
        self.style = style
        self.max_duration_s = max_duration_s
        # Hears at one speed in place of three, for what is drawn again and again.
        settings = pipe.separator.config.pipeline_settings
        self.quick_pipe = type(pipe)(**pipe.components, speed_variation=0.0)
        pipe.separator.register_to_config(pipeline_settings=settings)
        self.lock = threading.Lock()
        for part in (pipe, self.quick_pipe, painter):
            if part is not None:
                part.set_progress_bar_config(disable=True)

    @property
    def default_steps(self) -> int | None:
        """Of the page's slider; a painter's are its own."""
        return None if self.painter is not None else self.pipe.config.default_num_inference_steps

    @property
    def default_guidance(self) -> float | None:
        """Likewise."""
        return None if self.painter is not None else self.pipe.config.default_guidance_scale

    def hear(
        self, path: str, name: str, sampling: Sampling, negative: str | None = None, within: Path | None = None
    ) -> Heard:
        """
        Load and encode a recording, and draw it and each of its sources.

        Args:
            path (`str`): The recording's file, which is kept for as long as what was heard.
            name (`str`): What errors call it.
            sampling ([`Sampling`]): How it is drawn.
            negative (`str`, *optional*): The file of a sound that should not show.
            within (`Path`, *optional*): A folder in which what is heard has its own, if not the system's.

        Raises:
            ValueError: If it can't be read, is too long or silent, or nothing is heard in it.
            OSError: If it is not there any more, or can't be kept.
        """
        # Whoever knows its name gets its files from the page.
        prefix = f"avgas-demo-{secrets.token_hex(16)}-"
        folder = tempfile.TemporaryDirectory(prefix=prefix, dir=within, ignore_cleanup_errors=True)
        try:
            own = _linked(Path(path), Path(folder.name))
            heard = self._encoded(own, name, negative, folder)
            self.draw(heard, [1.0] * len(heard.sources), sampling)
        except BaseException:
            folder.cleanup()
            raise
        return heard

    def _encoded(self, path: str, name: str, negative: str | None, folder: tempfile.TemporaryDirectory) -> Heard:
        """A recording that is heard, and not drawn yet."""
        rate = self.pipe.sampling_rate
        waveform = load_audio(path, target_sampling_rate=rate, max_duration_s=self.max_duration_s, name=name)
        options: dict[str, Any] = {}
        if negative is not None and self.painter is None:
            quiet = load_audio(negative, target_sampling_rate=rate, max_duration_s=self.max_duration_s, name=UNWANTED)
            options["negative_audio"] = Recording(UNWANTED, quiet, rate)
        audio = Recording(name, waveform, rate)
        with self.lock, torch.no_grad():
            encoded = self.pipe.encode_audio(audio, max_duration_s=self.max_duration_s, **options)
        return Heard(printable(name), path, waveform, rate, encoded, folder)

    def draw(self, heard: Heard, weights: Sequence[float], sampling: Sampling) -> bool:
        """
        Draw a recording's mixed pictures without encoding it again; and its sources', if they were not drawn yet, or
        in another way, which is returned.

        Raises:
            ValueError: If all sources have a weight of 0.
        """
        separate = heard.sampling is None or heard.sampling.way != sampling.way
        if not all(weights) and separate:
            # Sources without weight would have no picture of their own.
            self._draw(heard, [1.0] * len(weights), sampling, separate=True)
        self._draw(heard, weights, sampling, separate and all(weights))
        return separate

    def _draw(self, heard: Heard, weights: Sequence[float], sampling: Sampling, separate: bool) -> None:
        call: dict[str, Any] = {"separate": separate, "num_images_per_prompt": sampling.num_images}
        call |= sampling.options
        call["source_weights"] = [list(weights)]
        call["generator"] = [
            torch.Generator().manual_seed(sampling.seed + number) for number in range(sampling.num_images)
        ]
        with self.lock:
            if self.painter is None:
                output = self.pipe(**heard.encoded, **call)
            else:
                call |= {} if self.style is None else {"style": self.style}
                output = self.pipe.paint(painter=self.painter, sources=heard.encoded.sources, **call)
        heard.images, heard.weights, heard.sampling = list(output.images), list(weights), sampling
        if separate:
            heard.sources = output.sources[0]
            heard.encoded = replace(heard.encoded, sources=[heard.sources])
        if heard.is_closed:
            # In the meantime.
            heard.close()

    def plan_film(self, heard: Heard, sampling: Sampling) -> None:
        """Draw the scenes of a recording's film, all sources as large as each other."""
        with self.lock:
            film = draw_film(self.pipe, heard.encoded, heard.duration_s, sampling.seed, **sampling.options)
        heard.planned = None if heard.is_closed else film

    def film(self, heard: Heard) -> list[Path]:
        """
        A recording's film, its captions and its storyboard, once it is planned; the pipeline is free meanwhile.

        Raises:
            ValueError: If the recording can't be read any more.
            OSError: If they can't be written.
        """
        film, heard.planned = heard.planned, None
        how = {"max_duration_s": self.max_duration_s, "name": heard.name}
        with heard.results("film") as folder:
            path = folder / "film.mp4"
            save_film(film, heard.path, path, with_storyboard=True, **how)
            return [path, *sorted(file for file in folder.iterdir() if file != path)]


def _linked(path: Path, folder: Path) -> str:
    """A file in another folder, too, where it stays when the one that was uploaded is removed."""
    own = folder / "recording"
    try:
        os.link(path, own)
    except OSError:
        # On another disk, or not one's own.
        shutil.copyfile(path, own)
    return str(own)
