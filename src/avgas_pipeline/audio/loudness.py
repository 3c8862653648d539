"""Loudness: RMS over the frames in which something sounds, and the gain to a reference level."""

import numpy as np


# Active loudness that recordings are encoded at, in dB of full scale: the usual one of the mixtures learnt from.
REFERENCE_DB = -24.0
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


def reference_gain(waveform: np.ndarray, sampling_rate: int) -> float:
    """Factor that brings the active loudness of a waveform `(T,)` to -24 dB of full scale; 1 for silence."""
    rms = active_rms(waveform, sampling_rate)
    return 10.0 ** (REFERENCE_DB / 20) / rms if rms > 0 else 1.0


def _frame_power(waveform: np.ndarray, sampling_rate: int) -> np.ndarray:
    frame = max(round(_FRAME_S * sampling_rate), 1)
    whole = len(waveform) // frame * frame
    # Without a copy of the recording in float64, which an hour would feel.
    frames = waveform[:whole].reshape(-1, frame)
    power = np.einsum("ij,ij->i", frames, frames, dtype=np.float64) / frame
    rest = waveform[whole:].astype(np.float64)
    return np.append(power, np.square(rest).sum() / frame) if len(rest) else power


def _is_active(power: np.ndarray) -> np.ndarray:
    loudest = power.max(initial=0.0)
    return (power > 0) & (power >= loudest * 10.0 ** (-_ACTIVE_RANGE_DB / 10))
