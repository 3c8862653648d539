"""Signals that end a process: it clears away what it was writing, as after Ctrl-C."""

import signal
import sys
from types import FrameType


# To end, and that the terminal has gone.
END_SIGNALS = (signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))


def end_on_signals() -> None:
    """Have SIGTERM and SIGHUP end this process with code 128 + their number, after all its `finally` blocks."""
    for number in END_SIGNALS:
        # `nohup` has one of them ignored.
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> None:
    # A second one would interrupt the clearing away.
    for each in END_SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + number)
