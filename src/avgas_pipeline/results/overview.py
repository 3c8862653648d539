"""One picture of what was found in a recording and what was drawn."""

import math
import textwrap

import numpy as np
import PIL.Image
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from ..audio.spectrogram import DYNAMIC_RANGE_DB, relative_log_mel, stft
from ..pipeline_output import SoundSource
from ..printable import printable


# Okabe and Ito's colours, which colour-blind people can tell apart; brown for their yellow, which is too light.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C564B")
_TEXT_COLOUR = "#222222"
_CAPTION_WIDTH = 24
_CAPTION_LINES = 3
_TITLE_WIDTH = 80
_MEL_BANDS = 96
_MAX_COLUMNS = 1600
_DPI = 150


def draw_overview(
    waveform: np.ndarray,
    sampling_rate: int,
    mixed_image: PIL.Image.Image,
    sources: list[SoundSource],
    title: str | None = None,
) -> PIL.Image.Image:
    """
    A figure of a soundscape: its log-mel spectrogram, each source's activity under it, then the mixed image and the
    separated ones with labels and scores.

    Args:
        waveform (`np.ndarray` of shape `(samples,)`): The soundscape, mono.
        sampling_rate (`int`): Its rate, in Hz.
        mixed_image (`PIL.Image.Image`): The mixed image.
        sources (`list[SoundSource]`): The sources; their first images are shown, if they have any.
        title (`str`, *optional*): Put above the figure.

    Returns:
        `PIL.Image.Image`, RGB, 150 dots per inch.
    """
    separated = [(number, source) for number, source in enumerate(sources) if len(source.images)]
    bands = [(number, source) for number, source in enumerate(sources) if source.activity is not None]
    num_pictures = 1 + len(separated)
    picture_rows = math.ceil(num_pictures / 5)
    # A single picture stands in the middle of three cells rather than as large as the figure.
    columns = 3 if num_pictures == 1 else math.ceil(num_pictures / picture_rows)
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
    top = max((float(source.activity.max()) for _, source in bands), default=1.0) or 1.0
    for axis, (number, source) in zip(axes[1:], bands, strict=True):
        _draw_activity(axis, source, _colour(number), duration, top)
    if bands:
        axes[1].set_title(f"share of the energy, 0 to {top:.2g}", fontsize=8, loc="left")
    axes[-1].set_xlabel("time (s)", fontsize=8)
    axes[-1].tick_params(axis="x", labelbottom=True, labelsize=8)

    cells = pictures.subplots(picture_rows, columns, squeeze=False).flatten()
    for cell in cells:
        cell.axis("off")
    if num_pictures == 1:
        cells = cells[1:]
    num_drawn = sum(source.is_drawn for source in sources)
    _draw_picture(cells[0], mixed_image, f"mixed image\n{num_drawn} source{'s' * (num_drawn != 1)}", _TEXT_COLOUR)
    for cell, (number, source) in zip(cells[1:], separated, strict=False):
        _draw_picture(cell, source.images[0], f"{_wrapped(source)}\n{source.score:.2f}", _colour(number))
    figure.canvas.draw()
    return PIL.Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")


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
    axis.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{seconds:g}"))


def _draw_activity(axis: Axes, source: SoundSource, colour: str, duration: float, top: float) -> None:
    time = np.arange(len(source.activity)) * source.activity_hop_s
    axis.fill_between(time, source.activity, color=colour, linewidth=0)
    axis.set_xlim(0, duration)
    axis.set_ylim(0, top)
    axis.set_yticks([])
    axis.tick_params(axis="x", labelbottom=False, length=2)
    label = f"{_wrapped(source)}  {source.score:.2f}"
    axis.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8, color=_TEXT_COLOUR)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)


def _draw_picture(cell: Axes, image: PIL.Image.Image, caption: str, colour: str) -> None:
    cell.axis("on")
    cell.set_xticks([])
    cell.set_yticks([])
    cell.imshow(np.asarray(image.convert("RGB")), interpolation="lanczos")
    cell.set_title(caption, fontsize=9, color=_TEXT_COLOUR)
    for spine in cell.spines.values():
        spine.set_color(colour)
        spine.set_linewidth(2.5)


def _mel(frequency: float) -> float:
    """HTK mel scale."""
    return 2595.0 * math.log10(1.0 + frequency / 700.0)


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _wrapped(source: SoundSource) -> str:
    label = _cut(source.name, _CAPTION_LINES * _CAPTION_WIDTH)
    return "\n".join(_plain(line) for line in textwrap.wrap(label, _CAPTION_WIDTH)[:_CAPTION_LINES])


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _plain(text: str) -> str:
    # Matplotlib reads formulas between dollar signs.
    return printable(text).replace("$", r"\$")
