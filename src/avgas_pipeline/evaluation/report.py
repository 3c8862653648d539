"""The report of an evaluation: numbers with intervals as JSON and tables, and a grid of pictures to look at."""

import importlib.metadata
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..data.text_files import read_json
from ..files import atomic_files
from ..metrics.bootstrap import CONFIDENCE, NUM_RESAMPLES, Interval, bootstrap_interval
from ..version import VERSION
from .columns import Column


# For every task, for every system or anchor, for every metric, a value per soundscape.
Values = Mapping[str, Mapping[str, Mapping[str, np.ndarray]]]

# A metric is valid here if it puts the first above the second, beyond the interval. Strict R@K* is 0 for a picture of
# one class whoever judges rightly, as it is for random ones: there its share found, R@K-mean, has to tell them apart.
GATE = (
    ("crs", "real scene", "single class"),
    ("crs", "collage", "single class"),
    ("crs", "single class", "random classes"),
    ("recall_strict", "real scene", "single class"),
    ("recall_strict", "collage", "single class"),
    ("recall_mean", "single class", "random classes"),
)
# And if it does not put either of two pictures of all classes far below the other.
GATE_ALIKE = ("real scene", "collage")
# Below so many soundscapes with several sources its intervals say nothing.
GATE_FEWEST = 30
GATE_MARGIN = 0.2
_ABSENT = "-"
# Metrics that a terminal shows.
SHORT = {
    "sound": ("label_recall", "label_precision", "false_labels", "count_accuracy"),
    "mixed": ("crs", "recall_strict"),
    "separated": ("sep_recall",),
}
# The file of all numbers, in a report's folder.
REPORT = "report.json"
LIBRARIES = ("diffusers", "numpy", "scipy", "torch", "torchmetrics", "transformers")


def summarise(
    values: Values,
    columns: Mapping[str, Sequence[Column]],
    systems: Sequence[str],
    num_sources: np.ndarray,
    presence: Mapping[str, Mapping[int, float]],
) -> dict[str, Any]:
    """
    Intervals of every metric, of its paired difference from the first system, and of the validity gate.

    Args:
        values (`Values`): What was measured.
        columns (`Mapping[str, Sequence[Column]]`): The metrics of every task.
        systems (`Sequence[str]`): In their order; what else `values` has are anchors.
        num_sources (`np.ndarray` of shape `(N,)`): Of every soundscape.
        presence (`Mapping`): For every system with slots, presence AP by number of sources.
    """
    first = systems[0]
    results: dict[str, Any] = {}
    differences: dict[str, Any] = {}
    for task, rows in values.items():
        statistics = {column.key: column.statistic for column in columns[task]}
        results[task] = {
            name: {key: _interval(row[key], how) for key, how in statistics.items() if key in row}
            for name, row in rows.items()
        }
        if first in rows:
            differences[task] = {
                name: {
                    key: _interval(rows[first][key] - row[key], how)
                    for key, how in statistics.items()
                    if key in row and key in rows[first]
                }
                for name, row in rows.items()
                if name != first
            }
    return {
        "results": results,
        "differences": differences,
        "by_num_sources": _by_num_sources(values, columns, systems, num_sources, presence),
        "gate": _gate(values.get("mixed", {}), num_sources),
    }


def _by_num_sources(
    values: Values,
    columns: Mapping[str, Sequence[Column]],
    systems: Sequence[str],
    num_sources: np.ndarray,
    presence: Mapping[str, Mapping[int, float]],
) -> dict[str, Any]:
    """Every system's metrics of soundscapes with one, two, … sources; nothing if all have the same number."""
    counts = sorted(set(num_sources.tolist()))
    if len(counts) < 2:
        return {}
    split = {
        task: {
            str(count): {
                name: {
                    column.key: _interval(rows[name][column.key][num_sources == count], column.statistic)
                    for column in columns[task]
                    if column.unit == "soundscape" and column.key in rows[name]
                }
                for name in systems
                if name in rows
            }
            for count in counts
        }
        for task, rows in values.items()
    }
    for name, by_count in presence.items():
        for count, value in by_count.items():
            one = Interval(value, float("nan"), float("nan"), int((num_sources == count).sum()))
            split["sound"][str(count)][name]["presence_ap"] = _as_json(one)
    return split


