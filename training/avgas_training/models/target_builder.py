"""What the separator is to say of a batch: which sources there are, their masks, and their teachers' embeddings."""

import math
from typing import Any

import torch
from accelerate import Accelerator

from avgas_pipeline.audio.spectrogram import mel_bands, power, relative_log_mel, stft

from ..losses.matching import SeparationTargets
from .teacher import Teacher


class TargetBuilder:
    """
    Builds the targets of a batch.

    Args:
        teacher ([`Teacher`], *optional*): Encodes the clean clips, for A2A.
        picture_embeds (`torch.Tensor` of shape `(P, V)`, *optional*): Of all pictures, for A2V.
        sampling_rate (`int`): Of the waveforms, in Hz.
        accelerator (`Accelerator`): The run's, whose precision the teacher works in.
        mask_fraction (`float`, defaults to 1.0): Share of a batch's mixtures that have masks; one at least.
    """

    def __init__(
        self,
        teacher: Teacher | None,
        picture_embeds: torch.Tensor | None,
        sampling_rate: int,
        accelerator: Accelerator,
        mask_fraction: float = 1.0,
    ) -> None:
        self.teacher = teacher
        self.picture_embeds = picture_embeds
        self.sampling_rate = sampling_rate
        self.accelerator = accelerator
        self.mask_fraction = mask_fraction

    def build(self, batch: dict[str, Any], config: dict[str, Any]) -> tuple[torch.Tensor | None, SeparationTargets]:
        """
        The mask decoder's input `(M, F, T)`, which is `None` without one, and the targets.

        Args:
            batch (`dict`): Of [`Collator`].
            config (`dict`): The separator's.
        """
        labels = batch["labels"]
        targets, spectrogram = SeparationTargets(labels), None
        if config["mask_channels"]:
            count = math.ceil(self.mask_fraction * len(labels))
            spectrogram, targets.mask_ratio, targets.mask_weight = mask_targets(
                batch["waveform"][:count], batch["stems"][:count], config, self.sampling_rate
            )
        if self.teacher is not None:
            with self.accelerator.autocast():
                targets.audio_embeds = self.teacher.embed(batch["clean_encoder"], labels)
        if self.picture_embeds is not None:
            rows = batch["picture_rows"]
            embeds = self.picture_embeds.to(labels.device)[rows.clamp(min=0)]
            targets.visual_embeds = embeds * (rows >= 0)[..., None]
        return spectrogram, targets


def mask_targets(
    waveform: torch.Tensor, stems: torch.Tensor, config: dict[str, Any], sampling_rate: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    Input and targets of the mask decoder.

    Args:
        waveform (`torch.Tensor` of shape `(M, samples)`): Mixtures.
        stems (`torch.Tensor` of shape `(M, N, samples)`): Their sources.
        config (`dict`): The separator's.
        sampling_rate (`int`): In Hz.

    Returns:
        The mixtures' log-mel spectrograms `(M, F, T)`, the sources' shares of amplitude `(M, N, F, T)`, and what each
        bin counts `(M, F, T)`: the square root of its amplitude.
    """
    n_fft, hop, bands = config["n_fft"], config["hop_length"], config["num_mask_bands"]
    spectrum = stft(waveform, n_fft, hop)
    filters = mel_bands(n_fft, sampling_rate, bands).to(waveform)
    mixture = (filters @ power(spectrum)).sqrt()
    sources = waveform.new_zeros((*stems.shape[:2], bands, spectrum.shape[-1]))
    sounding = stems.any(dim=-1)
    # All mixtures may be backgrounds, and PyTorch transforms no empty batch.
    if sounding.any():
        sources[sounding] = (filters @ power(stft(stems[sounding], n_fft, hop))).sqrt()
    ratio = (sources / mixture[:, None].clamp_min(1e-6)).clamp(0, 1)
    loudest = mixture.amax(dim=(1, 2), keepdim=True).clamp_min(1e-6)
    return relative_log_mel(spectrum, sampling_rate, bands), ratio, (mixture / loudest).sqrt()
