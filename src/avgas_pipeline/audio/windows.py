"""Fixed-length pieces of a waveform, as audio encoders take them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import soxr


# What never exceeds this is silence: -100 dB of full scale, and -80 dB of the recording's own peak.
SILENT_PEAK = 1e-5
SILENT_RATIO = 1e-4


@dataclass(frozen=True)
class Window:
    """
    One fixed-length piece of a waveform.

    Attributes:
        start (`int`): Index of its first sample in the waveform.
        samples (`np.ndarray` of shape `(window_length,)`): float32, zero after the end of the waveform.
        num_valid (`int`): Number of samples before the padding.
        gain (`float`, defaults to 1): Factor that brings the whole recording to the level that it is encoded at.
    """

    start: int
    samples: np.ndarray
    num_valid: int
    gain: float = 1.0


def iter_windows(waveform: np.ndarray, window_length: int, hop_length: int, gain: float = 1.0) -> Iterator[Window]:
    """
    Cut a waveform of shape `(T,)` into windows of `window_length` samples that start every `hop_length` samples.

    Windows start at 0 and go on until one reaches the end, which is padded with zeros. Full windows are views.
    """
    if not 0 < hop_length <= window_length:
        raise ValueError(f"`hop_length` has to be in [1, {window_length}] but is {hop_length}.")
    for start in range(0, max(len(waveform) - window_length, 0) + hop_length, hop_length):
        piece = waveform[start : start + window_length]
        num_valid = len(piece)
        if num_valid < window_length:
            piece = np.pad(piece, (0, window_length - num_valid))
        yield Window(start, piece, num_valid, gain)
        if start + window_length >= len(waveform):
            return


def is_silent(waveform: np.ndarray) -> bool:
    """Whether a waveform `(T,)` never exceeds -100 dB of full scale."""
    # No copy of the absolute values: recordings may be hours long.
    return max(float(waveform.max()), -float(waveform.min())) <= SILENT_PEAK


def sounding_windows(windows: Sequence[Window]) -> list[tuple[int, Window]]:
    """The windows of a recording that are not silent, with their numbers; all of them if all are."""
    peaks = [float(np.abs(window.samples).max()) for window in windows]
    floor = max(SILENT_PEAK, SILENT_RATIO * max(peaks))
    sounding = [(number, window) for number, window in enumerate(windows) if peaks[number] > floor]
    return sounding or list(enumerate(windows))


def cut_quieter_end(waveform: np.ndarray, length: int) -> np.ndarray:
    """At most `length` samples of a waveform `(T,)`: what is too much goes from its end, or its start if quieter."""
    excess = len(waveform) - length
    if excess <= 0:
        return waveform
    begins_louder = np.square(waveform[:excess]).sum() >= np.square(waveform[-excess:]).sum()
    return waveform[:-excess] if begins_louder else waveform[excess:]


def change_speed(window: Window, speed: float) -> Window:
    """A window played `speed` times as fast, pitch and all. Of what no longer fits, the quieter end is cut."""
    played = soxr.resample(window.samples[: window.num_valid], speed, 1.0)
    played = cut_quieter_end(played, len(window.samples))
    samples = np.zeros_like(window.samples)
    samples[: len(played)] = played
    return replace(window, samples=samples, num_valid=len(played))
