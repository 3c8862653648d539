"""A small convolutional audio encoder for sound effects, and its log-mel front end."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.fft
import scipy.signal
import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    BatchFeature,
    PretrainedConfig,
    PreTrainedModel,
    SequenceFeatureExtractor,
)
from transformers.audio_utils import mel_filter_bank
from transformers.modeling_outputs import BaseModelOutput


# The rate at which the front end was defined; powers are scaled to what its longer frames would have.
_REFERENCE_RATE = 44100
# Largest value of the front end in the encoder's training data.
_SCALE = 9.4578


class SoundEffectsFeatureExtractor(SequenceFeatureExtractor):
    """
    Log-mel spectrograms as the sound-effects CNN of Ma and Lerch (ISMIR 2022) wants them, from audio of any rate: the
    same frames in seconds, the same bands in Hz; bands above half the rate are empty.

    Args:
        feature_size (`int`, defaults to 96): Mel bands, HTK scale, from 0 to 22,050 Hz.
        sampling_rate (`int`, defaults to 16000): Of the audio, in Hz.
        padding_value (`float`, defaults to 0.0): Of padded samples.
        window_s (`float`, defaults to 5.0): Length of a window; shorter audio is padded, longer audio cut.
        frame_s (`float`, defaults to 2048 / 44100): Length of a frame.
        hop_s (`float`, defaults to 1024 / 44100): Distance between frames.
    """

    model_input_names = ["input_features"]  # noqa: RUF012

    def __init__(
        self,
        feature_size: int = 96,
        sampling_rate: int = 16000,
        padding_value: float = 0.0,
        window_s: float = 5.0,
        frame_s: float = 2048 / 44100,
        hop_s: float = 1024 / 44100,
        **kwargs: Any,
    ) -> None:
        super().__init__(feature_size, sampling_rate, padding_value, **kwargs)
        self.window_s = window_s
        self.frame_s = frame_s
        self.hop_s = hop_s

    @property
    def n_samples(self) -> int:
        """Samples in a window."""
        return round(self.window_s * self.sampling_rate)

    def __call__(
        self,
        raw_speech: np.ndarray | Sequence[np.ndarray],
        sampling_rate: int | None = None,
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """
        Args:
            raw_speech (`np.ndarray` of shape `(samples,)`, or a list of these): Mono audio in [-1, 1].
            sampling_rate (`int`, *optional*): Its rate, to check.
            return_tensors (`str`, *optional*): `"pt"` or `"np"`.

        Returns:
            `BatchFeature` with `input_features` of shape `(batch, frames, feature_size)`.

        Raises:
            ValueError: If `sampling_rate` is not the extractor's.
        """
        if sampling_rate not in (None, self.sampling_rate):
            raise ValueError(f"The audio is at {sampling_rate} Hz, but has to be at {self.sampling_rate} Hz.")
        waveforms = [raw_speech] if isinstance(raw_speech, np.ndarray) and raw_speech.ndim == 1 else raw_speech
        features = np.stack([self._features(np.asarray(waveform, dtype=np.float32)) for waveform in waveforms])
        return BatchFeature({"input_features": features}, tensor_type=return_tensors)

    def _features(self, waveform: np.ndarray) -> np.ndarray:
        waveform = waveform[: self.n_samples]
        padding = self.n_samples - len(waveform)
        waveform = np.pad(waveform, (0, padding), constant_values=self.padding_value)
        frame, hop = round(self.frame_s * self.sampling_rate), round(self.hop_s * self.sampling_rate)
        fft = 1 << (frame - 1).bit_length()
        padded = np.pad(waveform, frame // 2, mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(padded, frame)[::hop]
        spectrum = scipy.fft.rfft(frames * scipy.signal.get_window("hann", frame).astype(np.float32), n=fft)
        power = np.square(np.abs(spectrum)) @ reference_mel_filters(fft, self.sampling_rate, self.feature_size)
        reference = _REFERENCE_RATE / self.sampling_rate
        return (np.log10(1.0 + 10000.0 * reference**2 * power) / _SCALE).astype(np.float32)


@lru_cache(maxsize=4)
def reference_mel_filters(fft_length: int, sampling_rate: int, num_bands: int) -> np.ndarray:
    """
    Mel bands (HTK scale) from 0 to 22,050 Hz on the bins of any sampling rate, in Hz.

    Returns:
        `np.ndarray` of shape `(fft_length // 2 + 1, num_bands)`: every band's weights sum to 1 over its bins, with
        those that this rate does not have.
    """
    # Bins as far up as the reference has them, so that bands keep their place; then those that exist.
    top = _REFERENCE_RATE / 2
    num_bins = int(top / sampling_rate * fft_length) + 2
    filters = mel_filter_bank(
        num_frequency_bins=num_bins,
        num_mel_filters=num_bands,
        min_frequency=0.0,
        max_frequency=top,
        sampling_rate=round(2 * (num_bins - 1) * sampling_rate / fft_length),
        norm=None,
        mel_scale="htk",
    )
    filters = filters / np.maximum(filters.sum(axis=0, keepdims=True), 1e-8)
    # Above 44.1 kHz, bins that are in no band.
    filters = np.pad(filters, ((0, max(fft_length // 2 + 1 - num_bins, 0)), (0, 0)))
    return filters[: fft_length // 2 + 1].astype(np.float32)


class SoundEffectsConfig(PretrainedConfig):
    """
    Configuration of [`SoundEffectsEncoder`].

    Args:
        hidden_sizes (`Sequence[int]`, defaults to `(64, 128, 256, 512)`): Channels of the blocks.
    """

    model_type = "sound_effects_cnn"

    def __init__(self, hidden_sizes: Sequence[int] = (64, 128, 256, 512), **kwargs: Any) -> None:
        self.hidden_sizes = list(hidden_sizes)
        super().__init__(**kwargs)


class SoundEffectsEncoder(PreTrainedModel):
    """
    The VGG-like encoder of "Representation Learning for the Automatic Indexing of Sound Effects Libraries" (Ma and
    Lerch, ISMIR 2022), up to its last map: blocks of two convolutions with batch norm, halved after all but the last.
    """

    config_class = SoundEffectsConfig
    base_model_prefix = "sound_effects"
    main_input_name = "input_features"

    def __init__(self, config: SoundEffectsConfig) -> None:
        super().__init__(config)
        sizes = [1, *config.hidden_sizes]
        self.blocks = nn.ModuleList([SoundEffectsBlock(*pair) for pair in pairwise(sizes)])
        self.post_init()

    def forward(self, input_features: torch.Tensor, return_dict: bool = True) -> BaseModelOutput | tuple:
        """
        Args:
            input_features (`torch.Tensor` of shape `(batch, frames, bands)`): Of [`SoundEffectsFeatureExtractor`].
            return_dict (`bool`, defaults to `True`): Whether to return an output object or a tuple.

        Returns:
            `last_hidden_state` of shape `(batch, channels, bands / 8, frames / 8)` with four blocks.
        """
        # (batch, 1, bands, frames), with strides of channels last: convolutions on a CPU are several times faster so.
        hidden_states = input_features.transpose(1, 2).contiguous()[..., None].permute(0, 3, 1, 2)
        for number, block in enumerate(self.blocks):
            hidden_states = block(hidden_states)
            if number < len(self.blocks) - 1:
                hidden_states = nn.functional.max_pool2d(hidden_states, 2)
        return BaseModelOutput(hidden_states) if return_dict else (hidden_states,)


class SoundEffectsBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = nn.functional.relu(self.norm1(self.conv1(hidden_states)))
        return nn.functional.relu(self.norm2(self.conv2(hidden_states)))


AutoConfig.register(SoundEffectsConfig.model_type, SoundEffectsConfig, exist_ok=True)
AutoModel.register(SoundEffectsConfig, SoundEffectsEncoder, exist_ok=True)
AutoFeatureExtractor.register(SoundEffectsConfig, SoundEffectsFeatureExtractor, exist_ok=True)
