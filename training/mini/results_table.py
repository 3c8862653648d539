"""
The results of `avgas evaluate` that a model card shows, as a Markdown table.

    python training/mini/results_table.py report
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


# Task and metric of every row, as in report.json, and what it is called.
ROWS = (
    ("sound", "label_recall", "a source's label found"),
    ("sound", "label_recall_by_group", "the same, averaged over source groups"),
    ("sound", "label_any", "at least one label found"),
    ("sound", "label_all", "all labels found"),
    ("sound", "first_label", "the label with the highest score is right"),
    ("sound", "false_labels", "false labels per soundscape"),
    ("sound", "confident_false_labels", "of these with a score of 0.8 or more"),
    ("sound", "count_accuracy", "number of sources right"),
    ("sound", "si_sdri_db", "SI-SDR improvement, median, dB"),
    ("mixed", "crs", "CRS of mixed images"),
    ("mixed", "recall_strict", "R@K* of mixed images"),
    ("mixed", "recall_any", "R@K* of mixed images, any"),
    ("separated", "own_label", "separated images show their slot's label"),
    ("separated", "sep_recall", "separated images show a true source each"),
)
# Pictures that none of the systems drew.
ANCHOR = "real scene"


def results_table(report: dict[str, Any]) -> str:
    """
    Rows of metrics, in percent unless they say otherwise, with 95 % intervals; columns of systems.

    Args:
        report (`dict`): What `report.json` holds.
    """
    results = report["results"]
    systems = [*results["sound"], *(name for name in results.get("mixed", ()) if name == ANCHOR)]
    lines = ["| | " + " | ".join(systems) + " |", "|---" * (len(systems) + 1) + "|"]
    for task, metric, title in ROWS:
        rows = results.get(task, {})
        # A scene with all sources is no separated image.
        shown = [name for name in systems if name != ANCHOR or task == "mixed"]
        cells = [_cell(rows.get(name, {}).get(metric) if name in shown else None, metric) for name in systems]
        if any(cells):
            lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(interval: dict[str, float] | None, metric: str) -> str:
    if interval is None or interval["value"] is None:
        return ""
    is_number = metric.endswith("false_labels")
    scale, digits = (1, 2) if is_number else (1, 1) if metric.endswith("_db") else (100, 1)
    value, low, high = (f"{scale * interval[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help="folder that avgas evaluate wrote")
    args = parser.parse_args(argv)
    path = args.report / "report.json"
    if not path.exists():
        parser.error(f"{path}: no such file.")
    print(results_table(json.loads(path.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
