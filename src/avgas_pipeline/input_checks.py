"""Errors that users see: checks of the pipeline's arguments, before anything is computed, and of what was found."""

import math
import warnings
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import torch
from diffusers import DiffusionPipeline

from .audio.loading import Recording
from .audio.windows import is_silent
from .errors import NoSourceError, SilentRecordingError
from .pipeline_output import EncodedAudio


# Why `negative_audio` without a source is an error.
NOTHING_NEGATIVE = "there is nothing to lead away from: leave `negative_audio` out"


class InputChecksMixin:
    """The pipeline's `check_inputs`."""

    def check_inputs(
        self,
        audio: Any,
        encoded: EncodedAudio,
        batch_size: int,
        height: int,
        width: int,
        prompt: str | list[str] | None = None,
        negative_prompt: str | list[str] | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        negative_audio: Any = None,
        num_sources: int | None = None,
        presence_threshold: float | None = None,
        num_inference_steps: int = 50,
        guidance_scale: float = 7.5,
        num_images_per_prompt: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        max_batch_rows: int | None = None,
        output_type: str = "pil",
        callback_on_step_end_tensor_inputs: list[str] | None = None,
    ) -> None:
        """Raises `ValueError` for arguments that do not fit each other or the models, before anything is computed."""
        factor = self.vae_scale_factor
        if not all(isinstance(side, Integral) and side > 0 and side % factor == 0 for side in (height, width)):
            raise ValueError(
                f"`height` and `width` have to be positive multiples of {factor} but are {height} and {width}."
            )
        if not isinstance(guidance_scale, Real) or not math.isfinite(guidance_scale):
            raise ValueError(f"`guidance_scale` has to be a finite number but is {guidance_scale!r}.")
        check_count("num_inference_steps", num_inference_steps)
        if output_type not in ("pil", "np", "pt", "latent"):
            raise ValueError(f"`output_type` has to be 'pil', 'np', 'pt' or 'latent' but is {output_type!r}.")
        unknown = set(callback_on_step_end_tensor_inputs or []) - set(self._callback_tensor_inputs)
        if unknown:
            raise ValueError(
                f"`callback_on_step_end_tensor_inputs` has to be in {self._callback_tensor_inputs}, but found"
                f" {sorted(unknown)}."
            )
        check_count("num_images_per_prompt", num_images_per_prompt)
        if max_batch_rows is not None:
            check_count("max_batch_rows", max_batch_rows)
        if (audio is None) == (encoded.audio_embeds is None):
            raise ValueError("Pass exactly one of `audio` and `audio_embeds`.")
        if audio is not None:
            check_audio_models(self, num_sources, presence_threshold)
        elif negative_audio is not None or num_sources is not None or presence_threshold is not None:
            raise ValueError(
                "With `audio_embeds`, pass `negative_audio`, `num_sources` and `presence_threshold` to `encode_audio`."
            )
        if negative_audio is not None and encoded.negative_audio_embeds is not None:
            raise ValueError("Pass only one of `negative_audio` and `negative_audio_embeds`.")
        cross_attention_dim = self.unet.config.cross_attention_dim
        encoded.check_shapes(cross_attention_dim, batch_size)
        if not isinstance(generator, (torch.Generator, list, type(None))):
            raise ValueError(f"`generator` has to be a generator or a list of them but is {type(generator)}.")
        if isinstance(generator, list) and len(generator) != batch_size * num_images_per_prompt:
            raise ValueError(
                f"You have passed a list of {len(generator)} generators for {batch_size} soundscapes with"
                f" {num_images_per_prompt} images each: it takes one generator for each mixed image."
            )
        if negative_audio is not None and guidance_scale <= 1 and not self.config.compose_sources:
            warnings.warn(
                "`negative_audio` has no effect without guidance: `guidance_scale` is not above 1.", stacklevel=3
            )
        check_text(
            self.text_encoder is not None,
            cross_attention_dim,
            guidance_scale > 1,
            batch_size,
            prompt,
            negative_prompt,
            prompt_embeds,
            negative_prompt_embeds,
        )


def check_count(name: str, number: Any) -> None:
    """Raises `ValueError` unless `number` is a positive integer."""
    if not isinstance(number, Integral) or isinstance(number, bool) or number < 1:
        raise ValueError(f"`{name}` has to be a positive integer but is {number!r}.")


def check_drawing_models(pipeline: DiffusionPipeline, output_type: str) -> None:
    """Raises `ValueError` if the pipeline lacks a component that draws, or can't give such output."""
    if output_type == "latent" and pipeline.config.compose_sources:
        raise ValueError("`output_type='latent'`: this pipeline composes mixed images of decoded ones.")
    for name in ("unet", "scheduler", *(() if output_type == "latent" else ("vae",))):
        if getattr(pipeline, name, None) is None:
            raise ValueError(f"This pipeline was loaded without `{name}`, so it can't draw.")


