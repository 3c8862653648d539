"""YAMNet, a small audio encoder pretrained on AudioSet, and its log-mel front end."""

from collections.abc import Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    BatchFeature,
    MobileNetV1Config,
    MobileNetV1Model,
    SequenceFeatureExtractor,
)
from transformers.audio_utils import mel_filter_bank
from transformers.modeling_outputs import BaseModelOutput


# What the front end adds to the bands before the logarithm.
_LOG_OFFSET = 0.001
# The share of a batch in the running statistics.
_BATCH_NORM_MOMENTUM = 0.01
# The last layer before the map is halved for the fifth time.
_FINE_LAYER = 21
# Frames of the last map in the 0.96 s that YAMNet was trained on.
_TAG_FRAMES = 3


class YamnetFeatureExtractor(SequenceFeatureExtractor):
    """
    YAMNet's log-mel spectrograms: the magnitude of 25 ms Hann frames every 10 ms, in mel bands (HTK scale, triangles
    on that scale) from 125 to 7,500 Hz, as log(x + 0.001).

    Args:
        feature_size (`int`, defaults to 64): Mel bands.
        sampling_rate (`int`, defaults to 16000): Of the audio, in Hz.
        padding_value (`float`, defaults to 0.0): Of padded samples.
        window_s (`float`, defaults to 5.0): Length of a window; shorter audio is padded, longer audio cut.
        frame_s (`float`, defaults to 0.025): Length of a frame.
        hop_s (`float`, defaults to 0.01): Distance between frames.
    """

    model_input_names = ["input_features"]  # noqa: RUF012

    def __init__(
        self,
        feature_size: int = 64,
        sampling_rate: int = 16000,
        padding_value: float = 0.0,
        window_s: float = 5.0,
        frame_s: float = 0.025,
        hop_s: float = 0.01,
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
        device: str = "cpu",
        **kwargs: Any,
    ) -> BatchFeature:
        """
        Args:
            raw_speech (`np.ndarray` of shape `(samples,)`, or a list of these): Mono audio in [-1, 1].
            sampling_rate (`int`, *optional*): Its rate, to check.
            return_tensors (`str`, *optional*): `"pt"` or `"np"`.
            device (`str`, defaults to `"cpu"`): Where spectrograms are computed; they are returned on the CPU.

        Returns:
            `BatchFeature` with `input_features` of shape `(batch, frames, feature_size)`.

        Raises:
            ValueError: If `sampling_rate` is not the extractor's.
        """
        if sampling_rate not in (None, self.sampling_rate):
            raise ValueError(f"The audio is at {sampling_rate} Hz, but has to be at {self.sampling_rate} Hz.")
        waveforms = [raw_speech] if isinstance(raw_speech, np.ndarray) and raw_speech.ndim == 1 else raw_speech
        features = self._features([np.asarray(waveform, dtype=np.float32) for waveform in waveforms], device)
        return BatchFeature({"input_features": features}, tensor_type=return_tensors)

    def _features(self, waveforms: Sequence[np.ndarray], device: str) -> np.ndarray:
        kind = torch.device(device).type
        with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
            return self._log_mel(waveforms, device)

    def _log_mel(self, waveforms: Sequence[np.ndarray], device: str) -> np.ndarray:
        frame, hop = round(self.frame_s * self.sampling_rate), round(self.hop_s * self.sampling_rate)
        # As many frames as hops: the last ones reach into the padding.
        padded = np.full((len(waveforms), self.n_samples + frame - hop), self.padding_value, dtype=np.float32)
        for row, waveform in zip(padded, waveforms, strict=True):
            row[: min(len(waveform), self.n_samples)] = waveform[: self.n_samples]
        window = torch.hann_window(frame, dtype=torch.float32, device=device)
        frames = torch.from_numpy(padded).to(device).unfold(-1, frame, hop) * window
        fft = 1 << (frame - 1).bit_length()
        # In PyTorch, as NumPy's threads would go on spinning beside the models'.
        spectrum = torch.fft.rfft(frames, n=fft)
        # `abs()` is slower; checkpoints that carry this file do not have `spectrogram.power` beside it.
        magnitude = spectrum.real.square().add_(spectrum.imag.square()).sqrt_()
        bands = magnitude @ _mel_filters(fft, self.sampling_rate, self.feature_size).to(device)
        return bands.add(_LOG_OFFSET).log().cpu().numpy()


@lru_cache(maxsize=4)
def _mel_filters(fft_length: int, sampling_rate: int, num_bands: int) -> torch.Tensor:
    """Triangles of height 1, `(fft_length // 2 + 1, num_bands)`."""
    filters = mel_filter_bank(
        num_frequency_bins=fft_length // 2 + 1,
        num_mel_filters=num_bands,
        min_frequency=125.0,
        max_frequency=7500.0,
        sampling_rate=sampling_rate,
        norm=None,
        mel_scale="kaldi",
        triangularize_in_mel_space=True,
    )
    return torch.from_numpy(filters).float()


