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
)


def vary(
    sounds: torch.Tensor, envelopes: torch.Tensor, decays_s: torch.Tensor, sampling_rate: int, random: DeviceRandom
) -> torch.Tensor:
    """
    Equaliser, room, noise floor and band limit, the room where it has a decay, the others with their probabilities.

    Args:
        sounds (`torch.Tensor` of shape `(N, T)`): Each is varied on its own.
        envelopes (`torch.Tensor` of shape `(N, T)`, in [0, 1]): 1 where a recording sounds. Only there and while a
            room rings after it, there is a noise floor.
        decays_s (`torch.Tensor` of shape `(N,)`): Of the rooms, in seconds; 0 for none.
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
    if len(rows := (decays_s > 0).nonzero().flatten()):
        spectrum[rows] *= torch.fft.rfft(room(decays_s[rows], sampling_rate, random), n=fft)
        envelopes = envelopes.clone()
        envelopes[rows] = ring_on(envelopes[rows], decays_s[rows] * sampling_rate)
    varied = torch.fft.irfft(spectrum, n=fft)[:, :length]
    if len(rows := random.rows(count, NOISE_PROBABILITY)):
        varied[rows] += noise_floor(varied[rows], envelopes[rows], random)
    if len(rows := random.rows(count, BAND_PROBABILITY)):
        limited = torch.fft.rfft(varied[rows], n=fft) * band_limit(len(rows), frequencies, random)
        varied[rows] = torch.fft.irfft(limited, n=fft)[:, :length]
    return varied


def ring_on(envelopes: torch.Tensor, decays: torch.Tensor) -> torch.Tensor:
    """Envelopes `(N, T)` that last `decays` `(N,)` samples longer each time, and then fall over a tenth of that."""
    places = torch.arange(envelopes.shape[1], device=envelopes.device)
    last = torch.where(envelopes > 0, places, -envelopes.shape[1]).cummax(dim=1).values
    return envelopes.maximum(((decays[:, None] - (places - last)) / (0.1 * decays[:, None])).clamp(0, 1))


def equaliser(count: int, frequencies: torch.Tensor, sampling_rate: int, random: DeviceRandom) -> torch.Tensor:
    """Gains `(count, F)` at frequencies `(F,)`: linear in dB over the logarithm of the frequency between anchors."""
    known = [frequency for frequency in EQUALISER_HZ if frequency < sampling_rate / 2]
    anchors = torch.tensor([*known, sampling_rate / 2], device=frequencies.device).log()
    gains_db = random.uniform(-EQUALISER_DB, EQUALISER_DB, count, len(anchors))
    place = frequencies.clamp_min(1.0).log().clamp(anchors[0], anchors[-1])
    left = (torch.searchsorted(anchors, place, right=True) - 1).clamp(0, len(anchors) - 2)
    share = (place - anchors[left]) / (anchors[left + 1] - anchors[left])
    return 10.0 ** (torch.lerp(gains_db[:, left], gains_db[:, left + 1], share) / 20)


def room(decays_s: torch.Tensor, sampling_rate: int, random: DeviceRandom) -> torch.Tensor:
    """Impulse responses `(N, T)`: the direct sound, and noise that is 60 dB down after a decay `(N,)`, in seconds."""
    decays_s = decays_s[:, None]
    time = torch.arange(math.ceil(ROOM_DECAY_S[1] * sampling_rate), device=decays_s.device) / sampling_rate
    tail = random.normal(len(decays_s), len(time)) * 10.0 ** (-3.0 * time / decays_s) * (time < decays_s)
    tail *= 10.0 ** (-random.uniform(*ROOM_DB, len(decays_s), 1) / 20) / tail.norm(dim=1, keepdim=True).clamp_min(1e-9)
    tail[:, 0] = 1.0
    return tail


def noise_floor(sounds: torch.Tensor, envelopes: torch.Tensor, random: DeviceRandom) -> torch.Tensor:
    """Noise from white to brown `(N, T)` with envelopes `(N, T)`, some dB below the sounds as they are there."""
    count, length = sounds.shape
    spectrum = torch.fft.rfft(random.normal(count, length))
    tilt = torch.arange(spectrum.shape[1], device=sounds.device).clamp_min(1) ** -random.uniform(0, 1, count, 1)
    noise = torch.fft.irfft(spectrum * tilt, n=length) * envelopes
    level = (sounds * envelopes).norm(dim=1, keepdim=True) / noise.norm(dim=1, keepdim=True).clamp_min(1e-12)
    return noise * level * 10.0 ** (-random.uniform(*NOISE_DB, count, 1) / 20)


def band_limit(count: int, frequencies: torch.Tensor, random: DeviceRandom) -> torch.Tensor:
    """Gains `(count, F)` at frequencies `(F,)`: 1, and from a random one on 0."""
    cutoff = torch.exp(random.uniform(math.log(BAND_LIMIT_HZ[0]), math.log(BAND_LIMIT_HZ[1]), count, 1))
    return ((1.1 * cutoff - frequencies) / (0.1 * cutoff)).clamp(0, 1)