def _interval(values: np.ndarray, statistic: str) -> dict[str, Any]:
    return _as_json(bootstrap_interval(values, statistic))


def _as_json(interval: Interval) -> dict[str, Any]:
    return {key: plain(value) for key, value in asdict(interval).items()}


def plain(value: float) -> float | None:
    """JSON has no NaN; ten digits are enough, and hide how sums were ordered."""
    if isinstance(value, int):
        return value
    return None if math.isnan(value) else round(value, 10)


def _gate(rows: Mapping[str, Mapping[str, np.ndarray]], num_sources: np.ndarray) -> list[dict[str, Any]]:
    """Only where there are several sources: of one, a picture of a single class is a picture of all."""
    several = num_sources > 1
    gate = []

    def add(key: str, first: str, second: str, wanted: str) -> None:
        if first in rows and second in rows and several.sum() >= GATE_FEWEST:
            interval = bootstrap_interval((rows[first][key] - rows[second][key])[several])
            holds = interval.low > 0 if wanted == "above" else abs(interval.value) <= GATE_MARGIN
            entry = {"metric": key, "first": first, "second": second, "wanted": wanted, "holds": bool(holds)}
            gate.append({**entry, **{name: plain(value) for name, value in asdict(interval).items()}})

    for key, better, worse in GATE:
        add(key, better, worse, "above")
    for key in ("crs", "recall_strict"):
        add(key, *GATE_ALIKE, "alike")
    return gate


def versions() -> dict[str, str]:
    """Of this package, and of the libraries that numbers depend on."""
    return {"avgas-pipeline": VERSION, **{name: importlib.metadata.version(name) for name in LIBRARIES}}


def write_report(out: Path, report: Mapping[str, Any], values: Values, columns: Mapping[str, list[Column]]) -> None:
    """Write `report.json`, `report.md` and `values.json`, which belong together."""
    raw = {
        task: {
            name: {
                column.key: [plain(float(value)) for value in row[column.key]]
                for column in columns[task]
                if column.key in row
            }
            for name, row in rows.items()
        }
        for task, rows in values.items()
    }
    texts = {
        "values.json": json.dumps(raw, allow_nan=False) + "\n",
        "report.md": markdown(report, columns),
        REPORT: json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
    }
    with atomic_files(out, REPORT) as folder:
        for name, text in texts.items():
            # Paths need not be Unicode; JSON writes what is not with a backslash, too.
            (folder / name).write_text(text, encoding="utf-8", errors="backslashreplace")


def read_report(out: Path) -> dict[str, Any]:
    """
    A report that `avgas evaluate` wrote.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is something else.
    """
    path = out / REPORT
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; `avgas evaluate` writes it.")
    report = read_json(path)
    if not _is_report(report):
        raise ValueError(f"{path}: not a report of `avgas evaluate`.")
    return report


def _is_report(report: Any) -> bool:
    """Whether something has what is read of a report."""
    data, systems = (report.get("data"), report.get("systems")) if isinstance(report, dict) else (None, None)
    if not isinstance(data, dict) or not isinstance(systems, dict) or not systems:
        return False
    texts = [data.get("data"), data.get("sha256"), data.get("split", "")]
    return (
        all(isinstance(text, str) for text in texts)
        and isinstance(data.get("image_size"), int)
        and all(isinstance(system, dict) and isinstance(system.get("images", ""), str) for system in systems.values())
    )