def callback_results(returned: Any) -> dict[str, torch.Tensor]:
    """What a callback returned; raises `ValueError` if that is no dict."""
    if not isinstance(returned, dict):
        raise ValueError(
            "`callback_on_step_end` has to return a dict of the tensors to replace, which may be empty, but returned"
            f" {type(returned).__name__}."
        )
    return returned


def check_audio_models(
    pipeline: DiffusionPipeline,
    num_sources: int | None,
    presence_threshold: float | None,
    max_batch_rows: int | None = None,
) -> None:
    """Raises `ValueError` if the pipeline can't encode audio, or not that many sources."""
    if max_batch_rows is not None:
        check_count("max_batch_rows", max_batch_rows)
    for name in ("audio_feature_extractor", "audio_encoder", "separator"):
        if getattr(pipeline, name) is None:
            raise ValueError(
                f"This pipeline was loaded without `{name}`, so it can't encode `audio`; it draws from"
                " `audio_embeds` instead."
            )
    num_slots = pipeline.separator.config.num_slots
    if num_sources is not None:
        check_count("num_sources", num_sources)
        if num_sources > num_slots:
            raise ValueError(f"`num_sources` has to be from 1 to {num_slots}, the separator's slots: {num_sources}.")
    if presence_threshold is None:
        return
    if not isinstance(presence_threshold, Real) or not 0 <= presence_threshold <= 1:
        raise ValueError(f"`presence_threshold` has to be in [0, 1] but is {presence_threshold!r}.")


def check_text(
    has_text_encoder: bool,
    width: int,
    has_guidance: bool,
    batch_size: int,
    prompt: str | list[str] | None,
    negative_prompt: str | list[str] | None,
    prompt_embeds: torch.Tensor | None,
    negative_prompt_embeds: torch.Tensor | None,
) -> None:
    """Raises `ValueError` unless the texts fit the soundscapes and the pipeline."""
    if not has_text_encoder and (prompt is not None or negative_prompt is not None):
        raise ValueError(
            "`prompt` and `negative_prompt` need a text encoder, and this pipeline has none (`from_stable_diffusion`"
            " keeps it with `use_text_encoder=True`)."
        )
    for name, text, embeds in (
        ("prompt", prompt, prompt_embeds),
        ("negative_prompt", negative_prompt, negative_prompt_embeds),
    ):
        if text is not None and embeds is not None:
            raise ValueError(f"Pass only one of `{name}` and `{name}_embeds`.")
        if text is not None and not isinstance(text, (str, list)):
            raise ValueError(f"`{name}` has to be of type `str` or `list` but is {type(text)}.")
        given = text if isinstance(text, list) else embeds
        if given is not None and len(given) != batch_size:
            raise ValueError(f"{len(given)} of `{name}` do not fit {batch_size} soundscapes.")
        if embeds is not None and (embeds.ndim != 3 or embeds.shape[-1] != width):
            raise ValueError(
                f"`{name}_embeds` has to be of shape (soundscapes, tokens, {width}) but is of shape"
                f" {tuple(embeds.shape)}."
            )
    if negative_prompt_embeds is not None and prompt_embeds is None and has_guidance and not has_text_encoder:
        raise ValueError("Without a text encoder, `negative_prompt_embeds` needs `prompt_embeds`.")
    if prompt_embeds is not None and negative_prompt_embeds is None and has_guidance and not has_text_encoder:
        raise ValueError("Without a text encoder, guidance with `prompt_embeds` needs `negative_prompt_embeds`.")


def check_not_silent(recordings: Sequence[Recording], hint: str) -> None:
    """Raises [`~avgas_pipeline.errors.SilentRecordingError`] if one of the recordings is silent."""
    for recording in recordings:
        if is_silent(recording.waveform):
            raise SilentRecordingError(f"{recording.name}: is silent; {hint}.")


def check_negatives(negatives: Sequence[Recording], num_soundscapes: int) -> None:
    """Raises `ValueError` unless there is one that is not silent, or one for each soundscape."""
    check_not_silent(negatives, NOTHING_NEGATIVE)
    if len(negatives) not in (1, num_soundscapes):
        raise ValueError(
            f"{len(negatives)} `negative_audio` recordings do not fit {num_soundscapes} soundscapes: give one, or one"
            " for each."
        )


def check_any_source(
    recordings: Sequence[Recording], found: Sequence[Sequence[Any]], presence_threshold: float | None, hint: str
) -> None:
    """Raises [`~avgas_pipeline.errors.NoSourceError`] if one of the recordings has no present source."""
    why = "none is probable enough" if presence_threshold is None else f"none reaches {presence_threshold:g}"
    for recording, tracks in zip(recordings, found, strict=True):
        if not tracks:
            raise NoSourceError(f"{recording.name}: no source is present ({why}); {hint}.")
