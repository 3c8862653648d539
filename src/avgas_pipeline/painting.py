"""Pictures of what was heard, drawn by any text-to-image pipeline of diffusers."""

import dataclasses
import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from transformers import PreTrainedTokenizerBase

from .audio.loading import DEFAULT_MAX_DURATION_S
from .conditioning import NOTHING_KNOWN, Rows, step_generators, weights_of_sources, weights_per_soundscape
from .errors import NoSourceError
from .exclusive import in_use
from .input_checks import check_count
from .loaders.painter import check_call, load_painter
from .loaders.phrases import DEFAULT_STYLE, PLACE, check_style
from .pipeline_output import AVGASPipelineOutput, SoundSource
from .prompts import Prompts, describe
from .weighted_prompts import takes_weights, weighted_embeds


# Arguments of a painter that are made here, or would have to fit what is.
_OURS = (
    *(f"prompt{number}" for number in ("", "_2", "_3", "_4")),
    *(f"{name}prompt_embeds" for name in ("", "pooled_", "negative_", "negative_pooled_")),
    "return_dict",
)
# Of `paint`, what is said of recordings.
_OF_AUDIO = ("sampling_rate", "num_sources", "presence_threshold", "audio_track")
_BUSY = "The painter is in the middle of another call: give every thread a painter with a scheduler of its own."


class PaintingMixin:
    """The pipeline's `paint`."""

    @torch.no_grad()
    def paint(
        self,
        audio: Any = None,
        painter: DiffusionPipeline | str | os.PathLike | None = None,
        separate: bool = False,
        style: str = DEFAULT_STYLE,
        sampling_rate: int | None = None,
        negative_prompt: str | list[str] | None = None,
        num_images_per_prompt: int = 1,
        num_sources: int | None = None,
        presence_threshold: float | None = None,
        source_weights: dict[str, float] | list | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        sources: list[list[SoundSource]] | None = None,
        return_audio: bool = True,
        max_duration_s: float = DEFAULT_MAX_DURATION_S,
        max_batch_rows: int | None = None,
        audio_track: int | None = None,
        draw_unknown: bool = False,
        output_type: str = "pil",
        return_dict: bool = True,
        **painter_kwargs: Any,
    ) -> AVGASPipelineOutput | tuple:
        r"""
        Draw soundscapes with a text-to-image pipeline, by the names of what is heard: needs neither U-Net nor VAE.

        Args:
            audio, sampling_rate, separate, num_images_per_prompt, num_sources, presence_threshold, generator,
            return_audio, max_duration_s, audio_track, return_dict:
                As of [`~AVGASPipeline.__call__`].
            painter ([`DiffusionPipeline`], `str` or `os.PathLike`):
                Any text-to-image pipeline of diffusers, its folder, or its Hub repository. One given by name is loaded
                in this call, in float32, onto this pipeline's device.
            style (`str`, defaults to `"a photograph of {}"`):
                What kind of picture, with `{}` for what it shows.
            negative_prompt (`str` or `list[str]`, *optional*):
                Text to lead away from, one for all soundscapes or one for each, if the painter takes one.
            source_weights (`dict[str, float]` or `list`, *optional*):
                As of `__call__`: 0 leaves a source out; others say which the mixed prompt names first, and with
                [`StableDiffusionPipeline`] and [`StableDiffusionXLPipeline`] how much its words weigh as well.
            latents (`torch.Tensor`, *optional*):
                The painter's noise to begin with, one row for each mixed image or for every image.
            sources (`list[list[SoundSource]]`, *optional*):
                What `encode_audio(...).sources` or `separate_audio` returned, instead of `audio`.
            max_batch_rows (`int`, *optional*):
                The most images that the painter draws at a time. All of them if `None`.
            draw_unknown (`bool`, defaults to `False`):
                Whether to draw unknown sounds, too, as what they are most like. Those of `sources` as well.
            output_type (`str`, *optional*, defaults to `"pil"`):
                As the painter takes it: `"pil"`, `"np"`, `"pt"`, `"latent"`.
            painter_kwargs (`dict`, *optional*):
                All other arguments of the painter: `num_inference_steps`, `guidance_scale`, `height`, `width`,
                `callback_on_step_end` and so on. What is not given is as the painter has it.

        Returns:
            [`AVGASPipelineOutput`] or `tuple`:
                As of `__call__`, with the prompts that pictures were drawn of.

        Raises:
            FileNotFoundError: If an audio file or the painter's folder does not exist.
            ValueError: If `painter` is no text-to-image pipeline, a recording can't be read, is silent or has no
                present source, or arguments do not fit.
            RuntimeError: If another thread is drawing with this painter.
        """
        if painter is None:
            raise ValueError("`painter` is needed: a text-to-image pipeline, its folder or its Hub repository.")
        if (audio is None) == (sources is None):
            raise ValueError("Pass exactly one of `audio` and `sources`.")
        given = dict(zip(_OF_AUDIO, (sampling_rate, num_sources, presence_threshold, audio_track), strict=True))
        unused = [name for name, value in given.items() if value is not None]
        if sources is not None and unused:
            raise ValueError(f"`{unused[0]}` is about `audio`, and `sources` are given.")
        check_count("num_images_per_prompt", num_images_per_prompt)
        if max_batch_rows is not None:
            check_count("max_batch_rows", max_batch_rows)
        check_style(style)
        is_named = isinstance(painter, (str, os.PathLike))
        if not is_named:
            painter = load_painter(painter)
        if sources is None:
            sources = self.encode_audio(
                audio,
                return_audio=return_audio,
                max_duration_s=max_duration_s,
                draw_unknown=draw_unknown,
                **given,
            ).sources
            self.maybe_free_model_hooks()
        elif draw_unknown:
            _check_sources(sources)
            sources = [[dataclasses.replace(source, is_drawn=True) for source in found] for found in sources]
        if is_named:
            painter = load_painter(painter).to(self._execution_device)
        id2label = {} if self.separator is None else self.separator.id2label
        output = paint_sources(
            painter,
            sources,
            separate,
            style,
            weights_per_soundscape(source_weights, len(sources), set(id2label.values()) or None),
            negative_prompt,
            int(num_images_per_prompt),
            generator,
            latents,
            max_batch_rows,
            id2label,
            output_type=output_type,
            **painter_kwargs,
        )
        return output if return_dict else (output.images, output.sources)


