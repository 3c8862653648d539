"""Assembling a pipeline from public parts: audio encoders by name, and a separator that fits them."""

import inspect
import math
import os
from copy import deepcopy
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

from ..models.added_conditions import pooled_dim
from ..models.encoder_adapters import token_layout
from ..models.latent_scale import needs_float32
from ..models.separator import AudioVisualSeparator
from ..models.whisper import WhisperAudioEncoder
from .base_phrases import with_phrases_of
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
    "text_encoder_2": (PreTrainedModel,),
    "tokenizer_2": (PreTrainedTokenizerBase,),
}
# Masks audio while Wav2Vec2 and its kin are trained; published checkpoints lack it.
_ONLY_TRAINING = ("masked_spec_embed",)


class FromPartsMixin:
    """The pipeline's `from_stable_diffusion`."""

    @classmethod
    def from_stable_diffusion(
        cls,
        pretrained_model_name_or_pipe: str | DiffusionPipeline,
        audio_encoder: str | PreTrainedModel | None = None,
        audio_feature_extractor: FeatureExtractionMixin | None = None,
        separator: AudioVisualSeparator | None = None,
        use_text_encoder: bool = False,
        dtype: torch.dtype | None = None,
        audio_checkpoint: str | DiffusionPipeline | None = None,
        **separator_kwargs: Any,
    ) -> Self:
        r"""
        Assemble a pipeline from public parts: the trained U-Net, VAE and scheduler of Stable Diffusion 1.x, 2.x or XL,
        and what hears.

        With `audio_checkpoint` that is all of the audio half of a trained pipeline. A source is then drawn at once,
        without training, as the base draws the phrase of its label ([`~.loaders.phrases`]), two sources as their
        phrases side by side; training goes on from there. With `audio_encoder` it is a trained audio encoder, and an
        untrained separator.

        Args:
            pretrained_model_name_or_pipe (`str` or [`DiffusionPipeline`]):
                A Stable Diffusion checkpoint (Hub repository or folder), or a loaded pipeline.
            audio_encoder (`str` or [`~transformers.PreTrainedModel`], *optional*):
                An audio encoder (Hub repository or folder; of a CLAP or Whisper model the audio side is taken), or a
                loaded one.
            audio_feature_extractor ([`~transformers.FeatureExtractionMixin`], *optional*):
                Its feature extractor; needed if the audio encoder is a loaded model.
            separator ([`AudioVisualSeparator`], *optional*):
                A separator to use instead of a new one.
            use_text_encoder (`bool`, defaults to `False`):
                Whether to keep the text encoder and tokenizer, for `prompt`.
            dtype (`torch.dtype`, *optional*):
                Data type of what is loaded; float32 if not given. In float16, Stable Diffusion XL's autoencoder stays
                in float32 where its configuration says `force_upcast`.
            audio_checkpoint (`str` or [`AVGASPipeline`], *optional*):
                A trained pipeline, such as `"avgas-mini"`, instead of `audio_encoder`, `audio_feature_extractor` and
                `separator`: its name, folder or Hub repository, or a loaded one.
            separator_kwargs (`dict`, *optional*):
                Configuration of the new [`AudioVisualSeparator`], such as `num_slots`, `num_layers` or `id2label`
                (VGGSound's 309 labels if not given); what follows from the other parts is filled in.

        Raises:
            ValueError: If neither or both of `audio_encoder` and `audio_checkpoint` are given, a loaded audio encoder
                comes without feature extractor, the parts do not fit, or weights are missing, damaged or pickled.
        """
        if (audio_encoder is None) == (audio_checkpoint is None):
            raise ValueError("Pass exactly one of `audio_encoder` and `audio_checkpoint`.")
        if isinstance(pretrained_model_name_or_pipe, DiffusionPipeline):
            if dtype is not None:
                raise ValueError("`dtype` is for what is loaded; convert a loaded pipeline with `.to(dtype)`.")
            base = pretrained_model_name_or_pipe
        else:
            base = load_base(pretrained_model_name_or_pipe, dtype or torch.float32)
        text = {
            name: getattr(base, name, None) if use_text_encoder else None for name in ("text_encoder", "tokenizer")
        }
        if not isinstance(getattr(base, "unet", None), UNet2DConditionModel):
            raise ValueError(f"A {type(base).__name__} is not Stable Diffusion 1.x, 2.x or XL: it has no such U-Net.")
        if use_text_encoder and pooled_dim(base.unet):
            raise ValueError("`use_text_encoder` is for Stable Diffusion 1.x and 2.x; XL's text encoders are two.")
        vae = base.vae
        if vae.dtype == torch.float16 and needs_float32(vae, base.unet):
            # The base may go on in float16.
            vae = deepcopy(vae).float()
        drawing = {"vae": vae, "unet": base.unet, "scheduler": base.scheduler, **text}
        if audio_checkpoint is not None:
            if audio_feature_extractor is not None or separator is not None or separator_kwargs:
                raise ValueError("`audio_checkpoint` brings its own feature extractor and separator.")
            return cls(**drawing, **_hearing_parts(cls, audio_checkpoint, base, dtype))
        audio_encoder, audio_feature_extractor = load_audio_encoder(audio_encoder, audio_feature_extractor, dtype)
        if separator is None:
            separator = build_separator(audio_encoder, audio_feature_extractor, base.unet, **separator_kwargs)
            if separator.dtype != base.unet.dtype:
                separator = separator.to(dtype=base.unet.dtype)
        elif separator_kwargs:
            raise ValueError(f"{sorted(separator_kwargs)} configure a new separator, but `separator` is given.")
        check_parts(base.unet, base.vae, separator)
        return cls(
            **drawing,
            audio_encoder=audio_encoder,
            audio_feature_extractor=audio_feature_extractor,
            separator=separator,
        )


