"""The last seconds of a microphone, drawn again and again."""

import threading
import time

import numpy as np
import PIL.Image
import torch

from ..pipeline_output import SoundSource
from .hearing import Listener


# The rate that is said is that of the last seconds.
RATE_OVER_S = 5.0
# Seconds after which listening ends by itself.
LIMIT_S = 600.0


class LiveWindow:
    """
    What a microphone heard last. One visitor's own; it may be added to while it is drawn.

    Args:
        listener ([`Listener`]): Hears and draws.

    Attributes:
        said (`set[str]`): What its visitor was told last.
    """

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.length_s = listener.pipe.window_s
        self._samples = np.zeros(0, dtype=np.float32)
        self._rate: int | None = None
        self._lock = threading.Lock()
        self._drawn_at: list[float] = []
        self._began_at = time.monotonic()
        self.is_news = False
        self.is_closed = False
        self.said: set[str] = set()

    @property
    def is_over(self) -> bool:
        """Whether it has listened for ten minutes."""
        return time.monotonic() > self._began_at + LIMIT_S

    def add(self, rate: int, block: np.ndarray) -> None:
        """Take what was recorded since, `(T,)`, float32; it is news until it is drawn."""
        with self._lock:
            if self.is_over or self.is_closed:
                return
            self.is_news = True
            if rate != self._rate:
                self._samples, self._rate = np.zeros(0, dtype=np.float32), rate
            self._samples = np.concatenate([self._samples, block])[-round(rate * self.length_s) :]

    def draw(self, seed: int) -> tuple[PIL.Image.Image | None, list[SoundSource]]:
        """
        A picture of what was heard last, and its sources; none of less than half a second.

        Raises:
            ValueError: If it is silent, or nothing is heard in it that the model knows.
        """
        with self._lock:
            samples, rate, self.is_news = self._samples, self._rate, False
        if rate is None or len(samples) < rate // 2:
            return None, []
        pipe = self.listener.quick_pipe
        audio = {"array": samples, "sampling_rate": rate, "path": "microphone"}
        with self.listener.lock, torch.no_grad():
            encoded = pipe.encode_audio(audio, return_audio=False)
            output = pipe(**encoded, generator=torch.Generator().manual_seed(seed))
        self._drawn_at.append(time.monotonic())
        return output.images[0], output.sources[0]

    def pictures_per_second(self) -> float:
        """Of the last five seconds, or since the first picture if that is less."""
        now = time.monotonic()
        since = max(now - RATE_OVER_S, self._drawn_at[0] if self._drawn_at else now)
        self._drawn_at = [when for when in self._drawn_at if when >= since]
        # The first one begins to count.
        counted = [when for when in self._drawn_at if when > since]
        return len(counted) / (now - since) if now > since else 0.0

    def close(self) -> None:
        """Empty it: a voice is not kept for longer than it is heard."""
        with self._lock:
            self.is_closed, self.is_news = True, False
            self._samples, self._rate = np.zeros(0, dtype=np.float32), None
