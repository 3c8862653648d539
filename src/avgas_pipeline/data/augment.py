"""Augmentation of clips for training: what rooms, microphones and codecs do to a sound."""

import io

import av
import numpy as np
import scipy.fft
import scipy.signal
import soxr

from ..audio.loading import load_audio


_SPEED_PROBABILITY = 0.6
_MAX_SPEED = 1.15
_EQUALISER_PROBABILITY = 0.5
# The last of its frequencies is half the sampling rate.
_EQUALISER_HZ = (60.0, 250.0, 1000.0, 4000.0)
_EQUALISER_DB = 9.0
_ROOM_PROBABILITY = 0.3
_ROOM_DECAY_S = (0.1, 0.8)
_ROOM_DB = (3.0, 15.0)
_NOISE_PROBABILITY = 0.4
_NOISE_DB = (25.0, 60.0)
_BAND_PROBABILITY = 0.3
_BAND_LIMIT_HZ = (2000.0, 7000.0)
_OPUS_PROBABILITY = 0.05


def augment(waveform: np.ndarray, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    """
    A random variation of a clip `(T,)`; it may become longer (room, slower) or shorter (faster).

    Each of these happens with its own probability: pitch and speed together (±15 %), equaliser (±9 dB at five
    frequencies), room (reverberation of 0.1 to 0.8 s), noise floor (25 to 60 dB below), band limit (2 to 7 kHz), Opus
    at 8 to 24 kbit/s.
    """
    for probability, effect in (
        (_SPEED_PROBABILITY, change_speed),
        (_EQUALISER_PROBABILITY, equalise),
        (_ROOM_PROBABILITY, reverberate),
        (_NOISE_PROBABILITY, add_noise_floor),
        (_BAND_PROBABILITY, limit_band),
        (_OPUS_PROBABILITY, encode_and_decode),
    ):
        if rng.random() < probability:
            waveform = effect(waveform, sampling_rate, rng)
    return waveform


def change_speed(waveform: np.ndarray, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Play up to 15 % faster or slower, with the pitch that follows."""
    return soxr.resample(
        waveform, sampling_rate * rng.uniform(1 / _MAX_SPEED, _MAX_SPEED), sampling_rate, quality="MQ"
    )


def equalise(waveform: np.ndarray, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    """A smooth random gain over frequency, up to 9 dB either way."""
    frequencies = scipy.fft.rfftfreq(_fft_length(waveform), 1 / sampling_rate)
    anchors = np.array([*_EQUALISER_HZ, sampling_rate / 2])
    anchor_gains_db = rng.uniform(-_EQUALISER_DB, _EQUALISER_DB, size=len(anchors))
    gains_db = np.interp(np.log(np.maximum(frequencies, 1.0)), np.log(anchors), anchor_gains_db)
    return _filter(waveform, 10.0 ** (gains_db / 20))


def reverberate(waveform: np.ndarray, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Convolve with exponentially decaying noise, 60 dB down after 0.1 to 0.8 s, 3 to 15 dB below the direct sound."""
    decay_s = rng.uniform(*_ROOM_DECAY_S)
    time = np.arange(int(decay_s * sampling_rate)) / sampling_rate
    tail = rng.standard_normal(len(time)) * 10.0 ** (-3.0 * time / decay_s)
    tail *= 10.0 ** (-rng.uniform(*_ROOM_DB) / 20) / max(np.sqrt(np.sum(tail**2)), 1e-9)
    tail[0] = 1.0
    return scipy.signal.oaconvolve(waveform, tail.astype(np.float32)).astype(np.float32)


def add_noise_floor(waveform: np.ndarray, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Noise from white to brown, 25 to 60 dB below the clip."""
    length = _fft_length(waveform)
    spectrum = scipy.fft.rfft(rng.standard_normal(length, dtype=np.float32))
    tilt = np.maximum(np.arange(len(spectrum), dtype=np.float32), 1) ** np.float32(-rng.uniform(0, 1))
    noise = scipy.fft.irfft(spectrum * tilt, n=length)[: len(waveform)]
    level = np.sqrt(np.mean(np.square(waveform))) * 10.0 ** (-rng.uniform(*_NOISE_DB) / 20)
    return (waveform + noise * (level / max(np.sqrt(np.mean(noise**2)), 1e-12))).astype(np.float32)


def limit_band(waveform: np.ndarray, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Take away all above 2 to 7 kHz, as old recordings do."""
    frequencies = scipy.fft.rfftfreq(_fft_length(waveform), 1 / sampling_rate)
    cutoff = np.exp(rng.uniform(*np.log(_BAND_LIMIT_HZ)))
    return _filter(waveform, np.clip((1.1 * cutoff - frequencies) / (0.1 * cutoff), 0.0, 1.0))


def encode_and_decode(waveform: np.ndarray, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Opus at 8 to 24 kbit/s and back."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="ogg") as file:
        stream = file.add_stream("libopus", rate=48000, layout="mono")
        stream.bit_rate = int(rng.integers(8000, 24000))
        resampler = av.AudioResampler(format=stream.format, layout="mono", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(waveform[None]), format="fltp", layout="mono")
        frame.sample_rate = sampling_rate
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            file.mux(stream.encode(piece))
        file.mux(stream.encode(None))
    return load_audio(buffer.getvalue(), target_sampling_rate=sampling_rate)[: len(waveform)]


def _fft_length(waveform: np.ndarray) -> int:
    # A little longer than the waveform, so that a filter's ringing at the end does not reach its start.
    return scipy.fft.next_fast_len(len(waveform) + 2048, real=True)


def _filter(waveform: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Zero-phase filter, by the gain at every frequency of an FFT of [`_fft_length`]."""
    length = _fft_length(waveform)
    spectrum = scipy.fft.rfft(waveform, n=length) * gains.astype(np.float32)
    return scipy.fft.irfft(spectrum, n=length)[: len(waveform)]
