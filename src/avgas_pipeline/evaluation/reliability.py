"""A reliability diagram: how often labels are right, by their scores."""

from collections.abc import Mapping, Sequence

import numpy as np
import PIL.Image
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter


_DPI = 100
_LARGEST_POINT = 160.0


def draw_reliability(systems: Mapping[str, Sequence[Mapping[str, float]]]) -> PIL.Image.Image:
    """
    For every system the share of labels that are right over their mean score, in tenths of the score; the larger a
    point, the more labels it stands for. Perfectly calibrated labels lie on the diagonal.

    Args:
        systems (`Mapping`): By system, what [`~avgas_pipeline.metrics.sound.reliability`] gives.
    """
    figure = Figure(figsize=(4.6, 4.6), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot((0, 1), (0, 1), color="0.6", linestyle="--", linewidth=1, label="calibrated")
    most = max(one["count"] for bins in systems.values() for one in bins)
    for name, bins in systems.items():
        scores, right = [one["score"] for one in bins], [one["right"] for one in bins]
        (line,) = axes.plot(scores, right, linewidth=1.2, label=f"{name}, {sum(one['count'] for one in bins)} labels")
        sizes = [_LARGEST_POINT * one["count"] / most for one in bins]
        axes.scatter(scores, right, sizes, color=line.get_color(), alpha=0.6, clip_on=False)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_box_aspect(1)
    axes.set_xlabel("score of a label")
    axes.set_ylabel("labels that are right")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0))
    axes.legend(loc="upper left", fontsize=8)
    figure.canvas.draw()
    return PIL.Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy())