def markdown(report: Mapping[str, Any], columns: Mapping[str, Sequence[Column]]) -> str:
    """The report as tables."""
    data, judge = report["data"], report["judge"]
    lines = [
        "# Evaluation",
        "",
        f"{data['num_soundscapes']} soundscapes of {data['data']}"
        + (f" ({data['manifest']})" if "manifest" in data else "")
        + f", {data['num_labels']} labels."
        + (f" Judge: {judge['type']} {judge['checkpoint']}." if judge else ""),
        *_selection(data),
        f"In brackets: {CONFIDENCE:.0%} intervals from {NUM_RESAMPLES} resamples of soundscapes (where said,",
        "of source groups); one without width means that all have the same value. Differences are paired; that of a",
        "median is the median difference. All but SI-SDRi and numbers of false labels in per cent. Definitions:",
        "`avgas_pipeline.metrics`.",
        "",
        *(f"- {name}: {_origin(system)}" for name, system in report["systems"].items()),
    ]
    titles = {"sound": "Sources found", "mixed": "Mixed images", "separated": "Separated images"}
    for task, title in titles.items():
        rows = report["results"].get(task)
        if not rows:
            continue
        lines += ["", f"## {title}", "", *_table(rows, columns[task])]
        if task == "mixed" and report["settings"]["top_k"] is None:
            lines += ["", "R@n*: n, how many of the highest classes count, is each soundscape's own number of labels."]
        others = report["differences"].get(task)
        if others:
            first = next(iter(report["systems"]))
            lines += ["", f"{first} minus the others, paired by soundscape:", "", *_table(others, columns[task], "+")]
        if split := report["by_num_sources"].get(task):
            lines += ["", "By number of sources:", "", *_table(_by_count(split, report["num_sources"]), columns[task])]
        if task == "mixed" and report["gate"]:
            lines += ["", *_gate_lines(report["gate"], columns[task])]
    lines += _extras(report)
    return "\n".join(lines) + "\n"


def _selection(data: Mapping[str, Any]) -> list[str]:
    """Which clips of a benchmark count, and which do not."""
    if "selection" not in data:
        return []
    flags = ", ".join(f"{name} {_said(value)}" for name, value in data["selection"].items() if value is not None)
    lines = [f"Selection: {flags}." + (f" {data['note']}" if data["note"] else "")]
    if data["left_out"]:
        lines.append(
            "Left out: " + ", ".join(f"{reason} {count}" for reason, count in data["left_out"].items()) + "; "
            "left_out.jsonl names them."
        )
    if data["unmapped"]:
        names = ", ".join(f"{name} ({count} clips)" for name, count in data["unmapped"].items())
        lines.append(f"Names that VGGSound has no word for: {names}.")
    for who in data["silent"]:
        lines.append(f"{who[0].upper()}{who[1:]} does not say what it was trained on: these clips may be among it.")
    return lines


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "+".join(value) if isinstance(value, list) else str(value)


def _by_count(split: Mapping[str, Mapping[str, Any]], counted: Mapping[str, int]) -> dict[str, Mapping[str, Any]]:
    """Rows of one table: a system's, number of sources by number."""
    names = list(dict.fromkeys(name for rows in split.values() for name in rows))
    return {f"{name}, {count} of {counted[count]}": split[count][name] for name in names for count in split}


def short_table(report: Mapping[str, Any], columns: Mapping[str, Sequence[Column]]) -> list[str]:
    """What a terminal shows: a row for every system, the main metrics alone, without intervals."""
    shown = [
        (task, column)
        for task, keys in SHORT.items()
        for column in columns[task]
        if column.key in keys and any(_is_given(row.get(column.key)) for row in _rows(report, task).values())
    ]
    cells = [["", *(f"{column.title}" for _, column in shown)]]
    for name in report["systems"]:
        row = [name]
        for task, column in shown:
            interval = _rows(report, task).get(name, {}).get(column.key)
            row.append(f"{interval['value'] * column.scale:.{column.digits}f}" if _is_given(interval) else _ABSENT)
        cells.append(row)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in cells
    ]


def _rows(report: Mapping[str, Any], task: str) -> Mapping[str, Any]:
    return report["results"].get(task, {})


