"""Assembling a pipeline from public parts: audio encoders by name, and a separator that fits them."""

import math
import os
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, ModelMixin, SchedulerMixin, UNet2DConditionModel
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    ClapAudioModel,
    FeatureExtractionMixin,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import cached_file
from typing_extensions import Self

from ..models.encoder_adapters import token_layout
from ..models.separator import AudioVisualSeparator
from ..models.whisper import WhisperAudioEncoder
from .folders import check_component, read_components
from .model_weights import check_components, check_loading_info
from .sounds import VGGSOUND_LABELS
from .weight_files import check_index, check_weight_files


# Frame of the masks' spectrogram: long enough to tell partials apart, short enough for onsets.
_FRAME_S = 0.064
# What is taken of a Stable Diffusion checkpoint.
_BASE = {
    "vae": (ModelMixin,),
    "unet": (UNet2DConditionModel,),
    "scheduler": (SchedulerMixin,),
    "text_encoder": (PreTrainedModel,),
    "tokenizer": (PreTrainedTokenizerBase,),
}
# Masks audio while Wav2Vec2 and its kin are trained; published checkpoints lack it.
_ONLY_TRAINING = ("masked_spec_embed",)


class FromPartsMixin:
    """The pipeline's `from_stable_diffusion`."""

    @classmethod
    def from_stable_diffusion(
        cls,
        pretrained_model_name_or_pipe: str | DiffusionPipeline,
        audio_encoder: str | PreTrainedModel,
        audio_feature_extractor: FeatureExtractionMixin | None = None,
        separator: AudioVisualSeparator | None = None,
        use_text_encoder: bool = False,
        dtype: torch.dtype | None = None,
        **separator_kwargs: Any,
    ) -> Self:
        r"""
        Assemble a pipeline from public parts: a trained Stable Diffusion 1.x/2.x U-Net, VAE and scheduler, a trained
        audio encoder, and an untrained separator between them, ready for training.

        Args:
            pretrained_model_name_or_pipe (`str` or [`DiffusionPipeline`]):
                A Stable Diffusion checkpoint (Hub repository or folder), or a loaded pipeline.
            audio_encoder (`str` or [`~transformers.PreTrainedModel`]):
                An audio encoder (Hub repository or folder; of a CLAP or Whisper model the audio side is taken), or a
                loaded one.
            audio_feature_extractor ([`~transformers.FeatureExtractionMixin`], *optional*):
                Its feature extractor; needed if the audio encoder is a loaded model.
            separator ([`AudioVisualSeparator`], *optional*):
                A separator to use instead of a new one.
            use_text_encoder (`bool`, defaults to `False`):
                Whether to keep the text encoder and tokenizer, for `prompt`.
            dtype (`torch.dtype`, *optional*):
                Data type of what is loaded; float32 if not given.
            separator_kwargs (`dict`, *optional*):
                Configuration of the new [`AudioVisualSeparator`], such as `num_slots`, `num_layers` or `id2label`
                (VGGSound's 309 labels if not given); what follows from the other parts is filled in.

        Raises:
            ValueError: If a loaded audio encoder comes without feature extractor, the parts do not fit, or weights are
                missing, damaged or pickled.
        """
        if isinstance(pretrained_model_name_or_pipe, DiffusionPipeline):
            if dtype is not None:
                raise ValueError("`dtype` is for what is loaded; convert a loaded pipeline with `.to(dtype)`.")
            base = pretrained_model_name_or_pipe
        else:
            base = load_base(pretrained_model_name_or_pipe, dtype or torch.float32)
        audio_encoder, audio_feature_extractor = load_audio_encoder(audio_encoder, audio_feature_extractor, dtype)
        if separator is None:
            separator = build_separator(audio_encoder, audio_feature_extractor, base.unet, **separator_kwargs)
            if separator.dtype != base.unet.dtype:
                separator = separator.to(dtype=base.unet.dtype)
        elif separator_kwargs:
            raise ValueError(f"{sorted(separator_kwargs)} configure a new separator, but `separator` is given.")
        check_parts(base.unet, base.vae, separator)
        return cls(
            vae=base.vae,
            unet=base.unet,
            scheduler=base.scheduler,
            audio_encoder=audio_encoder,
            audio_feature_extractor=audio_feature_extractor,
            separator=separator,
            text_encoder=base.text_encoder if use_text_encoder else None,
            tokenizer=base.tokenizer if use_text_encoder else None,
        )


