"""What is kept of visitors, and for how long: the last things, and nothing of a visitor who left."""

import threading
import time
from collections import OrderedDict, defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Generic, Protocol, TypeVar


# Visitors that left, who are remembered as long as something of theirs may still be worked on.
MOST_LEFT = 10_000
# What gradio calls a microphone's block; when one that nobody has asked for was passed over, in seconds.
BLOCK_NAME, PASSED_OVER_S = "audio.wav", 10.0


class Closeable(Protocol):
    """What can be emptied."""

    def close(self) -> None:
        """Empty it, and remove its files."""


T = TypeVar("T", bound=Closeable)


class Kept(Generic[T]):
    """
    One thing for each visitor, such as a recording that was heard.

    Args:
        most (`int`): Of all visitors together; the one that came first goes first.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._things: OrderedDict[str, T] = OrderedDict()
        self._left: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def welcome(self, visitor: str) -> None:
        """A visitor asks for something, who may have left and come back."""
        with self._lock:
            self._left.pop(visitor, None)

    def put(self, visitor: str, thing: T) -> None:
        """Keep it in place of the visitor's one before; it is closed at once if they have left in the meantime."""
        with self._lock:
            gone = [self._things.pop(visitor)] if visitor in self._things else []
            if visitor in self._left:
                gone.append(thing)
            else:
                self._things[visitor] = thing
            while len(self._things) > self.most:
                gone.append(self._things.popitem(last=False)[1])
        for one in gone:
            one.close()

    def forget(self, visitor: str) -> None:
        """A visitor left."""
        with self._lock:
            thing = self._things.pop(visitor, None)
            self._left[visitor] = None
            while len(self._left) > MOST_LEFT:
                self._left.popitem(last=False)
        if thing is not None:
            thing.close()


class Uploads:
    """
    The files that visitors uploaded. Those with the same bytes and name are one file, and removed with the last.

    Args:
        folder (`Path`): The page's own; nothing outside is removed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._paths: defaultdict[str, set[Path]] = defaultdict(set)
        self._lock = threading.Lock()

    def add(self, visitor: str, *paths: str | None) -> None:
        """A visitor's, as far as they are given."""
        own = {Path(path).resolve() for path in paths if path is not None}
        with self._lock:
            self._paths[visitor] |= {path for path in own if self.folder in path.parents}

    def forget(self, visitor: str) -> None:
        """A visitor left."""
        with self._lock:
            gone = self._paths.pop(visitor, set()).difference(*self._paths.values())
            for path in gone:
                remove_upload(path)
        self.sweep_soon()

    def sweep_soon(self) -> None:
        """A microphone was stopped: what gradio has passed over of its blocks, as it does when it is busy, goes."""
        timer = threading.Timer(PASSED_OVER_S + 0.5, self.sweep)
        timer.daemon = True
        timer.start()

    def sweep(self) -> None:
        """Remove blocks that were passed over."""
        with self._lock:
            known = set[Path]().union(*self._paths.values())
        for path in self.folder.glob(f"*/{BLOCK_NAME}"):
            with suppress(OSError):
                if path not in known and time.time() - path.stat().st_mtime > PASSED_OVER_S:
                    remove_upload(path)


def remove_upload(path: Path) -> None:
    """A file, and the folder that gradio has made for it."""
    with suppress(OSError):
        path.unlink()
        path.parent.rmdir()
