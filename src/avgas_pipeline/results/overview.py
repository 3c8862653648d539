"""One picture of what was found in a recording and what was drawn."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator

from ..audio.spectrogram import DYNAMIC_RANGE_DB, relative_log_mel, stft
from ..pipeline_output import SoundSource
from ..printable import printable


# Okabe and Ito's colours, which colour-blind people can tell apart; brown for their yellow, which is too light.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555", "#8C564B")
_TEXT_COLOUR = "#222222"
# Of what belongs to a name that is rather wrong than right.
_DOUBTFUL_OPACITY = 0.45
_CAPTION_WIDTH = 24
_CAPTION_LINES = 3
_TITLE_WIDTH = 80
_MEL_BANDS = 96
_MAX_COLUMNS = 1600
# Longer recordings have their time in minutes, at whole ones or parts of one.
_MINUTES_FROM_S = 120
_STEPS_S = (15, 30, 60, 120, 300, 600, 1800, 3600, math.inf)
_MOST_TICKS = 10
_DPI = 150
# Below the figure, in pixels.
_MARGIN = 15


def draw_overview(
    waveform: np.ndarray,
    sampling_rate: int,
    mixed_images: Sequence[PIL.Image.Image],
    sources: list[SoundSource],
    title: str | None = None,
    id2label: Mapping[int, str] | None = None,
    weights: Sequence[float] | None = None,
) -> PIL.Image.Image:
    """
    A figure of a soundscape: its log-mel spectrogram, each source's activity under it, then the mixed images and the
    separated ones with names and certainties. Names that are rather wrong than right are paler, with a "perhaps".

    Args:
        waveform (`np.ndarray` of shape `(samples,)`): The soundscape, mono.
        sampling_rate (`int`): Its rate, in Hz.
        mixed_images (`Sequence[PIL.Image.Image]`): All of them. That of a single source is not shown beside its own.
        sources (`list[SoundSource]`): The sources; their first images are shown, if they have any.
        title (`str`, *optional*): Put above the figure.
        id2label (`Mapping[int, str]`, *optional*): The model's labels, to say what a doubtful source may be instead.
        weights (`Sequence[float]`, *optional*): Of the sources in the mixed image; said where they are not 1.

    Returns:
        `PIL.Image.Image`, RGB, 150 dots per inch.
    """
    names = [_named(source, id2label or {}) for source in sources]
    weights = [1.0] * len(sources) if weights is None else weights
    bands = [(number, source) for number, source in enumerate(sources) if source.activity is not None]
    separated = [
        _Picture(source.images[0], f"{names[number]}\n{_numbers(source, weights[number])}", _colour(number), source)
        for number, source in enumerate(sources)
        if len(source.images)
    ]
    num_drawn = sum(source.is_drawn and weight > 0 for source, weight in zip(sources, weights, strict=True))
    said = f"{num_drawn} source{'s' * (num_drawn != 1)}"
    numbers = [f" {number}" if len(mixed_images) > 1 else "" for number in range(1, len(mixed_images) + 1)]
    mixed = [
        _Picture(image, f"mixed image{number}\n{said}", _TEXT_COLOUR)
        for number, image in zip(numbers, mixed_images, strict=True)
    ]
    shown = separated if len(mixed) == num_drawn == len(separated) == 1 else [*mixed, *separated]
    picture_rows = math.ceil(len(shown) / 5)
    # A single picture stands in the middle of three cells rather than as large as the figure.
    columns = 3 if len(shown) == 1 else math.ceil(len(shown) / picture_rows)
    width = 2.3 * max(columns, 3) + 0.6
    picture_height = (width - 0.6) / columns + 0.7
    heights = [2.2, *([0.34] * len(bands)), *([picture_height] * picture_rows)]

    figure = Figure(figsize=(width, sum(heights) + 1.0 + 0.08 * len(heights)), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(_plain(_cut(title, _TITLE_WIDTH)), fontsize=11)
    sounds, pictures = figure.subfigures(
        2, 1, height_ratios=[sum(heights[: 1 + len(bands)]) + 0.6, picture_rows * picture_height]
    )
    axes = sounds.subplots(
        1 + len(bands), 1, sharex=True, squeeze=False, height_ratios=heights[: 1 + len(bands)]
    ).flatten()
    duration = len(waveform) / sampling_rate
    _draw_spectrogram(axes[0], waveform, sampling_rate, duration)
    for axis, (number, source) in zip(axes[1:], bands, strict=True):
        _draw_activity(axis, source, f"{names[number]}  {source.certainty:.2f}", _colour(number), duration)
    if bands:
        axes[1].set_title("share of the energy, 0 to 1", fontsize=8, loc="left")
    axes[-1].set_xlabel("time (s)" if duration < _MINUTES_FROM_S else "time (min:s)", fontsize=8)
    axes[-1].tick_params(axis="x", labelbottom=True, labelsize=8)

    cells = pictures.subplots(picture_rows, columns, squeeze=False).flatten()
    for cell in cells:
        cell.axis("off")
    if len(shown) == 1:
        cells = cells[1:]
    for cell, picture in zip(cells, shown, strict=False):
        _draw_picture(cell, picture)
    figure.canvas.draw()
    return _without_band(PIL.Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB"))


@dataclass
class _Picture:
    """A picture in the figure; of a source, unless it is mixed."""

    image: PIL.Image.Image
    caption: str
    colour: str
    source: SoundSource | None = None

    @property
    def opacity(self) -> float:
        return _DOUBTFUL_OPACITY if self.source is not None and self.source.is_doubtful else 1.0


def _without_band(figure: PIL.Image.Image) -> PIL.Image.Image:
    """A figure without the white below what is in it, but for a margin."""
    used = np.flatnonzero((np.asarray(figure) < 255).any(axis=(1, 2)))
    return figure.crop((0, 0, figure.width, min(int(used[-1]) + 1 + _MARGIN, figure.height)))


def _draw_spectrogram(axis: Axes, waveform: np.ndarray, sampling_rate: int, duration: float) -> None:
    n_fft = 2 ** round(math.log2(0.064 * sampling_rate))
    hop_length = max(n_fft // 8, math.ceil(len(waveform) / _MAX_COLUMNS))
    spectrum = stft(torch.from_numpy(np.array(waveform)), n_fft, hop_length)
    levels = relative_log_mel(spectrum, sampling_rate, _MEL_BANDS).numpy()
    axis.imshow(
        levels, origin="lower", aspect="auto", cmap="magma", vmin=0, vmax=1, extent=(0, duration, 0, _MEL_BANDS)
    )
    top = _mel(sampling_rate / 2)
    ticks = [frequency for frequency in (250, 1000, 4000, 16000) if frequency < sampling_rate / 2]
    axis.set_yticks([_MEL_BANDS * _mel(frequency) / top for frequency in ticks])
    axis.set_yticklabels([f"{frequency / 1000:g}" for frequency in ticks], fontsize=8)
    axis.set_ylabel("frequency (kHz)", fontsize=8)
    axis.set_title(f"log-mel spectrogram, {DYNAMIC_RANGE_DB:.0f} dB", fontsize=8, loc="left")
    axis.tick_params(axis="x", labelbottom=False)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: _time(seconds, duration)))
    if duration >= _MINUTES_FROM_S:
        axis.xaxis.set_major_locator(
            MultipleLocator(next(step for step in _STEPS_S if duration / step <= _MOST_TICKS))
        )


def _time(seconds: float, duration: float) -> str:
    if duration < _MINUTES_FROM_S:
        return f"{seconds:g}"
    return f"{int(seconds) // 60}:{seconds % 60:02.0f}"


def _draw_activity(axis: Axes, source: SoundSource, label: str, colour: str, duration: float) -> None:
    time = np.arange(len(source.activity)) * source.activity_hop_s
    opacity = _DOUBTFUL_OPACITY if source.is_doubtful else 1.0
    axis.fill_between(time, source.activity, color=colour, linewidth=0, alpha=opacity)
    axis.set_xlim(0, duration)
    axis.set_ylim(0, 1)
    axis.set_yticks([])
    axis.tick_params(axis="x", labelbottom=False, length=2)
    axis.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8, color=_TEXT_COLOUR)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)


def _draw_picture(cell: Axes, picture: _Picture) -> None:
    cell.axis("on")
    cell.set_xticks([])
    cell.set_yticks([])
    cell.imshow(np.asarray(picture.image.convert("RGB")), interpolation="lanczos", alpha=picture.opacity)
    cell.set_title(picture.caption, fontsize=9, color=_TEXT_COLOUR)
    for spine in cell.spines.values():
        spine.set_color(picture.colour)
        spine.set_linewidth(2.5)


def _mel(frequency: float) -> float:
    """HTK mel scale."""
    return 2595.0 * math.log10(1.0 + frequency / 700.0)


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _named(source: SoundSource, id2label: Mapping[int, str]) -> str:
    """A source's name, in lines; of a doubtful one, what it may be instead."""
    name = source.name
    if source.is_doubtful and source.label is not None:
        others = [label for label in source.nearest(id2label) if label != source.label] if id2label else []
        name = f"perhaps {name}" + (f", or {others[0]}" if others else "")
    label = _cut(name, _CAPTION_LINES * _CAPTION_WIDTH)
    return "\n".join(_plain(line) for line in textwrap.wrap(label, _CAPTION_WIDTH)[:_CAPTION_LINES])


def _numbers(source: SoundSource, weight: float) -> str:
    """A source's certainty, and its weight where it is not 1."""
    return f"{source.certainty:.2f}" + ("" if weight == 1 else f", weight {weight:g}")


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _plain(text: str) -> str:
    # Matplotlib reads formulas between dollar signs.
    return printable(text).replace("$", r"\$")
