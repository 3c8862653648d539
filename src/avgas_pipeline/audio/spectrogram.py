"""The spectrogram that source masks live on: STFT, mel bands, and the way back to audio."""

from functools import lru_cache

import torch
from transformers.audio_utils import mel_filter_bank


# Range of the log-mel spectrogram that the mask decoder sees, below the loudest band of the window.
DYNAMIC_RANGE_DB = 80.0
# Frames this far below the loudest one count as silent.
SILENCE_DB = 60.0


def stft(waveform: torch.Tensor, n_fft: int, hop_length: int) -> torch.Tensor:
    """
    Short-time Fourier transform with a Hann window and centred frames.

    Args:
        waveform (`torch.Tensor` of shape `(..., samples)`): Audio.
        n_fft (`int`): Length of a frame, in samples.
        hop_length (`int`): Distance between frames, in samples.

    Returns:
        `torch.Tensor` of shape `(..., n_fft // 2 + 1, samples // hop_length + 1)`, complex.
    """
    window = torch.hann_window(n_fft, device=waveform.device, dtype=waveform.dtype)
    flat = waveform.reshape(-1, waveform.shape[-1])
    # Zeros at the edges, as reflection needs more samples than half a frame.
    spectrum = torch.stft(flat, n_fft, hop_length, window=window, pad_mode="constant", return_complex=True)
    return spectrum.reshape(*waveform.shape[:-1], *spectrum.shape[-2:])


def istft(spectrum: torch.Tensor, n_fft: int, hop_length: int, length: int) -> torch.Tensor:
    """Inverse of [`stft`]: complex `(..., n_fft // 2 + 1, frames)` to audio `(..., length)`."""
    window = torch.hann_window(n_fft, device=spectrum.device, dtype=spectrum.real.dtype)
    flat = spectrum.reshape(-1, *spectrum.shape[-2:])
    waveform = torch.istft(flat, n_fft, hop_length, window=window, length=length)
    return waveform.reshape(*spectrum.shape[:-2], length)


def power(spectrum: torch.Tensor) -> torch.Tensor:
    """Squared magnitude of a complex spectrum, several times faster than by its `abs()`."""
    return spectrum.real.square().add_(spectrum.imag.square())


@lru_cache(maxsize=16)
def mel_bands(n_fft: int, sampling_rate: int, num_bands: int) -> torch.Tensor:
    """
    Share of each STFT bin in each mel band (HTK scale, 0 Hz to half the sampling rate).

    Returns:
        `torch.Tensor` of shape `(num_bands, n_fft // 2 + 1)`: every column sums to 1, so a mask over bands becomes a
        mask over bins by `mask.T @ mel_bands(...)`.
    """
    filters = mel_filter_bank(
        num_frequency_bins=n_fft // 2 + 1,
        num_mel_filters=num_bands,
        min_frequency=0.0,
        max_frequency=sampling_rate / 2,
        sampling_rate=sampling_rate,
        norm=None,
        mel_scale="htk",
    )
    bands = torch.from_numpy(filters).float().T
    # 0 Hz and the top bin lie at the feet of the outer triangles.
    bands[0, 0] = 1.0
    bands[-1, -1] = 1.0
    return bands / bands.sum(dim=0, keepdim=True).clamp_min(1e-8)


def relative_log_mel(spectrum: torch.Tensor, sampling_rate: int, num_bands: int) -> torch.Tensor:
    """
    Log-mel spectrogram relative to the loudest band of each window, so that the level of a recording has no influence.

    Args:
        spectrum (`torch.Tensor` of shape `(..., n_fft // 2 + 1, frames)`): Complex STFT.
        sampling_rate (`int`): In Hz.
        num_bands (`int`): Number of mel bands.

    Returns:
        `torch.Tensor` of shape `(..., num_bands, frames)` in [0, 1]: 1 is the loudest, 0 is 80 dB below it or less.
    """
    n_fft = 2 * (spectrum.shape[-2] - 1)
    mel_power = mel_bands(n_fft, sampling_rate, num_bands).to(spectrum.real) @ power(spectrum)
    loudest = mel_power.amax(dim=(-2, -1), keepdim=True).clamp_min(torch.finfo(mel_power.dtype).tiny)
    decibels = 10.0 * torch.log10((mel_power / loudest).clamp_min(10.0 ** (-DYNAMIC_RANGE_DB / 10)))
    return 1.0 + decibels / DYNAMIC_RANGE_DB


def mask_to_bins(mask: torch.Tensor, n_fft: int, sampling_rate: int) -> torch.Tensor:
    """Spread a mask over mel bands `(..., num_bands, frames)` to STFT bins `(..., n_fft // 2 + 1, frames)`."""
    bands = mel_bands(n_fft, sampling_rate, mask.shape[-2]).to(mask)
    # In memory frame by frame, as `stft` has its spectra: what follows takes two to four times as long otherwise.
    return (mask.transpose(-1, -2) @ bands).transpose(-1, -2)


def frame_activity(power: torch.Tensor, mask: torch.Tensor, loudest_frame: float) -> torch.Tensor:
    """
    Share of each frame's energy that belongs to sources.

    Args:
        power (`torch.Tensor` of shape `(n_fft // 2 + 1, frames)`): Power spectrogram of the soundscape.
        mask (`torch.Tensor` of shape `(..., n_fft // 2 + 1, frames)`, in [0, 1]): Sources' masks, ratios of amplitude.
        loudest_frame (`float`): Energy of the loudest frame of the whole soundscape.

    Returns:
        `torch.Tensor` of shape `(..., frames)` in [0, 1]; it goes to 0 in frames 60 dB and more below the loudest.
    """
    energy = power.sum(dim=0)
    floor = max(loudest_frame * 10.0 ** (-SILENCE_DB / 10), torch.finfo(power.dtype).tiny)
    return mask.square().mul_(power).sum(dim=-2) / energy.clamp_min(floor)
