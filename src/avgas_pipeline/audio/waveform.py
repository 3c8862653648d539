"""One waveform out of many blocks: resampled, joined, limited in length."""

import math

import numpy as np
import soxr

from ..errors import RecordingTooLongError


BLOCK = 1 << 16


class WaveformBuilder:
    """
    Takes mono blocks at any rate, and keeps one float32 waveform at the target rate, up to a limit.

    Args:
        sampling_rate (`int`): The target rate, in Hz.
        max_duration_s (`float`): The longest waveform, in seconds.
        name (`str`): What errors call it.
    """

    def __init__(self, sampling_rate: int, max_duration_s: float, name: str) -> None:
        self.sampling_rate = sampling_rate
        self.max_duration_s = max_duration_s
        self.name = name
        # A bytearray grows in place, so the waveform is never held twice.
        self._buffer = bytearray()
        self._waiting: list[np.ndarray] = []
        self._num_waiting = 0
        self._seconds = 0.0
        self._rate: int | None = None
        self._resampler: soxr.ResampleStream | None = None

    @property
    def seconds(self) -> float:
        """Duration taken in so far."""
        return self._seconds

    def add(self, block: np.ndarray, rate: int) -> None:
        """
        Append float32 samples `(T,)` at `rate` Hz.

        Raises:
            ValueError: If the whole is too long, or holds NaN or infinite samples.
        """
        if block.size == 0:
            return
        self._check_length(len(block) / rate)
        self._seconds += len(block) / rate
        if rate != self._rate:
            self._flush()
            self._rate = rate
            if rate != self.sampling_rate:
                self._resampler = soxr.ResampleStream(rate, self.sampling_rate, 1, dtype="float32", quality="HQ")
        self._waiting.append(block)
        self._num_waiting += len(block)
        if self._num_waiting >= BLOCK:
            self._push()

    def add_silence(self, seconds: float, rate: int) -> None:
        """Append silence, at `rate` Hz as what goes on after it."""
        self._check_length(seconds)
        remaining = round(seconds * rate)
        while remaining > 0:
            self.add(np.zeros(min(remaining, BLOCK), dtype=np.float32), rate)
            remaining -= BLOCK

    def finish(self) -> np.ndarray:
        """
        The waveform `(T,)`, float32 in [-1, 1]; scaled down to a peak of 1 if it exceeds that.

        Raises:
            ValueError: If it is empty, or holds samples that are not finite.
        """
        self._flush()
        waveform = np.frombuffer(self._buffer, dtype=np.float32)
        if waveform.size == 0:
            raise ValueError(f"{self.name}: holds no audio samples.")
        peak = max(float(waveform.max()), -float(waveform.min()))
        # Finite samples near float32's limit overflow in the resampler.
        if not math.isfinite(peak):
            raise ValueError(f"{self.name}: its samples are too large for float32.")
        if peak > 1.0:
            waveform /= np.float32(peak)
            np.clip(waveform, -1.0, 1.0, out=waveform)
        return waveform

    def _check_length(self, seconds: float) -> None:
        # The sum of many blocks is off by some rounding.
        if self._seconds + seconds > self.max_duration_s + 1e-6:
            raise RecordingTooLongError(f"{self.name}: longer than `max_duration_s` = {self.max_duration_s:g} s.")

    def _push(self) -> None:
        """Takes the blocks that wait, all at once: codecs give very short ones."""
        if not self._waiting:
            return
        block = np.concatenate(self._waiting)
        self._waiting, self._num_waiting = [], 0
        if not np.isfinite(block).all():
            raise ValueError(f"{self.name}: holds NaN or infinite samples.")
        if self._resampler is not None:
            block = self._resampler.resample_chunk(block)
        self._buffer += memoryview(np.ascontiguousarray(block)).cast("B")

    def _flush(self) -> None:
        self._push()
        if self._resampler is not None:
            tail = self._resampler.resample_chunk(np.zeros(0, dtype=np.float32), last=True)
            self._buffer += memoryview(np.ascontiguousarray(tail)).cast("B")
            self._resampler = None
