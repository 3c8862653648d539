"""What the models say of one window, in the form that tracking and rendering take it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class SlotEncoding:
    """
    One of a window's K slots, averaged over the window's augmented views.

    Attributes:
        presence (`float`): Probability that it holds a source.
        class_probs (`np.ndarray` of shape `(num_labels,)`): Label probabilities, each view's weighted by its presence;
            they add up to the presence.
        audio_embed (`np.ndarray` of shape `(E,)`): Unit vector.
        tokens_by_label (`Mapping[int, tuple[float, torch.Tensor]]`): For every label that a view gives it, presence
            and condition tokens `(M, C)` of the view that is most certain; empty for slots that were not kept.
        mask (`np.ndarray` of shape `(bands, frames)`, *optional*): Spectrogram mask, float16; `None` if the separator
            makes none, and for slots that were not kept.
    """

    presence: float
    class_probs: np.ndarray
    audio_embed: np.ndarray
    tokens_by_label: Mapping[int, tuple[float, torch.Tensor]]
    mask: np.ndarray | None

    @property
    def label_index(self) -> int:
        """Index of the most probable label."""
        return int(self.class_probs.argmax())


@dataclass(frozen=True)
class WindowEncoding:
    """
    One window of a recording.

    Attributes:
        number (`int`): Its place among the recording's windows.
        slots (`tuple[SlotEncoding, ...]`): All K slots, in the separator's order.
    """

    number: int
    slots: tuple[SlotEncoding, ...]
