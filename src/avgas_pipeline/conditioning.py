"""From sources to rows of the U-Net's batch: which tokens and which noise each picture is drawn from."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
import torch.nn.functional as F

from .pipeline_output import SoundSource


def weights_per_soundscape(
    source_weights: Any, batch_size: int, labels: set[str] | None
) -> list[dict[str, float] | list[float] | None]:
    """
    Bring `source_weights` to one entry per soundscape, and check it.

    Args:
        source_weights (`dict`, `list` or `None`): As of [`AVGASPipeline.__call__`].
        batch_size (`int`): Number of soundscapes.
        labels (`set[str]`, *optional*): All labels there are.

    Raises:
        ValueError: For an unknown label, a weight below 0 or not finite, or a number of entries that does not fit.
    """
    if source_weights is None or isinstance(source_weights, dict):
        per_soundscape = [source_weights] * batch_size
    elif not isinstance(source_weights, (list, tuple)):
        raise ValueError(f"`source_weights` has to be a dict or a list but is {type(source_weights).__name__}.")
    elif all(isinstance(weight, Real) for weight in source_weights):
        per_soundscape = [list(source_weights)]
    else:
        per_soundscape = list(source_weights)
    if len(per_soundscape) != batch_size:
        raise ValueError(
            f"`source_weights` has entries for {len(per_soundscape)} soundscapes instead of {batch_size}."
        )

    for weights in per_soundscape:
        if weights is None:
            continue
        if not isinstance(weights, (dict, list, tuple)):
            raise ValueError(f"`source_weights` has to hold dicts or lists of numbers, but holds {weights!r}.")
        for key, weight in weights.items() if isinstance(weights, dict) else enumerate(weights):
            if isinstance(weights, dict) and labels is not None and key not in labels:
                raise ValueError(f"`source_weights` names {key!r}, which is not among the {len(labels)} labels.")
            if isinstance(weight, bool) or not isinstance(weight, Real) or not 0 <= weight < math.inf:
                raise ValueError(f"`source_weights` have to be finite numbers from 0 on, but one is {weight!r}.")
    return per_soundscape


def weight_tensor(
    per_soundscape: Sequence[dict[str, float] | list[float] | None],
    sources: list[list[SoundSource]],
    mask: torch.Tensor,
) -> torch.Tensor:
    """
    The weight of every source, `(B, S)`: 1 where none is given, 0 where `mask` `(B, S)` has no source.

    Raises:
        ValueError: If a list of weights has another length than the soundscape has sources, or all weights are 0.
    """
    result = torch.zeros(mask.shape, dtype=torch.float32, device=mask.device)
    for number, (weights, found) in enumerate(zip(per_soundscape, sources, strict=True)):
        if isinstance(weights, dict):
            unheard = sorted(set(weights) - {source.label for source in found})
            if unheard:
                warnings.warn(
                    f"Soundscape {number}: {', '.join(unheard)} is not heard, so it has no weight.", stacklevel=2
                )
            values = [float(weights.get(source.label, 1.0)) for source in found]
        elif weights is None:
            values = [1.0] * len(found)
        elif len(weights) == len(found):
            values = [float(weight) for weight in weights]
        else:
            raise ValueError(f"Soundscape {number} has {len(found)} sources, but {len(weights)} `source_weights`.")
        if not any(values):
            raise ValueError(f"Soundscape {number}: all its sources have a weight of 0, so nothing is left to draw.")
        result[number, mask[number]] = torch.tensor(values, device=mask.device)
    return result


def weigh_sources(audio_embeds: torch.Tensor, weights: torch.Tensor, null_audio_embeds: torch.Tensor) -> torch.Tensor:
    """
    Move condition tokens along the line from the null tokens: `null + weight * (tokens - null)`.

    Args:
        audio_embeds (`torch.Tensor` of shape `(B, S, M, C)`): Condition tokens.
        weights (`torch.Tensor` of shape `(B, S)`): 1 leaves a source's tokens as they are, to the bit.
        null_audio_embeds (`torch.Tensor` of shape `(M, C)`): The null tokens.
    """
    return torch.lerp(null_audio_embeds.expand_as(audio_embeds), audio_embeds, weights[:, :, None, None])


@dataclass
class Rows:
    """
    The pictures of a call, one row each: for every soundscape and image number the mixed picture, then the separated
    ones.

    Attributes:
        hidden_states (`torch.Tensor` of shape `(R, N, C)`): Tokens of each row, padded with zeros.
        mask (`torch.Tensor` of shape `(R, N)`): `True` where there is a token.
        soundscapes (`list[int]`): The soundscape of each row.
        sources (`list[int | None]`): Which source a row shows, counted over the present ones; `None` if all.
    """

    hidden_states: torch.Tensor
    mask: torch.Tensor
    soundscapes: list[int]
    sources: list[int | None]

    def __len__(self) -> int:
        return len(self.sources)

    def mixed(self) -> list[int]:
        """The rows of the mixed pictures, in the order of the soundscapes."""
        return [row for row, source in enumerate(self.sources) if source is None]

    def of_source(self, soundscape: int, source: int) -> list[int]:
        """The rows of the separated pictures of one source, by image number."""
        pairs = zip(self.soundscapes, self.sources, strict=True)
        return [row for row, pair in enumerate(pairs) if pair == (soundscape, source)]

    def mixed_numbers(self) -> list[int]:
        """For every row, which of the mixed pictures is drawn with it."""
        numbers: list[int] = []
        for source in self.sources:
            numbers.append(numbers[-1] + (source is None) if numbers else 0)
        return numbers


def build_rows(
    mixed_embeds: torch.Tensor,
    separated_embeds: torch.Tensor,
    mask: torch.Tensor,
    num_images_per_prompt: int,
    separate: bool,
) -> Rows:
    """
    Lay out the rows of a call.

    Args:
        mixed_embeds (`torch.Tensor` of shape `(B, S, M, C)`): Condition tokens for mixed pictures.
        separated_embeds (`torch.Tensor` of shape `(B, S, M, C)`): Condition tokens for separated pictures.
        mask (`torch.Tensor` of shape `(B, S)`): `True` where there is a source to draw.
        num_images_per_prompt (`int`): Pictures of each kind.
        separate (`bool`): Whether each source gets a row, too.
    """
    tokens: list[torch.Tensor] = []
    soundscapes: list[int] = []
    sources: list[int | None] = []
    for soundscape, present in enumerate(mask):
        slots = present.nonzero().flatten().tolist()
        pictures: list[tuple[int | None, torch.Tensor]] = [(None, mixed_embeds[soundscape, slots].flatten(0, 1))]
        if separate:
            pictures += [(number, separated_embeds[soundscape, slot]) for number, slot in enumerate(slots)]
        for _ in range(num_images_per_prompt):
            for source, picture_tokens in pictures:
                tokens.append(picture_tokens)
                soundscapes.append(soundscape)
                sources.append(source)
    hidden_states, token_mask = pad_tokens(tokens)
    return Rows(hidden_states, token_mask, soundscapes, sources)


def pad_tokens(tokens: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack sequences `(n_i, ...)` to `(R, N, ...)` with a mask `(R, N)` that is `True` where there is an entry."""
    hidden_states = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True)
    lengths = torch.tensor([len(sequence) for sequence in tokens], device=hidden_states.device)
    return hidden_states, torch.arange(hidden_states.shape[1], device=hidden_states.device) < lengths[:, None]


