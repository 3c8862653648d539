"""The last seconds of a microphone, drawn again and again."""

import threading
import time

import numpy as np
import PIL.Image
import torch

from ..pipeline_output import SoundSource
from .hearing import Listener


# Of the rate that is said, in pictures.
RATE_OVER = 20
# Seconds after which listening ends by itself.
LIMIT_S = 600.0


class LiveWindow:
    """
    What a microphone heard last. One visitor's own; it may be added to while it is drawn.

    Args:
        listener ([`Listener`]): Hears and draws.
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

    @property
    def is_over(self) -> bool:
        """Whether it has listened for ten minutes."""
        return time.monotonic() > self._began_at + LIMIT_S

    def add(self, rate: int, block: np.ndarray) -> None:
        """Take what was recorded since, `(T,)`, float32; it is news until it is drawn."""
        if self.is_over:
            return
        with self._lock:
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
        self._drawn_at = [*self._drawn_at[-RATE_OVER:], time.monotonic()]
        return output.images[0], output.sources[0]

    def pictures_per_second(self) -> float:
        """Of late."""
        if len(self._drawn_at) < 2:
            return 0.0
        return (len(self._drawn_at) - 1) / (self._drawn_at[-1] - self._drawn_at[0])
