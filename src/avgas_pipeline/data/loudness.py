"""Loudness of clips: RMS over the frames in which something sounds."""

import numpy as np


FRAME_S = 0.02
# Frames this far below the loudest one count as pauses.
ACTIVE_RANGE_DB = 40.0


def active_rms(waveform: np.ndarray, sampling_rate: int) -> float:
    """
    Root mean square over the 20 ms frames of a waveform `(T,)` within 40 dB of its loudest frame.

    Pauses have no influence, so a single bark and a barking dog are equally loud. 0 for silence.
    """
    frame = max(round(FRAME_S * sampling_rate), 1)
    padded = np.pad(waveform, (0, -len(waveform) % frame)).reshape(-1, frame).astype(np.float64)
    power = np.square(padded).mean(axis=1)
    loudest = power.max(initial=0.0)
    if loudest == 0.0:
        return 0.0
    return float(np.sqrt(power[power >= loudest * 10.0 ** (-ACTIVE_RANGE_DB / 10)].mean()))
