"""How training scripts hear: audio encoder and separator in one module, and what they are given and asked for."""

from typing import Any

import torch
from losses import SeparationTargets, match_sources

from avgas_pipeline import AudioVisualSeparator, AudioVisualSeparatorOutput
from avgas_pipeline.audio.spectrogram import mel_bands, power, relative_log_mel, stft


class Hearing(torch.nn.Module):
    """Audio encoder and separator as one module, one call a step, as distributed training wants it."""

    def __init__(self, audio_encoder: torch.nn.Module, separator: AudioVisualSeparator) -> None:
        super().__init__()
        self.audio_encoder = audio_encoder
        self.separator = separator

    def forward(self, inputs: dict[str, torch.Tensor], spectrogram: torch.Tensor | None) -> tuple:
        """The separator's output as a tuple."""
        tokens = self.audio_encoder(**inputs).last_hidden_state
        return self.separator(tokens, spectrogram=spectrogram, return_dict=False)


def drawing_layers(separator: AudioVisualSeparator) -> list[torch.nn.Module]:
    """What makes condition tokens of slots: the generator's training moves it, the separator's does not."""
    layers = (separator.token_head, separator.token_norm, separator.label_tokens)
    return [layer for layer in layers if layer is not None]


def drawing_weights(separator: AudioVisualSeparator) -> list[torch.nn.Parameter]:
    """The weights of [`drawing_layers`] and the null tokens."""
    return [separator.null_tokens, *(weight for layer in drawing_layers(separator) for weight in layer.parameters())]


def train_mode(hearing: Hearing) -> None:
    """Training mode, but for batch norms that are frozen: their statistics are, too."""
    hearing.train()
    for module in hearing.audio_encoder.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and not module.weight.requires_grad:
            module.eval()


def spectrograms(
    waveform: torch.Tensor, stems: torch.Tensor, config: dict[str, Any], sampling_rate: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    What the mask decoder sees and has to say: the mixtures' log-mel spectrograms `(B, F, T)`, the sources' shares of
    amplitude `(B, N, F, T)`, and what each bin counts `(B, F, T)`: the square root of its amplitude.
    """
    n_fft, hop, bands = config["n_fft"], config["hop_length"], config["num_mask_bands"]
    spectrum = stft(waveform, n_fft, hop)
    filters = mel_bands(n_fft, sampling_rate, bands).to(waveform)
    mixture = (filters @ power(spectrum)).sqrt()
    sources = waveform.new_zeros((*stems.shape[:2], bands, spectrum.shape[-1]))
    sounding = stems.any(dim=-1)
    sources[sounding] = (filters @ power(stft(stems[sounding], n_fft, hop))).sqrt()
    ratio = (sources / mixture[:, None].clamp_min(1e-6)).clamp(0, 1)
    loudest = mixture.amax(dim=(1, 2), keepdim=True).clamp_min(1e-6)
    return relative_log_mel(spectrum, sampling_rate, bands), ratio, (mixture / loudest).sqrt()


def hear_sources(
    hearing: Hearing, inputs: dict[str, torch.Tensor], spectrogram: torch.Tensor | None, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, tuple]:
    """
    The slot of every source of B mixtures, by label. A separator with one slot gives it for the first source, and it
    stands for all.

    Returns:
        Slots `(B, N, D)`, whether a source has one `(B, N)`, and the separator's output.
    """
    output = AudioVisualSeparatorOutput(*hearing(inputs, spectrogram))
    if output.presence_logits.shape[1] == 1:
        numbers = torch.full_like(labels, -1)
        numbers[:, 0] = 0
    else:
        numbers = match_sources(output, SeparationTargets(labels))
    rows = torch.arange(len(labels), device=labels.device)[:, None]
    return output.slots[rows, numbers.clamp(min=0)], numbers >= 0, output