def paint_sources(
    painter: DiffusionPipeline,
    sources: Sequence[Sequence[SoundSource]],
    separate: bool = False,
    style: str = DEFAULT_STYLE,
    weights: Sequence[dict[str, float] | list[float] | None] | None = None,
    negative_prompt: str | list[str] | None = None,
    num_images_per_prompt: int = 1,
    generator: torch.Generator | list[torch.Generator] | None = None,
    latents: torch.Tensor | None = None,
    max_batch_rows: int | None = None,
    id2label: dict[int, str] | None = None,
    **painter_kwargs: Any,
) -> AVGASPipelineOutput:
    """
    Draw what is known of soundscapes' sources with a text-to-image pipeline: [`AVGASPipeline.paint`] without encoding.

    Args:
        painter ([`DiffusionPipeline`]): As [`~.loaders.painter.load_painter`] gives it.
        sources (`Sequence[Sequence[SoundSource]]`): Of every soundscape.
        weights (`Sequence`, *optional*): One entry for each soundscape, as
            [`~.conditioning.weights_per_soundscape`] gives them.
        id2label (`dict[int, str]`, *optional*): The labels of `label_probs`, for unknown sounds that are drawn.
        separate, style, negative_prompt, num_images_per_prompt, generator, latents, max_batch_rows, painter_kwargs:
            As of [`AVGASPipeline.paint`].

    Raises:
        ValueError: If there is nothing to draw of a soundscape, or arguments do not fit.
    """
    _check_sources(sources)
    taken = sorted(set(_OURS) & painter_kwargs.keys())
    if taken:
        raise ValueError(f"`{taken[0]}` is made of the sources; `style` changes what the painter is told.")
    check_call(painter, [*painter_kwargs, *(["negative_prompt"] if negative_prompt is not None else [])])
    tokenizers = [part for part in painter.components.values() if isinstance(part, PreTrainedTokenizerBase)]
    kept, prompts = [], []
    for number, found in enumerate(sources):
        entry = None if weights is None else weights[number]
        values = weights_of_sources(entry, found, f"Soundscape {number}")
        own = [(source, value) for source, value in zip(found, values, strict=True) if value > 0]
        named = [_named(source, id2label or {}) for source, _ in own]
        if not any(source.label for source in named):
            raise NoSourceError(NOTHING_KNOWN.format(number))
        drawn = [bool(source.label) for source in named]
        kept.append(
            [dataclasses.replace(source, is_drawn=is_drawn) for (source, _), is_drawn in zip(own, drawn, strict=True)]
        )
        prompts.append(describe(named, style, [value for _, value in own], tokenizers))

    rows = _rows_of(kept, num_images_per_prompt, separate)
    alone = [[prompt for prompt in each.separated if prompt is not None] for each in prompts]
    texts = [
        prompts[soundscape].mixed if source is None else alone[soundscape][source]
        for soundscape, source in zip(rows.soundscapes, rows.sources, strict=True)
    ]
    begin = style.index(PLACE)
    images = _draw(
        painter, rows, texts, prompts, begin, negative_prompt, generator, latents, max_batch_rows, painter_kwargs
    )
    images, shared = rows.share_out(images, kept)
    described = [
        [dataclasses.replace(source, prompt=prompt) for source, prompt in zip(found, each.separated, strict=True)]
        for found, each in zip(shared, prompts, strict=True)
    ]
    return AVGASPipelineOutput(images=images, sources=described, prompts=[each.mixed for each in prompts])


