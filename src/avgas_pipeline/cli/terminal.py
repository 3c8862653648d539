"""What reaches the terminal: no control characters of names and labels, and nothing that a full terminal stops."""

import io
import os
import re
import sys
from collections.abc import Callable
from typing import Any

from ..printable import INVISIBLE, escape


# Lines, and what moves a progress bar, are the program's own.
_CONTROL_IN_LINES = re.compile(f"(?!\x1b\\[A)[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f{INVISIBLE}]")


def guard_streams() -> None:
    """
    Have standard output and standard error let no control characters through, and have nothing stop because standard
    error is full or closed: what can't be written there is lost.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # A file that is opened later would take the number, and get what is meant for the stream.
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = _guarded(sys.stdout, 1, _Output)
    sys.stderr = _guarded(sys.stderr, 2, _Errors)


def _guarded(stream: Any, number: int, kind: Callable[..., Any]) -> Any:
    buffer = open(number, "wb", closefd=False)  # noqa: SIM115 - open as long as the process runs
    is_live = number == 2 or os.isatty(number)
    # Python has no stream for a number that was closed.
    encoding = "utf-8" if stream is None else stream.encoding
    return kind(buffer, encoding=encoding, errors="backslashreplace", line_buffering=is_live)


class _Output(io.TextIOWrapper):
    """A stream without control characters."""

    def write(self, text: str) -> int:
        try:
            super().write(_CONTROL_IN_LINES.sub(escape, text))
        except OSError as error:
            self._give_up(error)
        return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._lead_nowhere()
        raise OSError(error.errno, error.strerror, "standard output") from None

    def _lead_nowhere(self) -> None:
        # Libraries in C write there, too, and what waits in a buffer is tried again at the end.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


class _Errors(_Output):
    """And one whose end may be full or closed."""

    def _give_up(self, error: OSError) -> None:
        self._lead_nowhere()