def _origin(system: Mapping[str, Any]) -> str:
    """What a system is, in a line."""
    if "images" in system:
        return f"images in {system['images']}, SHA-256 {system['images_sha256'][:16]}"
    oracle = ", given the clean sources" if system["oracle"] else ""
    painter = f", drawn by {system['painter']}" if "painter" in system else ""
    return f"{system['checkpoint']}{oracle}{painter}, weights' SHA-256 {system['weights_sha256'][:16]}"


def _table(rows: Mapping[str, Mapping[str, Any]], columns: Sequence[Column], sign: str = "") -> list[str]:
    shown = [column for column in columns if any(_is_given(row.get(column.key)) for row in rows.values())]
    titles = [column.title + ("" if column.unit == "soundscape" else f" ({column.unit}s)") for column in shown]
    lines = ["| | " + " | ".join(titles) + " |", "|---" * (len(shown) + 1) + "|"]
    for name, row in rows.items():
        cells = [_cell(row.get(column.key), column, sign) for column in shown]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def _is_given(interval: Mapping[str, Any] | None) -> bool:
    return interval is not None and interval["value"] is not None


def _cell(interval: Mapping[str, Any] | None, column: Column, sign: str) -> str:
    if not _is_given(interval):
        return _ABSENT
    scale, digits = column.scale, column.digits
    # Adding 0 turns -0.0 into 0.0.
    value, low, high = (
        None if interval[key] is None else f"{round(interval[key] * scale, digits) + 0.0:{sign}.{digits}f}"
        for key in ("value", "low", "high")
    )
    return value if low is None else f"{value} [{low}, {high}]"


def _gate_lines(gate: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> list[str]:
    names = {column.key: column.title for column in columns}
    phrases = {"above": "put {first} above {second}", "alike": "put {first} and {second} near each other"}
    failed = [
        f"{names[entry['metric']]} does not " + phrases[entry["wanted"]].format(**entry)
        for entry in gate
        if not entry["holds"]
    ]
    if failed:
        return [f"**The validity gate fails with this judge: {'; '.join(failed)}.**"]
    pairs = sorted({f"{entry['first']} > {entry['second']}" for entry in gate if entry["wanted"] == "above"})
    alike = [f"{' ≈ '.join(GATE_ALIKE)}"] if any(entry["wanted"] == "alike" for entry in gate) else []
    return [f"The validity gate holds with this judge, for CRS and R@K*: {', '.join(pairs + alike)}."]


def _extras(report: Mapping[str, Any]) -> list[str]:
    lines = []
    if report["sets"]:
        lines += [
            "",
            "## Whole sets",
            "",
            "FID, KID and IS are by the judge's features: compare them within this table alone.",
            "",
        ]
        titles = {
            "presence_ap": ("presence AP", 100.0, 1),
            "calibration_error": ("calibration error", 100.0, 1),
            "confident_right": ("right at 0.8 and more", 100.0, 1),
            "fid": ("FID", 1.0, 2),
            "kid": ("KID x 1000", 1000.0, 2),
            "inception_score": ("IS", 1.0, 2),
        }
        shown = {key: title for key, title in titles.items() if any(key in row for row in report["sets"].values())}
        lines += ["| | " + " | ".join(title for title, _, _ in shown.values()) + " |", "|---" * (len(shown) + 1) + "|"]
        for name, row in report["sets"].items():
            cells = [
                _ABSENT if row.get(key) is None else f"{row[key] * scale:.{digits}f}"
                for key, (_, scale, digits) in shown.items()
            ]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    if report["too_few"]:
        needed = ", ".join(f"{name} needs {count}" for name, count in report["too_few"].items())
        lines += ["", f"Too few soundscapes, {report['data']['num_soundscapes']}, for some numbers: {needed}."]
    without = {name: count for name, count in report["no_source"].items() if count}
    if without:
        named = ", ".join(f"{name} {count}" for name, count in without.items())
        lines += [
            "",
            f"Soundscapes in which no source was present, so that the most probable one was drawn: {named}.",
        ]
    return lines
