"""Loudness of clips: RMS over the frames in which something sounds."""

import numpy as np


_FRAME_S = 0.02
# Frames this far below the loudest one count as pauses.
_ACTIVE_RANGE_DB = 40.0


def active_rms(waveform: np.ndarray, sampling_rate: int) -> float:
    """
    Root mean square over the 20 ms frames of a waveform `(T,)` within 40 dB of its loudest frame.

    Pauses have no influence, so a single bark and a barking dog are equally loud. 0 for silence.
    """
    power = _frame_power(waveform, sampling_rate)
    active = power[_is_active(power)]
    return float(np.sqrt(active.mean())) if len(active) else 0.0


def active_moments(waveform: np.ndarray, sampling_rate: int) -> np.ndarray:
    """When the frames that [`active_rms`] goes over begin, in seconds."""
    return np.flatnonzero(_is_active(_frame_power(waveform, sampling_rate))) * _FRAME_S


def _frame_power(waveform: np.ndarray, sampling_rate: int) -> np.ndarray:
    frame = max(round(_FRAME_S * sampling_rate), 1)
    padded = np.pad(waveform, (0, -len(waveform) % frame)).reshape(-1, frame).astype(np.float64)
    return np.square(padded).mean(axis=1)


def _is_active(power: np.ndarray) -> np.ndarray:
    loudest = power.max(initial=0.0)
    return (power > 0) & (power >= loudest * 10.0 ** (-_ACTIVE_RANGE_DB / 10))
