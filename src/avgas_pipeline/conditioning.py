"""From sources to the rows of the U-Net's batch: which tokens and which noise each picture is drawn from."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from numbers import Real
from typing import Any

import torch
import torch.nn.functional as F

from .errors import NoSourceError, NothingToDrawError
from .pipeline_output import EncodedAudio, SoundSource


NOTHING_KNOWN = (
    "Soundscape {}: nothing that is heard in it is drawn: unknown sounds are not, nor what `negative_audio` leaves out"
    " of a composed picture; pass `draw_unknown=True` to draw what unknown sounds are most like."
)


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


def weights_of_sources(
    weights: dict[str, float] | list[float] | None, sources: Sequence[SoundSource], where: str = "Soundscape 0"
) -> list[float]:
    """
    One weight for every source of a soundscape: 1 where none is given.

    Args:
        weights (`dict`, `list` or `None`): One entry of what [`weights_per_soundscape`] gives.
        sources (`Sequence[SoundSource]`): The soundscape's.
        where (`str`): What warnings and errors call it.

    Raises:
        ValueError: If a list has another length than there are sources, or all weights are 0.
    """
    if isinstance(weights, dict):
        absent = sorted(set(weights) - {source.name for source in sources})
        if absent:
            there = ", ".join(dict.fromkeys(source.name for source in sources))
            message = f"{where}: {', '.join(absent)} is not present, so it has no weight; what is: {there}."
            warnings.warn(message, stacklevel=3)
        values = [float(weights.get(source.name, 1.0)) for source in sources]
    elif weights is None:
        values = [1.0] * len(sources)
    elif len(weights) == len(sources):
        values = [float(weight) for weight in weights]
    else:
        raise ValueError(f"{where} has {len(sources)} sources, but {len(weights)} `source_weights`.")
    if not any(values):
        raise NothingToDrawError(f"{where}: all its sources have a weight of 0, so nothing is left to draw.")
    return values


def weight_tensor(
    per_soundscape: Sequence[dict[str, float] | list[float] | None],
    sources: list[list[SoundSource]],
    mask: torch.Tensor,
) -> torch.Tensor:
    """
    The weight of every source, `(B, S)`: those of [`weights_of_sources`], 0 where `mask` `(B, S)` has no source.

    Raises:
        ValueError: If a list of weights has another length than the soundscape has sources, or all weights are 0.
    """
    result = torch.zeros(mask.shape, dtype=torch.float32, device=mask.device)
    for number, (weights, found) in enumerate(zip(per_soundscape, sources, strict=True)):
        values = weights_of_sources(weights, found, f"Soundscape {number}")
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


def split_pooled(embeds: torch.Tensor, pooled_dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pooled embeddings `(..., P)` and condition tokens `(..., M - 1, C)`, from `(..., M, C)` that has both."""
    return embeds[..., -1, :pooled_dim], embeds[..., :-1, :]