class YamnetConfig(MobileNetV1Config):
    """
    Configuration of [`YamnetEncoder`]: transformers' `MobileNetV1Config` with YAMNet's defaults.

    Args:
        num_channels (`int`, defaults to 1): Spectrograms are pictures of one channel.
        hidden_act (`str`, defaults to `"relu"`): Activation.
        layer_norm_eps (`float`, defaults to 1e-4): Of the batch norms.
        num_tagger_layers (`int`, defaults to 0): How many of the last layers are there twice: once to be trained
            further, once as they were, with YAMNet's classifier, whose names `id2label` has. 0 leaves the classifier
            out.
    """

    model_type = "yamnet"

    def __init__(
        self,
        num_channels: int = 1,
        hidden_act: str = "relu",
        layer_norm_eps: float = 1e-4,
        num_tagger_layers: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_channels=num_channels, hidden_act=hidden_act, layer_norm_eps=layer_norm_eps, **kwargs)
        self.num_tagger_layers = num_tagger_layers

    @property
    def hidden_size(self) -> int:
        """Channels of the last hidden state."""
        return sum(max(int(width * self.depth_multiplier), self.min_depth) for width in (1024, 512))


@dataclass
class YamnetOutput(BaseModelOutput):
    """
    What [`YamnetEncoder`] says of B windows.

    Args:
        last_hidden_state (`torch.Tensor` of shape `(B, 1536, bands / 16, frames / 16)`): Tokens.
        tag_logits (`torch.Tensor` of shape `(B, frames / 32, num_labels)`, *optional*): Of YAMNet's own classifier,
            each over 0.96 s; `None` without it.
    """

    tag_logits: torch.Tensor | None = None


class YamnetEncoder(MobileNetV1Model):
    """
    YAMNet (M. Plakal and D. Ellis, TensorFlow model garden), a MobileNet (arXiv 1704.04861) that was trained on
    AudioSet, over a whole window instead of pieces of 0.96 s.

    Its last map says what sounds, but only every 0.32 s and in two bands; so the map before that is halved for the
    last time stands beside it.

    With `num_tagger_layers` it keeps its own classifier, and of its last layers those that the classifier was made
    for, so that the others can be trained further.
    """

    config_class = YamnetConfig
    base_model_prefix = "yamnet"

    def __init__(self, config: YamnetConfig) -> None:
        super().__init__(config, add_pooling_layer=False)
        for module in self.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                # transformers gives TensorFlow's 0.9997, which here would keep no more than the last batch.
                module.momentum = _BATCH_NORM_MOMENTUM
        self.tagger_layers = self.tagger = None
        if config.num_tagger_layers:
            self.tagger_layers = deepcopy(self.layer[-config.num_tagger_layers :])
            self.tagger = torch.nn.Linear(self.layer[-1].convolution.out_channels, config.num_labels)
            self.post_init()

    def forward(
        self, pixel_values: torch.Tensor, num_tagged: int | None = None, return_dict: bool = True
    ) -> YamnetOutput | tuple:
        """
        Args:
            pixel_values (`torch.Tensor` of shape `(batch, 1, bands, frames)`): Of [`YamnetFeatureExtractor`].
            num_tagged (`int`, *optional*): How many of the batch, from the first on, the classifier is asked about;
                all if not given.
            return_dict (`bool`, defaults to `True`): Whether to return an output object or a tuple.

        Returns:
            [`YamnetOutput`], or a tuple of its values that are not `None`.
        """
        # One channel, with strides of channels last: convolutions on a CPU are faster so.
        hidden_states = self.conv_stem(pixel_values[:, 0].contiguous()[..., None].permute(0, 3, 1, 2))
        first_of_tagger = len(self.layer) - self.config.num_tagger_layers
        for number, layer in enumerate(self.layer):
            if number == first_of_tagger:
                shared = hidden_states
            hidden_states = layer(hidden_states)
            if number == _FINE_LAYER:
                fine = hidden_states
        tag_logits = None if self.tagger is None or num_tagged == 0 else self._tag(shared[:num_tagged])
        coarse = torch.nn.functional.interpolate(hidden_states, size=fine.shape[-2:], mode="nearest")
        hidden_states = torch.cat([coarse, fine], dim=1)
        output = YamnetOutput(hidden_states, tag_logits=tag_logits)
        return output if return_dict else output.to_tuple()

    def _tag(self, hidden_states: torch.Tensor) -> torch.Tensor:
        for layer in self.tagger_layers:
            hidden_states = layer(hidden_states)
        frames = hidden_states.mean(dim=2)
        padding = _TAG_FRAMES // 2
        frames = torch.nn.functional.avg_pool1d(frames, _TAG_FRAMES, 1, padding, count_include_pad=False)
        return self.tagger(frames.transpose(1, 2))


AutoConfig.register(YamnetConfig.model_type, YamnetConfig, exist_ok=True)
AutoModel.register(YamnetConfig, YamnetEncoder, exist_ok=True)
AutoFeatureExtractor.register(YamnetConfig, YamnetFeatureExtractor, exist_ok=True)
