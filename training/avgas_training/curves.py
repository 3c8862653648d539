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
        line = json.dumps({"step": step, **values}).encode() + b"\n"
        with open(self.path, "a+b") as file:
            # A line cut short must not swallow this one.
            if file.tell():
                file.seek(-1, os.SEEK_END)
                line = line if file.read() == b"\n" else b"\n" + line
            file.write(line)

    def read(self) -> dict[str, dict[int, float]]:
        """All points so far by name and step; of a step that was repeated after an interruption, the last."""
        curves: dict[str, dict[int, float]] = {}
        if self.path.exists():
            for line in self.path.read_bytes().split(b"\n"):
                for name, value in (values := _parse_point(line)).items():
                    if name != "step":
                        curves.setdefault(name, {})[values["step"]] = value
        return {name: dict(sorted(points.items())) for name, points in curves.items()}


def _parse_point(line: bytes) -> dict[str, float]:
    """What a line says, with its step; nothing of one that a killed run has left half or that somebody has damaged."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(values, dict) or type(values.get("step")) is not int:
        return {}
    return {name: value for name, value in values.items() if type(value) in (int, float)}


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
