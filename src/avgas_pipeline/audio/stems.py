"""Separated sound as the recording sounds: masks found at a model's rate, applied at the recording's own."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch

from .spectrogram import istft, stft


# At both rates, so that bins and frames lie on each other. Whole samples at 8, 11.025, 16, 22.05, 44.1 and 48 kHz.
FRAME_S, HOP_S = 0.08, 0.02
# Of the model's bands, the uppermost share, whose mask is that of what the model does not hear.
UPPERMOST = 1 / 8
# Longer recordings are masked part by part, with so much in common, in seconds.
PART_S, SHARED_S = 60.0, 1.0
# Of the mixture's power: below it a mask is nothing but rounding.
_FLOOR = 1e-10


def stem_blocks(
    original: Iterable[np.ndarray],
    original_rate: int,
    mixture: np.ndarray,
    separated: Sequence[np.ndarray],
    rate: int,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """
    Separated sounds at a recording's own rate and with its channels. What they leave is the recording minus their sum.

    Each is the original's spectrogram times a mask, which is the part of the mixture's that its separated sound has;
    above what the model hears it is the mean of its uppermost bands.

    Args:
        original (`Iterable[np.ndarray]`): The recording, block after block `(channels, T)`.
        original_rate (`int`): Its rate, in Hz.
        mixture (`np.ndarray` of shape `(t,)`): The recording as the model heard it.
        separated (`Sequence[np.ndarray]`): Of it, each `(t,)`.
        rate (`int`): Of mixture and separated sounds, in Hz.

    Yields:
        Blocks of the recording `(channels, T)`, and its stems `(n, channels, T)`, float32, one after another.
    """
    length, shared = round(PART_S * original_rate), round(SHARED_S * original_rate)
    step = length - shared
    sounds, tail = [mixture, *separated], np.zeros(0, dtype=np.float32)
    for number, (part, is_last) in enumerate(_overlapping(iter(original), length, step)):
        start = round(number * step * rate / original_rate)
        heard = slice(start, start + round(PART_S * rate))
        stems = _masked(part, original_rate, np.stack([sound[heard] for sound in sounds]), rate)
        if number:
            count = min(shared, part.shape[1])
            rise = np.arange(1, count + 1, dtype=np.float32) / (count + 1)
            stems[..., :count] = rise * stems[..., :count] + (1 - rise) * tail[..., :count]
        tail = stems[..., step:]
        end = part.shape[1] if is_last else step
        yield part[:, :end], stems[..., :end]


def _overlapping(blocks: Iterator[np.ndarray], length: int, step: int) -> Iterator[tuple[np.ndarray, bool]]:
    """Parts of a length, a step apart, and whether each is the last, which may be shorter."""
    waiting: list[np.ndarray] = []
    num_waiting = 0
    while True:
        while num_waiting <= length and (block := next(blocks, None)) is not None:
            waiting.append(block)
            num_waiting += block.shape[1]
        if not waiting:
            return
        buffer = np.concatenate(waiting, axis=1)
        is_last = buffer.shape[1] <= length
        yield buffer[:, :length], is_last
        if is_last:
            return
        waiting = [buffer[:, step:]]
        num_waiting = waiting[0].shape[1]


def _masked(original: np.ndarray, original_rate: int, sounds: np.ndarray, rate: int) -> np.ndarray:
    """Stems `(n, channels, T)` of one part; `sounds` are the mixture and its separated sounds."""
    length = original.shape[1]
    if length == 0 or sounds.shape[1] == 0:
        return np.zeros((len(sounds) - 1, *original.shape), dtype=np.float32)
    n_fft, hop = (round(seconds * original_rate) for seconds in (FRAME_S, HOP_S))
    spectrum = stft(torch.from_numpy(np.ascontiguousarray(original)), n_fft, hop)
    heard = stft(torch.from_numpy(sounds), round(FRAME_S * rate), round(HOP_S * rate))
    mixture, separated = heard[0], heard[1:]
    power = mixture.abs().square()
    masks = (separated * mixture.conj()).real / power.clamp(min=_FLOOR * float(power.max()) + 1e-30)
    masks = _to_bins(masks.clamp(0.0, 1.0), spectrum.shape[-2], spectrum.shape[-1])
    # A source's mask is the same in all channels.
    stems = [istft(spectrum * mask, n_fft, hop, length) for mask in masks]
    return torch.stack(stems).numpy()


def _to_bins(masks: torch.Tensor, bins: int, frames: int) -> torch.Tensor:
    """Masks `(n, bands, frames)` for more bins or fewer, and as many frames."""
    known, last = min(masks.shape[1], bins), masks.shape[2]
    # In memory frame by frame, as `stft` has its spectra: stems take a sixth less time.
    masks = masks.transpose(1, 2)[:, torch.arange(frames).clamp(max=last - 1)]
    if bins > known:
        top = masks[..., -max(round(UPPERMOST * known), 1) :].mean(dim=-1, keepdim=True)
        masks = torch.cat([masks, top.expand(-1, -1, bins - known)], dim=-1)
    return masks[..., :bins].transpose(1, 2)
