"""From the slots of every window to the sources of a whole recording. Plain NumPy: nothing is computed by a model."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from .slots import SlotEncoding, WindowEncoding


# Slots of different windows are one source from this cosine similarity of their audio embeddings on.
MERGE_SIMILARITY = 0.5
# What is less probable is no source, even if more are expected.
LEAST_PRESENCE = 0.2
# A source forced by `num_sources` may have a probability of 0, and still needs a label and a direction.
LEAST_WEIGHT = 1e-6


@dataclass(frozen=True)
class Track:
    """
    One source, followed from window to window.

    Attributes:
        score (`float`): Highest presence probability in any window.
        class_probs (`np.ndarray` of shape `(num_labels,)`): Sum of the slots' label probabilities, weighted by
            presence.
        audio_embed (`np.ndarray` of shape `(E,)`): Sum of the slots' embeddings, weighted by presence.
        tokens_by_label (`Mapping[int, tuple[float, torch.Tensor]]`): Presence and condition tokens `(M, C)` of the
            most certain slot, for every label that one gives it.
        masks (`Mapping[int, np.ndarray]`): Spectrogram mask `(bands, frames)`, float16, by number of the window.
    """

    score: float
    class_probs: np.ndarray
    audio_embed: np.ndarray
    tokens_by_label: Mapping[int, tuple[float, torch.Tensor]]
    masks: Mapping[int, np.ndarray]

    @classmethod
    def begin(cls, slot: SlotEncoding, number: int) -> "Track":
        """A source that is known from one slot of one window."""
        weight = np.float32(max(slot.presence, LEAST_WEIGHT))
        masks = {} if slot.mask is None else {number: slot.mask}
        return cls(slot.presence, slot.class_probs, weight * slot.audio_embed, slot.tokens_by_label, masks)

    @property
    def label_index(self) -> int:
        """Index of the most probable label."""
        return int(self.class_probs.argmax())

    @property
    def condition_tokens(self) -> torch.Tensor:
        """Those `(M, C)` of the most certain slot, among those that agree with the whole track on the label."""
        tokens = self.tokens_by_label
        return tokens.get(self.label_index, max(tokens.values(), key=lambda entry: entry[0]))[1]

    def merged_with(self, other: "Track") -> "Track":
        """This source and the same one in a later window, or in another slot of the same window."""
        tokens = dict(self.tokens_by_label)
        for label, entry in other.tokens_by_label.items():
            if label not in tokens or entry[0] > tokens[label][0]:
                tokens[label] = entry
        masks = dict(self.masks)
        for number, mask in other.masks.items():
            own = masks.get(number)
            # Ratios of amplitude: shares of energy add up.
            masks[number] = mask if own is None else np.minimum(np.hypot(own, mask), 1).astype(mask.dtype)
        return Track(
            score=max(self.score, other.score),
            class_probs=self.class_probs + other.class_probs,
            audio_embed=self.audio_embed + other.audio_embed,
            tokens_by_label=tokens,
            masks=masks,
        )


def present_slots(
    presence: Sequence[float], label_indices: Sequence[int], presence_threshold: float | None = None
) -> list[int]:
    """
    The presence rule: which of a window's slots hold a source, the most probable first.

    As many sources are present as are to be expected, the sum of all presence probabilities, rounded: the most
    probable slots that have as many labels, but none below 0.2. With a `presence_threshold` it is all slots that reach
    it, and no other.

    Args:
        presence (`Sequence[float]`): Presence probability of every slot.
        label_indices (`Sequence[int]`): Most probable label of every slot.
        presence_threshold (`float`, *optional*): In [0, 1].
    """
    least, most = presence_threshold, len(presence)
    if least is None:
        least, most = LEAST_PRESENCE, math.floor(sum(presence) + 0.5)
    present: list[int] = []
    labels: set[int] = set()
    for slot in _by_presence(presence):
        if presence[slot] >= least and (label_indices[slot] in labels or len(labels) < most):
            present.append(slot)
            labels.add(label_indices[slot])
    return present


def track(
    windows: Iterable[WindowEncoding], num_sources: int | None = None, presence_threshold: float | None = None
) -> list[Track]:
    """
    Find the sources of one recording: choose each window's present slots, and merge them over windows.

    A window's present slots ([`present_slots`]) are assigned to the sources known so far by the cosine similarity of
    their audio embeddings (Hungarian algorithm; at most one slot of a window to each source); a slot with a similarity
    below 0.5 and another label begins a new source. A source is one sounding class, so slots of a window, and in the
    end sources, with the same label are one.

    With `num_sources`, the most certain sources are kept, and a window's other slots stand by: they become sources
    only if the whole recording has too few, those with a label that it has already the last.

    Args:
        windows (`Iterable[WindowEncoding]`): In their order. Slots that may become sources have to be kept.
        num_sources (`int`, *optional*): Exactly how many sources to find.
        presence_threshold (`float`, *optional*): Probability from which on a slot is present, in [0, 1].

    Returns:
        `list[Track]`: The sources, that of the highest score first; empty if no slot was present.
    """
    present: list[Track] = []
    standby: list[Track] = []
    for window in windows:
        presence = [slot.presence for slot in window.slots]
        chosen = present_slots(presence, [slot.label_index for slot in window.slots], presence_threshold)
        others = [number for number in _by_presence(presence) if number not in chosen]
        found, repeated = _one_per_label([Track.begin(window.slots[slot], window.number) for slot in chosen])
        present = _continued(present, found)
        if num_sources is not None:
            absent = [Track.begin(window.slots[slot], window.number) for slot in others]
            standby = _continued(standby, repeated + absent)

    # The label of a source can change from window to window, until it is that of another one.
    found, repeated = _one_per_label(_by_score(present))
    if num_sources is None:
        return found
    # What stands by may be a present source's quiet moments.
    labels = {source.label_index for source in found}
    strangers, relatives = [], []
    waiting = _by_score(standby)
    for source, known in zip(waiting, _assign(waiting, found), strict=True):
        is_new = known is None and source.label_index not in labels
        (strangers if is_new else relatives).append(source)
        labels.add(source.label_index)
    return _by_score((found + strangers + repeated + relatives)[:num_sources])


def _by_presence(presence: Sequence[float]) -> list[int]:
    # The sort is stable: of equally probable slots the first one leads.
    return sorted(range(len(presence)), key=lambda slot: -presence[slot])


def _by_score(tracks: Iterable[Track]) -> list[Track]:
    return sorted(tracks, key=lambda source: -source.score)


def _one_per_label(tracks: Iterable[Track]) -> tuple[list[Track], list[Track]]:
    """Tracks with the same label as one, in the place of the first; and those that went into another, as they were."""
    sources: dict[int, Track] = {}
    repeated = []
    for source in tracks:
        label = source.label_index
        if label in sources:
            sources[label] = sources[label].merged_with(source)
            repeated.append(source)
        else:
            sources[label] = source
    return list(sources.values()), repeated


def _continued(known: list[Track], found: list[Track]) -> list[Track]:
    """The tracks known so far with those of one more window: as their continuation, or as new ones after them."""
    tracks = list(known)
    for source, number in zip(found, _assign(found, known), strict=True):
        if number is None:
            tracks.append(source)
        else:
            tracks[number] = tracks[number].merged_with(source)
    return tracks


def _assign(found: list[Track], known: list[Track]) -> list[int | None]:
    """For every track of a window the number of the one that it continues, or `None`."""
    assigned: list[int | None] = [None] * len(found)
    if not found or not known:
        return assigned
    similarity = _unit_vectors(found) @ _unit_vectors(known).T
    same_label = np.equal.outer([one.label_index for one in found], [one.label_index for one in known])
    eligible = (similarity >= MERGE_SIMILARITY) | same_label
    # A source is one sounding class, so a shared label counts as much as a similarity of 1.
    rows, columns = linear_sum_assignment(np.where(eligible, similarity + same_label, 0.0), maximize=True)
    for row, column in zip(rows, columns, strict=True):
        if eligible[row, column]:
            assigned[row] = int(column)
    return assigned


def _unit_vectors(tracks: list[Track]) -> np.ndarray:
    embeds = np.stack([source.audio_embed for source in tracks])
    return embeds / np.maximum(np.linalg.norm(embeds, axis=-1, keepdims=True), 1e-12)