def _named(source: SoundSource, id2label: dict[int, str]) -> SoundSource:
    """The source as it is described: an unknown sound that is to be drawn as what it is most like."""
    if not source.is_drawn:
        return dataclasses.replace(source, label=None)
    if source.label is None and id2label:
        # "unknown sound" itself may be the most probable one.
        nearest = [label for label in source.nearest(id2label) if label != source.name]
        return dataclasses.replace(source, label=nearest[0] if nearest else None)
    return source


def _rows_of(sources: Sequence[Sequence[SoundSource]], num_images_per_prompt: int, separate: bool) -> Rows:
    soundscapes: list[int] = []
    numbers: list[int | None] = []
    for number, found in enumerate(sources):
        pictures = [None, *(range(sum(source.is_drawn for source in found)) if separate else ())]
        soundscapes += [number] * len(pictures) * num_images_per_prompt
        numbers += pictures * num_images_per_prompt
    return Rows(soundscapes, numbers)


def _draw(
    painter: DiffusionPipeline,
    rows: Rows,
    texts: list[str],
    prompts: Sequence[Prompts],
    begin: int,
    negative_prompt: str | list[str] | None,
    generator: torch.Generator | list[torch.Generator] | None,
    latents: torch.Tensor | None,
    max_batch_rows: int | None,
    options: dict[str, Any],
) -> Any:
    """The painter's pictures of all rows; the first phrase begins at character `begin` of a prompt."""
    num_mixed = len(rows.mixed())
    if isinstance(generator, list) and len(generator) != num_mixed:
        raise ValueError(f"{len(generator)} generators do not fit {num_mixed} mixed images: it takes one for each.")
    generators = step_generators(generator, rows, painter._execution_device)
    negatives = None
    if negative_prompt is not None:
        per_soundscape = [negative_prompt] * len(prompts) if isinstance(negative_prompt, str) else negative_prompt
        if len(per_soundscape) != len(prompts):
            raise ValueError(f"`negative_prompt` has {len(per_soundscape)} texts for {len(prompts)} soundscapes.")
        negatives = [per_soundscape[number] for number in rows.soundscapes]
    if latents is not None:
        if len(latents) not in (num_mixed, len(rows)):
            raise ValueError(f"`latents` has {len(latents)} rows for {num_mixed} mixed images of {len(rows)} in all.")
        latents = latents if len(latents) == len(rows) else latents[rows.mixed_numbers()]
    is_weighted = any(weight != 1 for each in prompts for _, weight in each.phrases) and takes_weights(painter)
    phrases = [
        prompts[soundscape].phrases if source is None else ()
        for soundscape, source in zip(rows.soundscapes, rows.sources, strict=True)
    ]

    pictures: list[Any] = []
    with in_use([painter, getattr(painter, "scheduler", None)], busy=_BUSY):
        for start in range(0, len(rows), max_batch_rows or len(rows)):
            part = slice(start, start + (max_batch_rows or len(rows)))
            call: dict[str, Any] = {"prompt": texts[part]}
            if is_weighted:
                scale = (options.get("cross_attention_kwargs") or {}).get("scale")
                call = weighted_embeds(painter, texts[part], phrases[part], begin, options.get("clip_skip"), scale)
            if negatives is not None:
                call["negative_prompt"] = negatives[part]
            if latents is not None:
                call["latents"] = latents[part]
            output = painter(**call, generator=generators[part], **options)
            hidden = [text for text, is_hidden in zip(texts[part], _hidden(output), strict=False) if is_hidden]
            if hidden:
                warnings.warn(f"The painter's safety checker blackened what it drew of {hidden}.", stacklevel=4)
            pictures.append(output.images)
    if isinstance(pictures[0], list):
        return [picture for part in pictures for picture in part]
    return np.concatenate(pictures) if isinstance(pictures[0], np.ndarray) else torch.cat(pictures)


def _hidden(output: Any) -> list[bool]:
    """Which pictures a safety checker has blackened."""
    return getattr(output, "nsfw_content_detected", None) or []


def _check_sources(sources: Any) -> None:
    """Raises `ValueError` unless there is a list of sources for each soundscape."""
    fits = isinstance(sources, (list, tuple)) and all(
        isinstance(found, (list, tuple)) and found and all(isinstance(source, SoundSource) for source in found)
        for found in sources
    )
    if not fits or not sources:
        raise ValueError("`sources` has to be a list with the list of each soundscape's sources, at least one each.")
