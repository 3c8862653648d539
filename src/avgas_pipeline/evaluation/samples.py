"""A grid of pictures: some soundscapes, and what every system makes of them."""

from collections.abc import Mapping, Sequence

import numpy as np
import PIL.Image
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..models.separator import UNKNOWN_LABEL
from .drawings import Drawing
from .soundscapes import EvaluationSet


NUM_ROWS = 12
_DPI = 100


def sample_numbers(dataset: EvaluationSet) -> list[int]:
    """Soundscapes to show: evenly from the manifest, none chosen."""
    return np.linspace(0, len(dataset) - 1, min(NUM_ROWS, len(dataset))).astype(int).tolist()


def draw_samples(dataset: EvaluationSet, drawings: Mapping[str, Sequence[Drawing]]) -> PIL.Image.Image:
    """
    The real picture of every sample, every system's mixed image, and the first system's separated ones, with the
    labels it gave them.

    Args:
        dataset ([`EvaluationSet`]): The soundscapes.
        drawings (`Mapping[str, Sequence[Drawing]]`): By system, the first one first; of [`sample_numbers`].
    """
    numbers = sample_numbers(dataset)
    name, first = next(iter(drawings.items()))
    most = max(len(drawing.separated) for drawing in first)
    columns = (
        (["real"] if dataset.has_pictures else [])
        + list(drawings)
        + [f"{name}:\nsource {place + 1}" for place in range(most)]
    )

    figure = Figure(figsize=(1.75 * len(columns) + 0.2, 2.15 * len(numbers) + 0.4), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(numbers), len(columns), squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
        axes.set_box_aspect(1)
    for row, number in enumerate(numbers):
        cells: list[tuple[PIL.Image.Image | None, str]] = []
        if dataset.has_pictures:
            cells.append((dataset.image(number), "\n".join(dataset.true_labels(number))))
        for system in drawings.values():
            cells.append((system[row].mixed, "\n".join(_names(system[row].labels))))
        drawn = _names(first[row].drawn_labels) or [""] * len(first[row].separated)
        cells += list(zip(first[row].separated, drawn, strict=False))
        for axes, (image, caption) in zip(grid[row], cells, strict=False):
            if image is not None:
                axes.imshow(image)
                axes.text(0.5, -0.03, caption, transform=axes.transAxes, ha="center", va="top", fontsize=6)
    for axes, title in zip(grid[0], columns, strict=True):
        axes.set_title(title, fontsize=9)
    figure.canvas.draw()
    return PIL.Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy())


def _names(labels: Sequence[str | None] | None) -> list[str]:
    return [label or UNKNOWN_LABEL for label in labels or ()]