def _hearing_parts(
    kind: type, audio_checkpoint: str | DiffusionPipeline, base: DiffusionPipeline, dtype: torch.dtype | None
) -> dict[str, Any]:
    """What a trained pipeline hears with, drawn as the base draws its labels' phrases, and the settings of both."""
    audio = audio_checkpoint
    if base.unet.device.type == "meta":
        raise ValueError("The base's weights are offloaded; turn offloading on for the new pipeline instead.")
    if not isinstance(audio, DiffusionPipeline):
        audio = kind.from_pretrained(audio, **({} if dtype is None else {"dtype": dtype})).to(base.device)
    if not isinstance(audio, kind) or audio.separator is None:
        raise ValueError(f"`audio_checkpoint` has to be a trained {kind.__name__}, not a {type(audio).__name__}.")
    separator = with_phrases_of(audio.separator, base)
    check_parts(base.unet, base.vae, separator)
    defaults = inspect.signature(type(base).__call__).parameters
    names = ("audio_encoder", "audio_feature_extractor", "tagger", "tagger_feature_extractor")
    return {
        **{name: getattr(audio, name) for name in names},
        "separator": separator,
        "speed_variation": audio.config.speed_variation,
        "label_threshold": audio.config.label_threshold,
        "default_num_inference_steps": defaults["num_inference_steps"].default,
        "default_guidance_scale": defaults["guidance_scale"].default,
    }


def load_base(name: str, dtype: torch.dtype) -> DiffusionPipeline:
    """Load a Stable Diffusion pipeline from a folder or from the Hub, once its weights are found to be its models'."""
    options = {"use_safetensors": True}
    folder = Path(name if os.path.isdir(name) else DiffusionPipeline.download(name, safety_checker=None, **options))
    components = read_components(folder / "model_index.json")
    for component, (library, _) in components.items():
        if component in _BASE and library is not None:
            check_component(folder, component)
    check_components(folder, _BASE)
    if "safety_checker" in components:
        options["safety_checker"] = None
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
    if unet.config.addition_embed_type not in (None, "text_time"):
        raise ValueError(
            f"The U-Net needs more than condition tokens ({unet.config.addition_embed_type}); use one of Stable"
            " Diffusion 1.x, 2.x or XL."
        )
    if separator.config.pooled_projection_dim != pooled_dim(unet):
        raise ValueError(
            f"The separator's pooled embeddings are {separator.config.pooled_projection_dim} wide, but the U-Net takes"
            f" {pooled_dim(unet)}."
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
        "pooled_projection_dim": pooled_dim(unet),
        "n_fft": n_fft,
        "hop_length": n_fft // 4,
    }
    if "num_labels" not in separator_kwargs:
        defaults["id2label"] = dict(enumerate(VGGSOUND_LABELS))
    return AudioVisualSeparator(**{**defaults, **separator_kwargs}).eval()
