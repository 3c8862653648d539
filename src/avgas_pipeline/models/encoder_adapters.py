"""Between waveform windows and audio tokens: what each family of feature extractors and encoders wants."""

import inspect
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, FeatureExtractionMixin, PreTrainedModel

from ..audio.windows import Window


# Encoders of raw waveforms (Wav2Vec2 and its kin) have no window of their own.
DEFAULT_WINDOW_S = 10.0
# Shorter pieces are padded: a feature extractor's frame has to fit.
_MIN_DURATION_S = 0.1


def window_length(feature_extractor: FeatureExtractionMixin) -> int:
    """Samples in the window a feature extractor was made for, at its `sampling_rate`."""
    for attribute in ("n_samples", "nb_max_samples"):
        if hasattr(feature_extractor, attribute):
            return int(getattr(feature_extractor, attribute))
    if hasattr(feature_extractor, "max_length"):
        # AST counts its window in frames of 10 ms.
        return int(feature_extractor.max_length * feature_extractor.sampling_rate // 100)
    return int(DEFAULT_WINDOW_S * feature_extractor.sampling_rate)


def encoder_inputs(
    feature_extractor: FeatureExtractionMixin,
    audio_encoder: PreTrainedModel,
    windows: list[Window],
    device: torch.device | None = None,
) -> dict[str, torch.Tensor]:
    """
    The audio encoder's keyword arguments for a batch of windows.

    They are on the CPU, but computed on a `device` where the feature extractor can use one (Whisper, YAMNet).

    Padding is left to the feature extractor, in the way its encoder was trained with. Encoders of pictures
    (`pixel_values`, such as a ResNet) get the spectrogram as one of shape `(batch, num_channels, frequency, time)`.
    """
    sampling_rate = feature_extractor.sampling_rate
    shortest = int(_MIN_DURATION_S * sampling_rate)
    pieces = [window.samples[: max(window.num_valid, shortest)] for window in windows]
    options: dict[str, Any] = {}
    if not any(hasattr(feature_extractor, name) for name in ("n_samples", "nb_max_samples", "max_length")):
        # Some count lengths in samples, others in frames: beside a whole window, all are padded to one.
        options = {"padding": True}
        pieces.append(np.zeros(window_length(feature_extractor), np.float32))
    if device is not None and "device" in inspect.signature(feature_extractor.__call__).parameters:
        options["device"] = str(device)
    features = feature_extractor(pieces, sampling_rate=sampling_rate, return_tensors="pt", **options)
    features = BatchFeature({name: values[: len(windows)] for name, values in features.items()})

    name = feature_extractor.model_input_names[0]
    values = features[name]
    main_input_name = audio_encoder.main_input_name
    inputs = {main_input_name: values}
    if main_input_name == "pixel_values":
        inputs[main_input_name] = _spectrogram_picture(values, feature_extractor, audio_encoder.config.num_channels)
    inputs.update(_extra_inputs(features, audio_encoder))
    return inputs


def _extra_inputs(features: BatchFeature, audio_encoder: PreTrainedModel) -> dict[str, torch.Tensor]:
    offered = [name for name in ("is_longer", "attention_mask") if name in features]
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


def token_layout(audio_encoder: PreTrainedModel) -> dict[str, int]:
    """
    How an encoder lays out its `last_hidden_state`, as keyword arguments of [`AudioVisualSeparator`]: `audio_dim`,
    `num_prefix_tokens` and `num_frequency_patches`.
    """
    config = audio_encoder.config
    if config.model_type == "audio-spectrogram-transformer":
        rows = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
        return {"audio_dim": config.hidden_size, "num_prefix_tokens": 2, "num_frequency_patches": rows}
    if config.model_type == "clap_audio_model":
        return {"audio_dim": config.patch_embeds_hidden_size * 2 ** (len(config.depths) - 1)}
    if hasattr(config, "hidden_sizes"):
        return {"audio_dim": config.hidden_sizes[-1]}
    width = getattr(config, "d_model", None) or getattr(config, "hidden_size", None)
    if width is None:
        raise ValueError(
            f"Can't tell the width of {type(audio_encoder).__name__}'s hidden state; make the separator with"
            " `AudioVisualSeparator(audio_dim=...)` and pass it as `separator`."
        )
    return {"audio_dim": width}
