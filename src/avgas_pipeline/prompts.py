"""Sources in words, for text-to-image models: what one sees where they are heard."""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from .conditioning import weights_of_sources
from .loaders.phrases import PLACE, check_style, phrase_of
from .pipeline_output import SoundSource


class Prompts(NamedTuple):
    """
    What pictures of one soundscape are drawn of.

    Attributes:
        mixed (`str`): All of its sources, the one with the largest weight first.
        separated (`list[str | None]`): Each source alone, in their order; `None` for sources without a label, and for
            those with a weight of 0.
        phrases (`list[tuple[str, float]]`): The phrases of the mixed prompt, in its order, with their weights.
    """

    mixed: str
    separated: list[str | None]
    phrases: list[tuple[str, float]]


def describe(
    sources: Sequence[SoundSource],
    style: str = "{}",
    weights: dict[str, float] | Sequence[float] | None = None,
    tokenizers: Sequence[PreTrainedTokenizerBase] = (),
) -> Prompts:
    """
    Put the sources of one soundscape into words: [`~.loaders.phrases`] has what one sees of VGGSound's labels, any
    other label stands for itself.

    Args:
        sources (`Sequence[SoundSource]`): As of `pipe(...).sources[0]`. Those without a label are left out.
        style (`str`, defaults to `"{}"`): What kind of picture, with `{}` for what it shows: `"a photograph of {}"`.
        weights (`dict[str, float]` or `Sequence[float]`, *optional*): By label, or one for each source. The mixed
            prompt has the sources in this order, the largest first, and leaves out those with 0.
        tokenizers (`Sequence`, *optional*): Of the text-to-image model. The mixed prompt has as many sources as fit
            into the one that takes most; a warning names the others.

    Returns:
        [`Prompts`]: sources with the same label are one phrase, in the plural: "dogs barking".

    Raises:
        ValueError: If `style` has not exactly one `{}`, weights do not fit the sources, or no source is left.
    """
    check_style(style)
    values = weights_of_sources(list(weights) if isinstance(weights, (tuple, list)) else weights, sources)
    named = [
        (source.label, weight) for source, weight in zip(sources, values, strict=True) if source.label and weight > 0
    ]
    if not named:
        raise ValueError("None of the sources has a label and a weight above 0, so there is nothing to describe.")
    labels = [label for label, _ in named]
    largest = {label: max(weight for other, weight in named if other == label) for label in dict.fromkeys(labels)}
    phrases = [
        (phrase_of(label, is_several=labels.count(label) > 1), weight)
        for label, weight in sorted(largest.items(), key=lambda pair: -pair[1])
    ]
    left_out: list[str] = []
    while len(phrases) > 1 and not _fits(_sentence(phrases, style), tokenizers):
        left_out.insert(0, phrases.pop()[0])
    if left_out:
        warnings.warn(f"The prompt of the mixed picture has no room for {', '.join(left_out)}.", stacklevel=2)
    separated = [
        style.replace(PLACE, phrase_of(source.label)) if source.label and weight > 0 else None
        for source, weight in zip(sources, values, strict=True)
    ]
    return Prompts(_sentence(phrases, style), separated, phrases)


def _sentence(phrases: Sequence[tuple[str, float]], style: str) -> str:
    *others, last = (phrase for phrase, _ in phrases)
    return style.replace(PLACE, f"{', '.join(others)} and {last}" if others else last)


def _fits(prompt: str, tokenizers: Sequence[PreTrainedTokenizerBase]) -> bool:
    if not tokenizers:
        return True
    # Others, such as CLIP's beside T5, cut what is too long for them.
    longest = max(tokenizers, key=lambda tokenizer: tokenizer.model_max_length)
    return len(longest(prompt, verbose=False).input_ids) <= longest.model_max_length