def load_base(name: str, dtype: torch.dtype) -> DiffusionPipeline:
    """Load a Stable Diffusion pipeline from a folder or from the Hub, once its weights are found to be its models'."""
    options = {"use_safetensors": True, "safety_checker": None}
    folder = Path(name if os.path.isdir(name) else DiffusionPipeline.download(name, **options))
    for component, (library, _) in read_components(folder / "model_index.json").items():
        if component in _BASE and library is not None:
            check_component(folder, component)
    check_components(folder, _BASE)
    return DiffusionPipeline.from_pretrained(folder, dtype=dtype, **options)


def load_audio_encoder(
    audio_encoder: str | PreTrainedModel,
    feature_extractor: FeatureExtractionMixin | None,
    dtype: torch.dtype | None,
) -> tuple[PreTrainedModel, FeatureExtractionMixin]:
    """Load an audio encoder and its feature extractor by name, and take the audio side of CLAP and Whisper models."""
    if isinstance(audio_encoder, str):
        if feature_extractor is None:
            try:
                feature_extractor = AutoFeatureExtractor.from_pretrained(audio_encoder)
            except (OSError, ValueError) as error:
                raise ValueError(
                    f"{audio_encoder}: has no audio feature extractor; pass `audio_feature_extractor`."
                ) from error
        architectures = AutoConfig.from_pretrained(audio_encoder).architectures or []
        # AutoModel knows neither of these audio sides by itself.
        by_name = {"ClapAudioModel": ClapAudioModel, "WhisperAudioEncoder": WhisperAudioEncoder}
        loader = next((by_name[name] for name in architectures if name in by_name), AutoModel)
        _check_encoder_files(audio_encoder)
        model, info = loader.from_pretrained(
            audio_encoder,
            # Without one, transformers' models would have the files' own type.
            dtype=dtype or torch.float32,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
        # Heads are left out.
        check_loading_info(audio_encoder, {**info, "unexpected_keys": ()}, allowed=_ONLY_TRAINING)
        audio_encoder = model
    if feature_extractor is None:
        raise ValueError("`audio_feature_extractor` is needed with a loaded `audio_encoder`.")
    if audio_encoder.config.model_type == "clap":
        audio_encoder = audio_encoder.audio_model
    elif audio_encoder.config.model_type == "whisper" and not isinstance(audio_encoder, WhisperAudioEncoder):
        encoder = WhisperAudioEncoder(audio_encoder.config).to(audio_encoder.dtype)
        encoder.load_state_dict(audio_encoder.get_encoder().state_dict())
        audio_encoder = encoder.eval()
    return audio_encoder, feature_extractor


def _check_encoder_files(name: str) -> None:
    """Raises `ValueError` if an audio encoder's weights would not be read from safetensors files of its own."""
    if os.path.isdir(name):
        check_weight_files(Path(name))
        return
    options = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    index = cached_file(name, "model.safetensors.index.json", **options)
    if index is not None:
        check_index(Path(index), {})


def check_parts(unet: UNet2DConditionModel, vae: ModelMixin, separator: ModelMixin) -> None:
    """Raises `ValueError` unless U-Net, VAE and separator make a pipeline together."""
    if unet.config.addition_embed_type is not None:
        raise ValueError(
            "The U-Net needs more than condition tokens (Stable Diffusion XL?); use an SD 1.x or 2.x one."
        )
    if unet.config.in_channels != vae.config.latent_channels:
        raise ValueError(
            f"The U-Net takes {unet.config.in_channels} channels, but the VAE has {vae.config.latent_channels} (an"
            " inpainting U-Net?)."
        )
    if separator.config.cross_attention_dim != unet.config.cross_attention_dim:
        raise ValueError(
            f"The separator's condition tokens are {separator.config.cross_attention_dim} wide, but the U-Net's"
            f" `cross_attention_dim` is {unet.config.cross_attention_dim}."
        )


def build_separator(
    audio_encoder: PreTrainedModel,
    feature_extractor: FeatureExtractionMixin,
    unet: UNet2DConditionModel,
    **separator_kwargs: Any,
) -> AudioVisualSeparator:
    """
    An untrained [`AudioVisualSeparator`] between an audio encoder and a U-Net.

    Widths and token layout follow from the two models, the masks' frame from the sampling rate (64 ms, a quarter of
    it from frame to frame), and the labels default to VGGSound's. `separator_kwargs` override all of it.
    """
    n_fft = 2 ** round(math.log2(_FRAME_S * feature_extractor.sampling_rate))
    defaults = {
        **token_layout(audio_encoder),
        "cross_attention_dim": unet.config.cross_attention_dim,
        "n_fft": n_fft,
        "hop_length": n_fft // 4,
    }
    if "num_labels" not in separator_kwargs:
        defaults["id2label"] = dict(enumerate(VGGSOUND_LABELS))
    return AudioVisualSeparator(**{**defaults, **separator_kwargs}).eval()
