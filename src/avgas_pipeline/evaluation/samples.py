"""A grid of pictures: some soundscapes, and what every system makes of them."""

from collections.abc import Mapping, Sequence

import numpy as np
import PIL.Image
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .soundscapes import EvaluationSet
from .systems import Drawing


NUM_ROWS = 12
_DPI = 100


def draw_samples(
    dataset: EvaluationSet,
    drawings: Mapping[str, Sequence[Drawing]],
    references: Sequence[PIL.Image.Image] | None,
) -> PIL.Image.Image:
    """
    Soundscapes evenly from the manifest, none chosen: the real picture, every system's mixed image, and the first
    system's separated ones, with the labels it gave them.

    Args:
        dataset ([`EvaluationSet`]): The soundscapes.
        drawings (`Mapping[str, Sequence[Drawing]]`): By system, the first one first.
        references (`Sequence[PIL.Image.Image]`, *optional*): A real picture of every soundscape.
    """
    numbers = np.linspace(0, len(dataset) - 1, min(NUM_ROWS, len(dataset))).astype(int).tolist()
    first = next(iter(drawings.values()))
    most = max(len(first[number].separated) for number in numbers)
    columns = (["real"] if references else []) + list(drawings) + [f"source {place + 1}" for place in range(most)]

    figure = Figure(figsize=(1.75 * len(columns) + 0.2, 2.15 * len(numbers) + 0.4), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(numbers), len(columns), squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
        axes.set_box_aspect(1)
    for row, number in enumerate(numbers):
        cells: list[tuple[PIL.Image.Image | None, str]] = []
        if references:
            cells.append((references[number], "\n".join(dataset.true_labels(number))))
        for system in drawings.values():
            cells.append((system[number].mixed, "\n".join(system[number].labels or [])))
        labels = first[number].labels or [""] * len(first[number].separated)
        cells += list(zip(first[number].separated, labels, strict=False))
        for axes, (image, caption) in zip(grid[row], cells, strict=False):
            if image is not None:
                axes.imshow(image)
                axes.text(0.5, -0.03, caption, transform=axes.transAxes, ha="center", va="top", fontsize=6)
    for axes, title in zip(grid[0], columns, strict=True):
        axes.set_title(title, fontsize=9)
    figure.canvas.draw()
    return PIL.Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy())
