"""Which recordings are kept: the last ones, and none of a visitor who left."""

import threading
from collections import OrderedDict

from .hearing import Heard


class KeptRecordings:
    """
    One recording for each visitor.

    Args:
        most (`int`): Of all visitors together; the one that was heard first goes first.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._heard: OrderedDict[str, Heard] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, visitor: str, heard: Heard) -> None:
        """Keep it in place of the visitor's one before."""
        with self._lock:
            gone = [self._heard.pop(visitor)] if visitor in self._heard else []
            self._heard[visitor] = heard
            while len(self._heard) > self.most:
                gone.append(self._heard.popitem(last=False)[1])
        for one in gone:
            one.close()

    def forget(self, visitor: str) -> None:
        """A visitor left."""
        with self._lock:
            heard = self._heard.pop(visitor, None)
        if heard is not None:
            heard.close()