def prepend_text(
    hidden_states: torch.Tensor, mask: torch.Tensor, text_embeds: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Put text tokens `(R, T, C)` before audio tokens `(R, N, C)`, and the mask likewise."""
    text_mask = mask.new_ones(text_embeds.shape[:2])
    return torch.cat([text_embeds.to(hidden_states), hidden_states], dim=1), torch.cat([text_mask, mask], dim=1)


def match_length(
    first: torch.Tensor, first_mask: torch.Tensor, second: torch.Tensor, second_mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pad two batches of token sequences to one length."""
    length = max(first.shape[1], second.shape[1])
    padded = []
    for tokens, mask in ((first, first_mask), (second, second_mask)):
        missing = length - tokens.shape[1]
        padded += [F.pad(tokens, (0, 0, 0, missing)), F.pad(mask, (0, missing))]
    return tuple(padded)


def step_generators(
    generator: torch.Generator | list[torch.Generator] | None, rows: Rows, device: torch.device
) -> list[torch.Generator]:
    """
    Generators for the noise of stochastic schedulers, one per row: separated pictures draw from copies of their mixed
    picture's generator, so they share its noise in every step, and the mixed picture is the same without them.

    A single generator, or PyTorch's own for `None`, seeds one for each mixed picture.
    """
    num_mixed = len(rows.mixed())
    if generator is None or (isinstance(generator, torch.Generator) and num_mixed > 1):
        device = device if generator is None else generator.device
        seeds = torch.randint(2**63 - 1, (num_mixed,), generator=generator, device=device).tolist()
        generator = [torch.Generator(device).manual_seed(seed) for seed in seeds]
    elif isinstance(generator, torch.Generator):
        generator = [generator]
    return [
        generator[number] if source is None else _copy(generator[number])
        for number, source in zip(rows.mixed_numbers(), rows.sources, strict=True)
    ]


def row_seeds(generators: list[torch.Generator]) -> list[int]:
    """A seed for every row, drawn from its generator."""
    return [
        int(torch.randint(2**63 - 1, (1,), generator=generator, device=generator.device)) for generator in generators
    ]


def _copy(generator: torch.Generator) -> torch.Generator:
    return torch.Generator(device=generator.device).set_state(generator.get_state())
