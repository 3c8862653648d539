"""What was skipped, and why."""

import json
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .text_files import read_json_lines


# Why a clip is skipped that has another one's id.
DUPLICATE = "duplicate"


class SkipReport:
    """
    Counts skipped clips by reason, and names each in a file if there is one.

    Args:
        path (`str` or `os.PathLike`, *optional*):
            JSON lines are appended to it: `clip`, `reason`, `detail`, and `labels` if any. Several processes may share
            it.

    Attributes:
        counts (`Counter[str]`): Skipped clips by reason.
        entries (`list[dict[str, Any]]`): Each of them; not kept if there is a file.
    """

    def __init__(self, path: str | os.PathLike | None = None) -> None:
        self.path = None if path is None else Path(path)
        self.counts: Counter[str] = Counter()
        self.entries: list[dict[str, Any]] = []

    def add(self, clip: str, reason: str, detail: str = "", labels: Iterable[str] = ()) -> None:
        """Note one skipped clip, with its labels where they are known."""
        self.counts[reason] += 1
        entry: dict[str, Any] = {"clip": _printable(clip), "reason": reason, "detail": _printable(detail)}
        if labels := list(map(_printable, labels)):
            entry["labels"] = labels
        if self.path is None:
            self.entries.append(entry)
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # One write of a short line to a file opened for appending is not torn by other processes.
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, _line(entry).encode())
        finally:
            os.close(descriptor)

    def lines(self) -> str:
        """The entries as JSON lines."""
        return "".join(_line(entry) for entry in self.entries)

    def __str__(self) -> str:
        if not self.counts:
            return "nothing skipped"
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(self.counts.items()))
        return f"{self.counts.total()} skipped: {reasons}"


def read_report(path: str | os.PathLike) -> list[dict[str, Any]]:
    """The entries of a report's file."""
    return [entry for _, entry in read_json_lines(path)]


def _printable(text: str) -> str:
    # Names of files and members may hold bytes that are not UTF-8.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False) + "\n"
