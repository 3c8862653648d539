"""Prompts whose phrases weigh more or less, for text encoders of CLIP."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DiffusionPipeline


def takes_weights(painter: DiffusionPipeline) -> bool:
    """Whether [`weighted_embeds`] knows which of a painter's embeddings belong to which word."""
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

    return isinstance(painter, (StableDiffusionPipeline, StableDiffusionXLPipeline))


def weighted_embeds(
    painter: DiffusionPipeline,
    prompts: list[str],
    phrases: Sequence[Sequence[tuple[str, float]]],
    start: int = 0,
    clip_skip: int | None = None,
    lora_scale: float | None = None,
) -> dict[str, Any]:
    """
    Embeddings of prompts, those of a phrase's words moved along the line from the empty prompt's words in their
    places: `empty + weight * (words - empty)`, as [`~.conditioning.weigh_sources`] does with condition tokens.

    Args:
        painter ([`StableDiffusionPipeline`] or [`StableDiffusionXLPipeline`]): Whose text encoders are used.
        prompts (`list[str]`): What to encode.
        phrases (`Sequence`): For every prompt the phrases in it, in their order, with their weights; none for one that
            is not weighted.
        start (`int`, defaults to 0): Where in the prompts the first phrase begins, in characters.
        clip_skip (`int`, *optional*), lora_scale (`float`, *optional*): As of the painter.

    Returns:
        `dict`: `prompt_embeds` and, for Stable Diffusion XL, `pooled_prompt_embeds`, as the painter takes them.
    """
    device = painter._execution_device
    options = {"device": device, "num_images_per_prompt": 1, "do_classifier_free_guidance": False}
    options |= {"clip_skip": clip_skip, "lora_scale": lora_scale}
    encoded, empty = (painter.encode_prompt(text, **options) for text in (prompts, [""]))
    embeds = encoded[0].clone()
    for row, (prompt, own) in enumerate(zip(prompts, phrases, strict=True)):
        end = start
        for phrase, weight in own:
            begin = prompt.index(phrase, end)
            end = begin + len(phrase)
            # Behind the token that begins every prompt.
            first, last = (_count_tokens(painter, prompt[:place]) + 1 for place in (begin, end))
            embeds[row, first:last] = torch.lerp(empty[0][0, first:last], embeds[row, first:last], weight)
    # Stable Diffusion XL has four, the third pooled.
    return {"prompt_embeds": embeds, **({"pooled_prompt_embeds": encoded[2]} if len(encoded) == 4 else {})}


def _count_tokens(painter: DiffusionPipeline, text: str) -> int:
    """Tokens of a text without those that begin and end every prompt; textual inversions may stand for several."""
    text = painter.maybe_convert_prompt(text, painter.tokenizer)
    return len(painter.tokenizer(text, add_special_tokens=False, verbose=False).input_ids)
