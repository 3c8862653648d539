"""Channels to one: their mean, unless sounds cancel in it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


# Up to this many frames, of all channels together, are looked at, spread evenly over the recording.
_MAX_FRAMES = 2048
_FRAME = 1024
# Frames whose spectra are in memory at once: all of a recording's would leave the processor's cache.
_AT_ONCE = 32
# A bin of the spectrum is lost where its energy falls below this share of the channels' mean; for two channels that
# have nothing in common this happens to 5 % of the energy by chance.
_LOST = 0.1
# From this share of lost energy on the mean is not taken.
_MAX_LOST_SHARE = 0.1


@dataclass(frozen=True)
class Downmix:
    """
    How channels become one.

    Attributes:
        weights (`np.ndarray` of shape `(channels,)`): Of the sum.
        reason (`str`): What was done, for a warning.
    """

    weights: np.ndarray
    reason: str


class ChannelSampler:
    """Keeps some frames of the channels of a recording of any length, to choose its [`Downmix`] by."""

    def __init__(self, num_channels: int) -> None:
        self.num_channels = num_channels
        self._max_frames = max(_MAX_FRAMES // num_channels, 2)
        self._frames: list[np.ndarray] = []
        self._stride = 1
        self._num_seen = 0
        self._waiting: list[np.ndarray] = []
        self._num_waiting = 0

    def add(self, samples: np.ndarray) -> None:
        """Take in the next samples `(channels, T)`."""
        self._waiting.append(samples)
        self._num_waiting += samples.shape[1]
        if self._num_waiting < _FRAME:
            return
        joined = np.concatenate(self._waiting, axis=1)
        num_frames = joined.shape[1] // _FRAME
        for number in range(num_frames):
            if self._num_seen % self._stride == 0:
                self._keep(joined[:, number * _FRAME : (number + 1) * _FRAME])
            self._num_seen += 1
        self._waiting = [joined[:, num_frames * _FRAME :].copy()]
        self._num_waiting = self._waiting[0].shape[1]

    def choose(self) -> Downmix | None:
        """The way to mix that loses least; `None` for the mean."""
        if not self._frames and self._num_waiting:
            rest = np.concatenate(self._waiting, axis=1)
            self._keep(np.pad(rest, ((0, 0), (0, _FRAME - rest.shape[1]))))
        return choose_downmix(np.stack(self._frames)) if self._frames else None

    def _keep(self, frame: np.ndarray) -> None:
        # What is too large for float32 is refused when it is mixed.
        with np.errstate(over="ignore"):
            self._frames.append(as_floats(frame).astype(np.float32))
        if len(self._frames) > self._max_frames:
            self._frames = self._frames[::2]
            self._stride *= 2


def choose_downmix(frames: np.ndarray) -> Downmix | None:
    """
    Find the sum of channels that loses least of their energy.

    The mean loses what stands in two channels with opposite signs: a channel that was wired the wrong way round, or
    left = a + b and right = a - b. It is weighed against the mean with such channels inverted, and against every
    channel alone, by how much of the energy lies in bins of the spectrum that all but vanish.

    Args:
        frames (`np.ndarray` of shape `(frames, channels, samples)`): Pieces of a recording.

    Returns:
        [`Downmix`], or `None` where the mean is good enough, or nothing is better.
    """
    num_channels = frames.shape[1]
    mean = np.full(num_channels, 1 / num_channels)
    (lost,) = _lost_shares(frames, [mean])
    if not lost > _MAX_LOST_SHARE:
        return None
    flat = frames.transpose(1, 0, 2).reshape(num_channels, -1).astype(np.float64)
    loudest = np.square(flat).sum(axis=1).argmax()
    is_inverted = flat @ flat[loudest] < 0
    candidates = []
    cancelling = "its channels cancel each other out, at least in part"
    if is_inverted.any():
        numbers = ", ".join(str(number + 1) for number in np.flatnonzero(is_inverted))
        reason = f"{cancelling}; channel {numbers} of {num_channels} is inverted before they are averaged"
        candidates.append(Downmix(np.where(is_inverted, -mean, mean), reason))
    for number, alone in enumerate(np.eye(num_channels)):
        candidates.append(Downmix(alone, f"{cancelling}; only channel {number + 1} of {num_channels} is used"))
    shares = _lost_shares(frames, [candidate.weights for candidate in candidates])
    best = int(np.argmin(shares))
    return candidates[best] if shares[best] < lost / 2 else None


def _lost_shares(frames: np.ndarray, sums: Sequence[np.ndarray]) -> np.ndarray:
    """The share of energy that is lost by each weighted sum of channels; NaN where there is none, or it overflows."""
    num_channels = frames.shape[1]
    window = np.hanning(frames.shape[2]).astype(np.float32)
    total, lost = 0.0, np.zeros(len(sums))
    with np.errstate(all="ignore"):
        for start in range(0, len(frames), _AT_ONCE):
            spectra = np.fft.rfft(frames[start : start + _AT_ONCE] * window).astype(np.complex64)
            energy = _power(spectra).mean(axis=1)
            total += energy.sum(dtype=np.float64)
            for number, weights in enumerate(sums):
                mixed = _power(np.einsum("c,fcb->fb", weights.astype(np.float32), spectra))
                lost[number] += energy[mixed < _LOST / num_channels * energy].sum(dtype=np.float64)
        return lost / total if np.isfinite(total) else np.full(len(sums), np.nan)


def _power(spectra: np.ndarray) -> np.ndarray:
    return np.square(spectra.real) + np.square(spectra.imag)


def mix(samples: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Sum of the channels of `(channels, T)` samples, their mean without weights, as float32 with full scale at 1."""
    if weights is not None:
        with np.errstate(over="ignore", invalid="ignore"):
            return (weights @ as_floats(samples).astype(np.float64)).astype(np.float32)
    if samples.dtype.kind == "f":
        # float16 sums overflow, and float64 beyond float32's range has to show as infinite.
        with np.errstate(over="ignore", invalid="ignore"):
            mixed = samples[0] if len(samples) == 1 else samples.mean(axis=0, dtype=np.float64)
            return mixed.astype(np.float32)
    middle, full_scale = _integer_scale(samples.dtype)
    return ((samples.mean(axis=0, dtype=np.float64) - middle) / full_scale).astype(np.float32)


def as_floats(samples: np.ndarray) -> np.ndarray:
    """Samples of any type with full scale at 1."""
    if samples.dtype.kind == "f":
        return samples
    middle, full_scale = _integer_scale(samples.dtype)
    return (samples - np.float64(middle)) / full_scale


def _integer_scale(dtype: np.dtype) -> tuple[float, float]:
    """Value of silence, and distance from it to full scale."""
    top = np.iinfo(dtype).max + 1
    return (0.0, float(top)) if dtype.kind == "i" else (top / 2, top / 2)
