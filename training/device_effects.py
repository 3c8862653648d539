"""What `avgas_pipeline.data.augment` does to a clip, done to many sounds at a time on any device. Opus is left out."""

import math

import scipy.fft
import torch
from randomness import DeviceRandom

from avgas_pipeline.data.augment import (
    BAND_LIMIT_HZ,
    BAND_PROBABILITY,
    EQUALISER_DB,
    EQUALISER_HZ,
    EQUALISER_PROBABILITY,
    NOISE_DB,
    NOISE_PROBABILITY,
    ROOM_DB,
    ROOM_DECAY_S,
    ROOM_PROBABILITY,
)


def vary(sounds: torch.Tensor, sounding: torch.Tensor, sampling_rate: int, random: DeviceRandom) -> torch.Tensor:
    """
    Equaliser, room, noise floor and band limit, each with its own probability.

    Args:
        sounds (`torch.Tensor` of shape `(N, T)`): Each is varied on its own.
        sounding (`torch.Tensor` of shape `(N, T)`, bool): Where a recording is; elsewhere it gets no noise floor.
        sampling_rate (`int`): In Hz.
        random ([`DeviceRandom`]): What happens.
    """
    count, length = sounds.shape
    # So much longer that no room rings from the end into the beginning.
    fft = scipy.fft.next_fast_len(length + math.ceil(ROOM_DECAY_S[1] * sampling_rate), real=True)
    frequencies = torch.fft.rfftfreq(fft, 1 / sampling_rate, device=sounds.device)
    spectrum = torch.fft.rfft(sounds, n=fft)

    # No library transforms 0 rows.
    if len(rows := random.rows(count, EQUALISER_PROBABILITY)):
        spectrum[rows] *= equaliser(len(rows), frequencies, sampling_rate, random)
    if len(rows := random.rows(count, ROOM_PROBABILITY)):
        spectrum[rows] *= torch.fft.rfft(room(len(rows), sampling_rate, random), n=fft)
        sounding = sounding.index_fill(0, rows, True)
    varied = torch.fft.irfft(spectrum, n=fft)[:, :length]
    if len(rows := random.rows(count, NOISE_PROBABILITY)):
        varied[rows] += noise_floor(varied[rows], sounding[rows], random)
    if len(rows := random.rows(count, BAND_PROBABILITY)):
        limited = torch.fft.rfft(varied[rows], n=fft) * band_limit(len(rows), frequencies, random)
        varied[rows] = torch.fft.irfft(limited, n=fft)[:, :length]
    return varied


def equaliser(count: int, frequencies: torch.Tensor, sampling_rate: int, random: DeviceRandom) -> torch.Tensor:
    """Gains `(count, F)` at frequencies `(F,)`: linear in dB over the logarithm of the frequency between anchors."""
    anchors = torch.tensor([*EQUALISER_HZ, sampling_rate / 2], device=frequencies.device).log()
    gains_db = random.uniform(-EQUALISER_DB, EQUALISER_DB, count, len(anchors))
    place = frequencies.clamp_min(1.0).log().clamp(anchors[0], anchors[-1])
    left = (torch.searchsorted(anchors, place, right=True) - 1).clamp(0, len(anchors) - 2)
    share = (place - anchors[left]) / (anchors[left + 1] - anchors[left])
    return 10.0 ** (torch.lerp(gains_db[:, left], gains_db[:, left + 1], share) / 20)


def room(count: int, sampling_rate: int, random: DeviceRandom) -> torch.Tensor:
    """Impulse responses `(count, T)`: the direct sound, and exponentially decaying noise."""
    decay_s = random.uniform(*ROOM_DECAY_S, count, 1)
    time = torch.arange(math.ceil(ROOM_DECAY_S[1] * sampling_rate), device=decay_s.device) / sampling_rate
    tail = random.normal(count, len(time)) * 10.0 ** (-3.0 * time / decay_s) * (time < decay_s)
    tail *= 10.0 ** (-random.uniform(*ROOM_DB, count, 1) / 20) / tail.norm(dim=1, keepdim=True).clamp_min(1e-9)
    tail[:, 0] = 1.0
    return tail


def noise_floor(sounds: torch.Tensor, sounding: torch.Tensor, random: DeviceRandom) -> torch.Tensor:
    """Noise from white to brown `(N, T)`, only where `sounding`, some dB below the sounds there."""
    count, length = sounds.shape
    spectrum = torch.fft.rfft(random.normal(count, length))
    tilt = torch.arange(spectrum.shape[1], device=sounds.device).clamp_min(1) ** -random.uniform(0, 1, count, 1)
    noise = torch.fft.irfft(spectrum * tilt, n=length) * sounding
    amount = sounding.sum(dim=1, keepdim=True).clamp_min(1).sqrt()
    level = (sounds * sounding).norm(dim=1, keepdim=True) / amount
    level *= 10.0 ** (-random.uniform(*NOISE_DB, count, 1) / 20)
    return noise * (level / (noise.norm(dim=1, keepdim=True) / amount).clamp_min(1e-12))


def band_limit(count: int, frequencies: torch.Tensor, random: DeviceRandom) -> torch.Tensor:
    """Gains `(count, F)` at frequencies `(F,)`: 1, and from a random one on 0."""
    cutoff = torch.exp(random.uniform(math.log(BAND_LIMIT_HZ[0]), math.log(BAND_LIMIT_HZ[1]), count, 1))
    return ((1.1 * cutoff - frequencies) / (0.1 * cutoff)).clamp(0, 1)
