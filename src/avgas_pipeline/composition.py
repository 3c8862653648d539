"""Mixed pictures that are composed of their sources' own."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .conditioning import Rows, pad_tokens
from .layout import MOST_PLACED, Box, compose, place_sources


@dataclass(frozen=True)
class ComposedRows(Rows):
    """
    The pictures of a call whose mixed pictures are composed: for every soundscape and image number a row for each of
    its sources.

    Attributes:
        numbers (`list[int]`): Which of the mixed pictures each row is part of.
        boxes (`list[list[Box]]`): Where in the mixed picture the sources of each soundscape stand; the last ones of
            more than there is room for have no box.
        separate (`bool`): Whether sources are given their pictures, too.
    """

    numbers: list[int]
    boxes: list[list[Box]]
    separate: bool

    @property
    def num_mixed(self) -> int:
        return self.numbers[-1] + 1

    def mixed(self) -> list[int]:
        """After [`complete`]."""
        return list(range(self.num_mixed))

    def of_source(self, soundscape: int, source: int) -> list[int]:
        """After [`complete`]."""
        rows = super().of_source(soundscape, source) if self.separate else []
        return [self.num_mixed + row for row in rows]

    def mixed_numbers(self) -> list[int]:
        return self.numbers

    def complete(self, images: torch.Tensor) -> torch.Tensor:
        """The mixed pictures, and after them those of the rows `(R, C, H, W)`, in [-1, 1]."""
        mixed = []
        for number in range(self.num_mixed):
            rows = [row for row, other in enumerate(self.numbers) if other == number]
            boxes = self.boxes[self.soundscapes[rows[0]]]
            mixed.append(compose(images[rows[: len(boxes)]], boxes))
        return torch.cat([torch.stack(mixed), images])


def composed_rows(
    embeds: torch.Tensor, weight: torch.Tensor, mask: torch.Tensor, num_images_per_prompt: int, separate: bool
) -> tuple[ComposedRows, torch.Tensor, torch.Tensor]:
    """
    Rows with their tokens and mask.

    Args:
        embeds (`torch.Tensor` of shape `(B, S, M, C)`): Condition tokens.
        weight (`torch.Tensor` of shape `(B, S)`): Of the sources, which say how large they are.
        mask (`torch.Tensor` of shape `(B, S)`): Those to draw.
        num_images_per_prompt (`int`): Pictures of each kind.
        separate (`bool`): Whether each source is given its pictures.
    """
    tokens: list[torch.Tensor] = []
    soundscapes: list[int] = []
    sources: list[int | None] = []
    numbers: list[int] = []
    boxes: list[list[Box]] = []
    for soundscape, present in enumerate(mask):
        slots: Sequence[int] = present.nonzero().flatten().tolist()
        if len(slots) > MOST_PLACED:
            warnings.warn(
                f"Soundscape {soundscape}: of {len(slots)} sources the mixed picture shows the {MOST_PLACED} surest.",
                stacklevel=4,
            )
            slots = slots if separate else slots[:MOST_PLACED]
        boxes.append(place_sources(weight[soundscape, slots[:MOST_PLACED]].tolist()))
        for image in range(num_images_per_prompt):
            for source, slot in enumerate(slots):
                tokens.append(embeds[soundscape, slot])
                soundscapes.append(soundscape)
                sources.append(source)
                numbers.append(soundscape * num_images_per_prompt + image)
    return ComposedRows(soundscapes, sources, numbers, boxes, separate), *pad_tokens(tokens)
