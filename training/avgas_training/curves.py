"""The curves of a run: what was measured, at which step."""

import json
import os
from pathlib import Path

from matplotlib.figure import Figure

from avgas_pipeline.files import atomic_path


class Curves:
    """
    Points of a run's curves, a line of JSON each, so that an interrupted run loses none.

    Args:
        path (`str` or `os.PathLike`): The file.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)

    def add(self, values: dict[str, float], step: int) -> None:
        """Write a point of each named curve."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")

    def read(self) -> dict[str, dict[int, float]]:
        """All points so far by name and step; of a step that was repeated after an interruption, the last."""
        curves: dict[str, dict[int, float]] = {}
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    values = json.loads(line)
                except ValueError:
                    # A run that was killed may have left half a line.
                    continue
                step = values.pop("step")
                for name, value in values.items():
                    curves.setdefault(name, {})[step] = value
        return {name: dict(sorted(points.items())) for name, points in curves.items()}


def draw_curves(curves: dict[str, dict[int, float]], path: str | os.PathLike) -> None:
    """Draw one small plot per name into a PNG file."""
    columns = min(len(curves), 4)
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(3 * columns, 2.2 * rows), layout="constrained")
    for axes, (name, points) in zip(figure.subplots(rows, columns, squeeze=False).flat, curves.items(), strict=False):
        axes.plot(list(points), list(points.values()), linewidth=0.8)
        axes.set_title(name, fontsize=8)
        axes.tick_params(labelsize=7)
    for axes in figure.axes[len(curves) :]:
        axes.remove()
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=100)
