"""Checks of the pipeline's arguments that need no computation."""

from numbers import Real
from typing import Any

import torch
from diffusers import DiffusionPipeline

from .pipeline_output import SoundSource


def check_count(name: str, number: Any) -> None:
    """Raises `ValueError` unless `number` is a positive integer."""
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ValueError(f"`{name}` has to be a positive integer but is {number!r}.")


def check_hearing(pipeline: DiffusionPipeline, num_sources: int | None, presence_threshold: float | None) -> None:
    """Raises `ValueError` if the pipeline can't hear, or not that many sources."""
    for name in ("audio_feature_extractor", "audio_encoder", "separator"):
        if getattr(pipeline, name) is None:
            raise ValueError(
                f"This pipeline was loaded without `{name}`, so it can't hear; it draws from `audio_embeds` instead of"
                " `audio`."
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


def check_embeds(
    width: int,
    audio_embeds: torch.Tensor,
    audio_attention_mask: torch.Tensor | None,
    sources: list[list[SoundSource]] | None,
) -> int:
    """Raises `ValueError` unless the embeddings fit each other and a U-Net of that width; returns their number."""
    counts = _count_sources("audio", width, audio_embeds, audio_attention_mask)
    if sources is not None and [len(found) for found in sources] != counts:
        raise ValueError(f"`sources` has {[len(found) for found in sources]} sources, but `audio_embeds` {counts}.")
    return audio_embeds.shape[0]


def check_negative_embeds(
    width: int,
    batch_size: int,
    negative_audio_embeds: torch.Tensor | None,
    negative_audio_attention_mask: torch.Tensor | None,
    null_audio_embeds: torch.Tensor | None,
) -> None:
    """Raises `ValueError` unless the embeddings to lead away from fit the soundscapes and a U-Net of that width."""
    if negative_audio_embeds is not None:
        _count_sources("negative_audio", width, negative_audio_embeds, negative_audio_attention_mask)
        if negative_audio_embeds.shape[0] != batch_size:
            raise ValueError(
                f"`negative_audio_embeds` is for {negative_audio_embeds.shape[0]} soundscapes instead of {batch_size}."
            )
    elif negative_audio_attention_mask is not None:
        raise ValueError("`negative_audio_attention_mask` needs `negative_audio_embeds`.")
    if null_audio_embeds is not None and (null_audio_embeds.ndim != 2 or null_audio_embeds.shape[-1] != width):
        raise ValueError(
            f"`null_audio_embeds` has to be of shape (tokens, {width}) but is of shape"
            f" {tuple(null_audio_embeds.shape)}."
        )


def _count_sources(name: str, width: int, embeds: torch.Tensor, mask: torch.Tensor | None) -> list[int]:
    """Checks `<name>_embeds` and `<name>_attention_mask`; gives the number of sources in every soundscape."""
    if embeds.ndim != 4 or embeds.shape[-1] != width:
        raise ValueError(
            f"`{name}_embeds` has to be of shape (soundscapes, sources, tokens, {width}) but is of shape"
            f" {tuple(embeds.shape)}."
        )
    mask = torch.ones(embeds.shape[:2]) if mask is None else mask
    if mask.shape != embeds.shape[:2]:
        raise ValueError(
            f"`{name}_attention_mask` has to be of shape {tuple(embeds.shape[:2])}, as `{name}_embeds`, but is of"
            f" shape {tuple(mask.shape)}."
        )
    counts = (mask != 0).sum(dim=1).tolist()
    if not all(counts):
        raise ValueError(f"`{name}_embeds` has a soundscape without a source.")
    return counts


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
