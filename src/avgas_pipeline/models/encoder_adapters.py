"""
Between waveform windows and audio tokens: what each family of feature extractors and audio encoders wants.

What differs from family to family stands in two tables: [`WINDOW_LENGTHS`] for feature extractors and
[`ENCODER_FAMILIES`] for encoders. An encoder that none of their lines fits needs a line here.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, FeatureExtractionMixin, PretrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from ..audio.windows import Window


# By the attribute that a family's feature extractors have: samples in the window they were made for.
WINDOW_LENGTHS: dict[str, Callable[[FeatureExtractionMixin], float]] = {
    # Whisper, YAMNet
    "n_samples": lambda extractor: extractor.n_samples,
    # CLAP
    "nb_max_samples": lambda extractor: extractor.nb_max_samples,
    # AST counts frames of 10 ms.
    "max_length": lambda extractor: extractor.max_length * extractor.sampling_rate // 100,
}
# Those of raw waveforms (Wav2Vec2 and its kin) have no window of their own.
DEFAULT_WINDOW_S = 10.0
# Shorter pieces are padded: a feature extractor's frame has to fit.
_MIN_DURATION_S = 0.1


@dataclass(frozen=True)
class EncoderFamily:
    """
    How a family of audio encoders is used.

    Attributes:
        token_layout (`Callable`): From its configuration to the arguments `audio_dim`, `num_prefix_tokens` and
            `num_frequency_patches` of [`AudioVisualSeparator`], as far as they differ from its defaults.
        extra_inputs (`tuple[str, ...]`): What it may take of the feature extractor's output beside its main input.
        read_tokens (`Callable`): From its output to audio tokens, `(B, tokens, audio_dim)` with the grid in
            frequency-major order, or `(B, audio_dim, frequency, time)`.
    """

    token_layout: Callable[[PretrainedConfig], dict[str, int]]
    extra_inputs: tuple[str, ...] = ("attention_mask",)
    read_tokens: Callable[[ModelOutput], torch.Tensor] = attrgetter("last_hidden_state")


def _ast_layout(config: PretrainedConfig) -> dict[str, int]:
    rows = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
    return {"audio_dim": config.hidden_size, "num_prefix_tokens": 2, "num_frequency_patches": rows}


def _transformer_layout(config: PretrainedConfig) -> dict[str, int]:
    width = getattr(config, "d_model", None) or getattr(config, "hidden_size", None)
    if width is None:
        raise ValueError(
            f"Can't tell the width of the hidden state of {config.model_type!r} encoders; make the separator with"
            " `AudioVisualSeparator(audio_dim=...)` and pass it as `separator`."
        )
    return {"audio_dim": width}


# By `config.model_type`.
ENCODER_FAMILIES = {
    "audio-spectrogram-transformer": EncoderFamily(_ast_layout),
    "clap_audio_model": EncoderFamily(
        lambda config: {"audio_dim": config.patch_embeds_hidden_size * 2 ** (len(config.depths) - 1)}, ("is_longer",)
    ),
}
# All others: ResNet, YAMNet and other stacks of convolutions; Whisper, Wav2Vec2 and their kin.
CONVOLUTIONS = EncoderFamily(lambda config: {"audio_dim": config.hidden_sizes[-1]})
TRANSFORMERS = EncoderFamily(_transformer_layout)


def encoder_family(config: PretrainedConfig) -> EncoderFamily:
    """The family of an audio encoder, by its configuration."""
    others = CONVOLUTIONS if hasattr(config, "hidden_sizes") else TRANSFORMERS
    return ENCODER_FAMILIES.get(config.model_type, others)


def token_layout(audio_encoder: PreTrainedModel) -> dict[str, int]:
    """
    How an encoder lays out its `last_hidden_state`, as keyword arguments of [`AudioVisualSeparator`]: `audio_dim`,
    `num_prefix_tokens` and `num_frequency_patches`.

    Raises:
        ValueError: If its configuration does not say how wide it is.
    """
    return encoder_family(audio_encoder.config).token_layout(audio_encoder.config)


def window_length(feature_extractor: FeatureExtractionMixin) -> int:
    """
    Samples in the window a feature extractor was made for, at its `sampling_rate`.

    Raises:
        ValueError: If its configuration does not say.
    """
    for attribute, length in WINDOW_LENGTHS.items():
        # A property may be computed of what is not there.
        try:
            if hasattr(feature_extractor, attribute):
                return int(length(feature_extractor))
        except TypeError:
            kind = type(feature_extractor).__name__
            raise ValueError(f"{kind}: its configuration has no `{attribute}`, the length of a window.") from None
    return int(DEFAULT_WINDOW_S * feature_extractor.sampling_rate)


def encoder_inputs(
    feature_extractor: FeatureExtractionMixin, audio_encoder: PreTrainedModel, windows: list[Window]
) -> dict[str, torch.Tensor]:
    """
    The audio encoder's keyword arguments for a batch of windows, at their gain, on the CPU.

    Padding is left to the feature extractor, in the way its encoder was trained with. Encoders of pictures
    (`pixel_values`, such as a ResNet) get the spectrogram as one of shape `(batch, num_channels, frequency, time)`.
    """
    sampling_rate = feature_extractor.sampling_rate
    shortest = int(_MIN_DURATION_S * sampling_rate)
    pieces = [np.float32(window.gain) * window.samples[: max(window.num_valid, shortest)] for window in windows]
    options: dict[str, Any] = {}
    if not any(hasattr(feature_extractor, attribute) for attribute in WINDOW_LENGTHS):
        # Some count lengths in samples, others in frames: beside a whole window, all are padded to one.
        options = {"padding": True}
        pieces.append(np.zeros(window_length(feature_extractor), np.float32))
    features = feature_extractor(pieces, sampling_rate=sampling_rate, return_tensors="pt", **options)
    features = BatchFeature({name: values[: len(windows)] for name, values in features.items()})

    values = features[feature_extractor.model_input_names[0]]
    if audio_encoder.main_input_name == "pixel_values":
        values = _spectrogram_picture(values, feature_extractor, audio_encoder.config.num_channels)
    return {audio_encoder.main_input_name: values, **_extra_inputs(features, audio_encoder)}


def audio_tokens(
    audio_encoder: PreTrainedModel, inputs: dict[str, torch.Tensor], num_tagged: int | None = None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """
    What the separator takes of an encoder, for inputs as of [`encoder_inputs`], on the encoder's device: its tokens,
    and the logits `(batch, frames, tags)` of its own audio classifier, if it has one, or of the first `num_tagged`.
    """
    options = {"num_tagged": num_tagged} if getattr(audio_encoder.config, "num_tagger_layers", 0) else {}
    output = audio_encoder(**inputs, **options)
    return encoder_family(audio_encoder.config).read_tokens(output), getattr(output, "tag_logits", None)


def _extra_inputs(features: BatchFeature, audio_encoder: PreTrainedModel) -> dict[str, torch.Tensor]:
    offered = [name for name in encoder_family(audio_encoder.config).extra_inputs if name in features]
    if not offered:
        return {}
    accepted = inspect.signature(audio_encoder.forward).parameters
    extra = {name: features[name] for name in offered if name in accepted}
    if "is_longer" in extra:
        # CLAP's extractor marks a random clip of a batch as longer when none is; windows never are.
        extra["is_longer"] = torch.zeros_like(torch.as_tensor(extra["is_longer"]), dtype=torch.bool)
    return extra


def _spectrogram_picture(
    values: torch.Tensor, feature_extractor: FeatureExtractionMixin, num_channels: int
) -> torch.Tensor:
    num_bands = getattr(feature_extractor, "num_mel_bins", feature_extractor.feature_size)
    if values.shape[-1] == num_bands:
        values = values.transpose(-1, -2)
    if values.ndim == 3:
        values = values[:, None]
    return values.expand(-1, num_channels, -1, -1) if values.shape[1] == 1 else values