def pool(embeds: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean `(B, P)` of the pooled embeddings `(B, S, P)` of the sources in a mask `(B, S)`."""
    weights = mask.to(embeds.dtype)[..., None]
    return (embeds * weights).sum(dim=1) / weights.sum(dim=1)


@dataclass(frozen=True)
class Rows:
    """
    The pictures of a call, one row each: for every soundscape and image number the mixed picture, then the separated
    ones.

    Attributes:
        soundscapes (`list[int]`): The soundscape of each row.
        sources (`list[int | None]`): Which source a row shows, counted over the present ones; `None` if all.
    """

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

    def complete(self, images: torch.Tensor) -> torch.Tensor:
        """All pictures, of those `(R, C, H, W)` that were drawn: these."""
        return images

    def share_out(self, images: Any, sources: list[list[SoundSource]]) -> tuple[Any, list[list[SoundSource]]]:
        """The mixed pictures of all rows' pictures, and the sources, each with its own."""
        with_images = []
        for soundscape, found in enumerate(sources):
            places = accumulate((source.is_drawn for source in found), initial=0)
            with_images.append(
                [
                    replace(source, images=_pick(images, self.of_source(soundscape, place) if source.is_drawn else []))
                    for source, place in zip(found, places, strict=False)
                ]
            )
        return _pick(images, self.mixed()), with_images

    def mixed_numbers(self) -> list[int]:
        """For every row, which of the mixed pictures is drawn with it."""
        numbers: list[int] = []
        for source in self.sources:
            numbers.append(numbers[-1] + (source is None) if numbers else 0)
        return numbers


@dataclass(frozen=True)
class Conditions:
    """
    What the U-Net's cross-attention sees in every row of a call, R rows of N tokens.

    Attributes:
        rows ([`Rows`]): What the rows are.
        tokens (`torch.Tensor` of shape `(R, N, C)`): Tokens of each row, padded with zeros.
        mask (`torch.Tensor` of shape `(R, N)`): `True` where there is a token.
        negative_tokens (`torch.Tensor` of shape `(R, N, C)`, *optional*): What guidance leads away from; `None`
            without guidance.
        negative_mask (`torch.Tensor` of shape `(R, N)`, *optional*): As `mask`.
        pooled (`torch.Tensor` of shape `(R, P)`, *optional*): What a U-Net takes beside the tokens: the mean of the
            pooled embeddings of a row's sources.
        negative_pooled (`torch.Tensor` of shape `(R, P)`, *optional*): As `pooled`, of what guidance leads away from.
    """

    rows: Rows
    tokens: torch.Tensor
    mask: torch.Tensor
    negative_tokens: torch.Tensor | None = None
    negative_mask: torch.Tensor | None = None
    pooled: torch.Tensor | None = None
    negative_pooled: torch.Tensor | None = None

    def for_unet(self, is_guided: bool) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """
        Tokens, mask and pooled embeddings of one step, negative rows first if it is guided; no mask where it would
        hide nothing.
        """
        tokens, mask, pooled = self.tokens, self.mask, self.pooled
        if is_guided:
            tokens = torch.cat([self.negative_tokens, tokens])
            mask = torch.cat([self.negative_mask, mask])
            pooled = None if pooled is None else torch.cat([self.negative_pooled, pooled])
        return tokens, None if bool(mask.all()) else mask, pooled


def prepare_conditions(
    encoded: EncodedAudio,
    weights: Sequence[dict[str, float] | list[float] | None],
    num_images_per_prompt: int,
    separate: bool,
    is_guided: bool,
    text_embeds: torch.Tensor | None = None,
    negative_text_embeds: torch.Tensor | None = None,
    pooled_dim: int = 0,
    compose_rows: Callable[..., tuple[Rows, torch.Tensor, torch.Tensor]] | None = None,
) -> tuple[Conditions, list[list[SoundSource]]]:
    """
    Weigh the sources, lay out a row for every picture, and put text before the sounds.

    Args:
        encoded ([`EncodedAudio`]): B soundscapes, with `null_audio_embeds` if they are weighted, or guided without
            negative sounds.
        weights (`Sequence`): One entry for each soundscape, as [`weights_per_soundscape`] gives them.
        num_images_per_prompt (`int`): Pictures of each kind.
        separate (`bool`): Whether each source gets a row, too.
        is_guided (`bool`): Whether there are negative rows.
        text_embeds (`torch.Tensor` of shape `(B, T, C)`, *optional*): Text tokens of every soundscape.
        negative_text_embeds (`torch.Tensor` of shape `(B, T, C)`, *optional*): Those that guidance leads away from.
        pooled_dim (`int`, defaults to 0): Width of the pooled embeddings in the sources' last tokens; 0 for none.
        compose_rows (`Callable`, *optional*): [`~.composition.composed_rows`] where mixed pictures are composed of the
            sources' own: weights then say how large sources are, and not how strongly they show.

    Returns:
        The conditions, and the sources that are left of every soundscape: those with a weight above 0.

    Raises:
        ValueError: If nothing is left to draw of a soundscape.
    """
    embeds = encoded.audio_embeds
    mask = _present(embeds, encoded.audio_attention_mask)
    sources = encoded.sources
    if sources is None:
        sources = [[SoundSource() for _ in range(count)] for count in mask.sum(dim=1).tolist()]

    mixed_embeds, weight = embeds, mask.float()
    if any(entry is not None for entry in weights):
        weight = weight_tensor(weights, sources, mask)
        kept = weight > 0
        sources = [
            [source for source, keep in zip(found, kept[number, mask[number]].tolist(), strict=True) if keep]
            for number, found in enumerate(sources)
        ]
        if compose_rows is None:
            mixed_embeds = weigh_sources(embeds, weight.to(embeds.dtype), encoded.null_audio_embeds)
        mask = mask & kept
    mask = _drawn(mask, sources)
    pooled = negative_pooled = None
    if pooled_dim:
        alone, embeds = split_pooled(embeds, pooled_dim)
        together, mixed_embeds = split_pooled(mixed_embeds, pooled_dim)
    if compose_rows is None:
        rows, tokens, token_mask = _build_rows(mixed_embeds, embeds, mask, num_images_per_prompt, separate)
    else:
        rows, tokens, token_mask = compose_rows(embeds, weight, mask, num_images_per_prompt, separate)
    if pooled_dim:
        mixed = pool(together, mask)
        pooled = torch.stack(
            [
                mixed[number] if source is None else alone[number, mask[number]][source]
                for number, source in zip(rows.soundscapes, rows.sources, strict=True)
            ]
        )
    if text_embeds is not None:
        tokens, token_mask = _prepend_text(tokens, token_mask, text_embeds[rows.soundscapes])
    if not is_guided:
        return Conditions(rows, tokens, token_mask, pooled=pooled), sources

    negative_embeds, present = _negative_embeds(encoded, len(embeds))
    if pooled_dim:
        negative_pooled, negative_embeds = split_pooled(negative_embeds, pooled_dim)
        negative_pooled = pool(negative_pooled, present)[rows.soundscapes]
    negative = negative_embeds.flatten(1, 2)[rows.soundscapes]
    negative_mask = present.repeat_interleave(negative_embeds.shape[2], dim=1)[rows.soundscapes]
    if negative_text_embeds is not None:
        negative, negative_mask = _prepend_text(negative, negative_mask, negative_text_embeds[rows.soundscapes])
    length = max(tokens.shape[1], negative.shape[1])
    padded = (*_padded(tokens, token_mask, length), *_padded(negative, negative_mask, length))
    return Conditions(rows, *padded, pooled, negative_pooled), sources


def pack_sources(
    tokens: Sequence[Sequence[torch.Tensor]],
    sources: list[list[SoundSource]],
    null_tokens: torch.Tensor,
    negative_tokens: Sequence[Sequence[torch.Tensor]] = (),
) -> EncodedAudio:
    """
    The sources of B soundscapes, padded and masked.

    Args:
        tokens (`Sequence[Sequence[torch.Tensor]]`): Condition tokens `(M, C)` of every source of every soundscape.
        sources (`list[list[SoundSource]]`): The sources.
        null_tokens (`torch.Tensor` of shape `(M, C)`): The separator's.
        negative_tokens (`Sequence[Sequence[torch.Tensor]]`, *optional*): Those of the sources that guidance leads away
            from: of one recording for all soundscapes, or of one for each. The null tokens if there are none.
    """
    audio_embeds, mask = pad_tokens([torch.stack(list(each)) for each in tokens])
    if negative_tokens:
        negative_embeds, negative_mask = pad_tokens([torch.stack(list(each)) for each in negative_tokens])
        repeats = len(tokens) // len(negative_tokens)
        negative_embeds = negative_embeds.repeat_interleave(repeats, dim=0)
        negative_mask = negative_mask.repeat_interleave(repeats, dim=0)
    else:
        negative_embeds = null_tokens.expand(len(tokens), 1, -1, -1)
        negative_mask = mask.new_ones((len(tokens), 1))
    return EncodedAudio(audio_embeds, mask, negative_embeds, negative_mask, null_tokens, sources)


def texts_per_soundscape(
    prompt: str | list[str] | None,
    negative_prompt: str | list[str] | None,
    prompt_embeds: torch.Tensor | None,
    batch_size: int,
) -> tuple[list[str] | None, list[str] | None]:
    """Texts as lists of one for each soundscape; an empty prompt where only the negative one is given."""
    if prompt_embeds is None and not isinstance(prompt, list):
        prompt = [prompt or ""] * batch_size
    if isinstance(negative_prompt, str):
        negative_prompt = [negative_prompt] * batch_size
    return prompt, negative_prompt


def pad_tokens(tokens: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack sequences `(n_i, ...)` to `(R, N, ...)` with a mask `(R, N)` that is `True` where there is an entry."""
    stacked = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True)
    lengths = torch.tensor([len(sequence) for sequence in tokens], device=stacked.device)
    return stacked, torch.arange(stacked.shape[1], device=stacked.device) < lengths[:, None]


def step_generators(
    generator: torch.Generator | list[torch.Generator] | None, rows: Rows, device: torch.device
) -> list[torch.Generator]:
    """
    Generators for the noise of stochastic schedulers, one per row: separated pictures draw from copies of their mixed
    picture's generator, so they share its noise in every step, and the mixed picture is the same without them.

    A single generator, or PyTorch's own for `None`, seeds one for each mixed picture.
    """
    num_mixed = rows.mixed_numbers()[-1] + 1
    if generator is None or (isinstance(generator, torch.Generator) and num_mixed > 1):
        device = device if generator is None else generator.device
        seeds = torch.randint(2**63 - 1, (num_mixed,), generator=generator, device=device).tolist()
        generator = [torch.Generator(device).manual_seed(seed) for seed in seeds]
    elif isinstance(generator, torch.Generator):
        generator = [generator]
    # Of all rows that are drawn with a mixed picture the first has its generator.
    numbers = rows.mixed_numbers()
    return [
        generator[number] if numbers.index(number) == row else _copy(generator[number])
        for row, number in enumerate(numbers)
    ]


def row_seeds(generators: list[torch.Generator]) -> list[int]:
    """A seed for every row, drawn from its generator."""
    return [
        int(torch.randint(2**63 - 1, (1,), generator=generator, device=generator.device)) for generator in generators
    ]


def _present(embeds: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """A mask `(B, S)` on the embeddings' device; all of it `True` if none is given."""
    return (torch.ones(embeds.shape[:2]) if mask is None else mask).to(embeds.device, torch.bool)


def _drawn(mask: torch.Tensor, sources: Sequence[Sequence[SoundSource]]) -> torch.Tensor:
    """The present sources of a mask `(B, S)` that pictures show."""
    drawn = mask.clone()
    for number, found in enumerate(sources):
        is_drawn = [source.is_drawn for source in found]
        if not any(is_drawn):
            raise NoSourceError(NOTHING_KNOWN.format(number))
        drawn[number, mask[number]] = torch.tensor(is_drawn, device=mask.device)
    return drawn


def _build_rows(
    mixed_embeds: torch.Tensor,
    separated_embeds: torch.Tensor,
    mask: torch.Tensor,
    num_images_per_prompt: int,
    separate: bool,
) -> tuple[Rows, torch.Tensor, torch.Tensor]:
    """
    Rows with their tokens and mask, from condition tokens `(B, S, M, C)` and the sources to draw, `(B, S)`.
    """
    tokens: list[torch.Tensor] = []
    soundscapes: list[int] = []
    sources: list[int | None] = []
    for soundscape, present in enumerate(mask):
        slots = present.nonzero().flatten().tolist()
        together = mixed_embeds[soundscape, present].flatten(0, 1)
        pictures: list[tuple[int | None, torch.Tensor]] = [(None, together)]
        if separate:
            pictures += [(number, separated_embeds[soundscape, slot]) for number, slot in enumerate(slots)]
        for _ in range(num_images_per_prompt):
            for source, picture_tokens in pictures:
                tokens.append(picture_tokens)
                soundscapes.append(soundscape)
                sources.append(source)
    return Rows(soundscapes, sources), *pad_tokens(tokens)


def _negative_embeds(encoded: EncodedAudio, batch_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Condition tokens `(B, S, M, C)` of what guidance leads away from, and a mask `(B, S)`."""
    embeds, mask = encoded.negative_audio_embeds, encoded.negative_audio_attention_mask
    if embeds is None:
        embeds, mask = encoded.null_audio_embeds.expand(batch_size, 1, -1, -1), None
    return embeds, _present(embeds, mask)


def _prepend_text(
    tokens: torch.Tensor, mask: torch.Tensor, text_embeds: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Put text tokens `(R, T, C)` before audio tokens `(R, N, C)`, and the mask likewise."""
    text_mask = mask.new_ones(text_embeds.shape[:2])
    return torch.cat([text_embeds.to(tokens), tokens], dim=1), torch.cat([text_mask, mask], dim=1)


def _padded(tokens: torch.Tensor, mask: torch.Tensor, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    missing = length - tokens.shape[1]
    return F.pad(tokens, (0, 0, 0, missing)), F.pad(mask, (0, missing))


def _pick(images: Any, rows: list[int]) -> Any:
    return [images[row] for row in rows] if isinstance(images, list) else images[rows]


def _copy(generator: torch.Generator) -> torch.Generator:
    return torch.Generator(device=generator.device).set_state(generator.get_state())
