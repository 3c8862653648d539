"""From the separator's slots, window by window, to the sources of a whole recording."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment

from ..models.separator import AudioVisualSeparatorOutput


# Slots of different windows are one source from this cosine similarity of their audio embeddings on.
MERGE_SIMILARITY = 0.5
# What is less probable is no source, even if more are expected.
LEAST_PRESENCE = 0.2
# A source forced by `num_sources` may have a probability of 0, and still needs a label and a direction.
LEAST_WEIGHT = 1e-6


@dataclass
class Track:
    """
    One source, followed from window to window.

    Attributes:
        score (`float`): Highest presence probability in any window.
        tokens_by_label (`dict[int, tuple[float, torch.Tensor]]`): Presence probability and condition tokens
            `(M, C)` of the hearing that is most certain, for every label it is heard as.
        audio_embed (`torch.Tensor` of shape `(E,)`): Sum of the windows' embeddings, weighted by presence.
        class_probs (`torch.Tensor` of shape `(num_labels,)`): Sum of the label probabilities, weighted by presence.
        masks (`dict[int, np.ndarray]`): Spectrogram mask `(bands, frames)`, float16, by number of the window.
    """

    score: float
    tokens_by_label: dict[int, tuple[float, torch.Tensor]]
    audio_embed: torch.Tensor
    class_probs: torch.Tensor
    masks: dict[int, np.ndarray] = field(default_factory=dict)

    @property
    def label_index(self) -> int:
        """Index of the most probable label."""
        return int(self.class_probs.argmax())

    @property
    def condition_tokens(self) -> torch.Tensor:
        """Those of shape `(M, C)` of the most certain hearing, among those that hear the label it is given in all."""
        views = self.tokens_by_label
        return views.get(self.label_index, max(views.values(), key=lambda view: view[0]))[1]

    def absorb(self, other: "Track") -> None:
        """Take in the same source of a later window, or another slot of the same window that hears it."""
        self.score = max(self.score, other.score)
        for label, view in other.tokens_by_label.items():
            if label not in self.tokens_by_label or view[0] > self.tokens_by_label[label][0]:
                self.tokens_by_label[label] = view
        self.audio_embed = self.audio_embed + other.audio_embed
        self.class_probs = self.class_probs + other.class_probs
        for number, mask in other.masks.items():
            own = self.masks.get(number)
            # Ratios of amplitude: shares of energy add up.
            self.masks[number] = mask if own is None else np.minimum(np.hypot(own, mask), 1).astype(mask.dtype)


class SourceTracker:
    """
    Chooses the present slots of one recording's windows, in their order, and merges them to sources.

    A window has as many sources as are to be expected, the sum of its slots' presence probabilities, rounded: the most
    probable slots that have as many labels are present, but none below 0.2. With a `presence_threshold` all slots that
    reach it are present, and no other.

    A window's present slots are assigned to the sources known so far by the cosine similarity of their audio
    embeddings (Hungarian algorithm; at most one slot of a window to each source); a slot with a similarity below 0.5
    and another label begins a new source. A source is one sounding class, so slots of a window, and in the end
    sources, with the same label are one.

    With `num_sources`, the most certain sources are kept, and a window's other slots stand by: they become sources
    only if the whole recording has too few, those with a label that it has already the last.

    Args:
        num_sources (`int`, *optional*): Exactly how many sources to find.
        presence_threshold (`float`, *optional*): Probability from which on a slot is present, in [0, 1].
    """

    def __init__(self, num_sources: int | None = None, presence_threshold: float | None = None) -> None:
        self.num_sources = num_sources
        self.presence_threshold = presence_threshold
        self._present: list[Track] = []
        self._standby: list[Track] = []

    def add_window(self, outputs: Sequence[tuple[AudioVisualSeparatorOutput, int]], number: int) -> None:
        """
        Take in the next window.

        Args:
            outputs (`Sequence[tuple[AudioVisualSeparatorOutput, int]]`): What the separator says of it, each with the
                window's row in it: first of the window as it is, then of the same played at other speeds. Presence is
                the mean of all, and so are label probabilities, weighted by presence. Condition tokens are those of
                the most certain hearing of a label, masks and embeddings the first one's.
            number (`int`): The window's number in the recording.
        """
        slots, row = outputs[0]
        tracks = _tracks(_align(outputs))
        least, most = self.presence_threshold, len(tracks)
        if least is None:
            least, most = LEAST_PRESENCE, math.floor(sum(track.score for track in tracks) + 0.5)
        present, absent, labels = [], [], set()
        # The sort is stable: of equally probable slots the first one leads.
        for slot in sorted(range(len(tracks)), key=lambda slot: -tracks[slot].score):
            track = tracks[slot]
            is_probable = track.score >= least
            if not is_probable and self.num_sources is None:
                break
            if slots.mask_logits is not None:
                mask = slots.mask_logits[row, slot].detach().float().sigmoid()
                track.masks[number] = mask.half().cpu().numpy()
            if is_probable and (track.label_index in labels or len(labels) < most):
                present.append(track)
                labels.add(track.label_index)
            else:
                absent.append(track)
        present, repeated = _one_per_label(present)
        _merge(present, self._present)
        if self.num_sources is not None:
            _merge(repeated + absent, self._standby)

    def tracks(self) -> list[Track]:
        """The sources, the most certain first; empty if no slot was present."""
        # What a source is heard as can change from window to window, until it is what another one is.
        found, repeated = _one_per_label(sorted(self._present, key=lambda track: -track.score))
        if self.num_sources is None:
            return found
        # What stands by may be a present source's quiet moments.
        standby = sorted(self._standby, key=lambda track: -track.score)
        labels = {track.label_index for track in found}
        strangers, relatives = [], []
        for track, known in zip(standby, _assign(standby, found), strict=True):
            is_new = known is None and track.label_index not in labels
            (strangers if is_new else relatives).append(track)
            labels.add(track.label_index)
        chosen = (found + strangers + repeated + relatives)[: self.num_sources]
        return sorted(chosen, key=lambda track: -track.score)


def _one_per_label(tracks: list[Track]) -> tuple[list[Track], list[Track]]:
    """Tracks with the same label as one, that of the first; and those that went into another, as they were."""
    sources: dict[int, Track] = {}
    repeated = []
    for track in tracks:
        if track.label_index in sources:
            sources[track.label_index].absorb(track)
            repeated.append(track)
        else:
            views, masks = dict(track.tokens_by_label), dict(track.masks)
            sources[track.label_index] = replace(track, tokens_by_label=views, masks=masks)
    return list(sources.values()), repeated


@dataclass
class _Hearings:
    """
    What the separator says of one window's K slots, each of the H times that it is heard.

    Attributes:
        presence (`torch.Tensor` of shape `(H, K)`): Probabilities.
        class_probs (`torch.Tensor` of shape `(H, K, num_labels)`): Probabilities.
        audio_embeds (`torch.Tensor` of shape `(K, E)`): Unit vectors of the first hearing.
        condition_tokens (`list[torch.Tensor]`): Of shape `(K, M, C)`, on the separator's device, with their gradients.
    """

    presence: torch.Tensor
    class_probs: torch.Tensor
    audio_embeds: torch.Tensor
    condition_tokens: list[torch.Tensor]


def _align(outputs: Sequence[tuple[AudioVisualSeparatorOutput, int]]) -> _Hearings:
    """A row of each output, its slots in the order of the first one's, by the cosine of their audio embeddings."""
    embeds = [output.audio_embeds[row].detach().float().cpu() for output, row in outputs]
    orders = [torch.arange(len(embeds[0]))]
    for other in embeds[1:]:
        similarity = embeds[0] @ other.T
        orders.append(torch.from_numpy(linear_sum_assignment(similarity.numpy(), maximize=True)[1]))
    rows = [(output, row, order) for (output, row), order in zip(outputs, orders, strict=True)]
    presence = [output.presence_logits[row].detach().cpu()[order] for output, row, order in rows]
    classes = [output.class_logits[row].detach().cpu()[order] for output, row, order in rows]
    return _Hearings(
        presence=torch.stack(presence).float().sigmoid(),
        class_probs=torch.stack(classes).float().softmax(dim=-1),
        audio_embeds=embeds[0],
        condition_tokens=[output.condition_tokens[row][order] for output, row, order in rows],
    )


def _tracks(hearings: _Hearings) -> list[Track]:
    """What all hearings say of every slot, with masks left to add."""
    mean_presence = hearings.presence.mean(dim=0)
    weight = hearings.presence.clamp_min(LEAST_WEIGHT)[..., None]
    class_probs = (weight * hearings.class_probs).mean(dim=0)
    audio_embeds = mean_presence.clamp_min(LEAST_WEIGHT)[:, None] * hearings.audio_embeds
    presence, labels = hearings.presence.tolist(), hearings.class_probs.argmax(dim=-1).tolist()
    tracks = []
    for slot, score in enumerate(mean_presence.tolist()):
        tokens_by_label: dict[int, tuple[float, torch.Tensor]] = {}
        for number, tokens in enumerate(hearings.condition_tokens):
            label, certainty = labels[number][slot], presence[number][slot]
            if label not in tokens_by_label or certainty > tokens_by_label[label][0]:
                tokens_by_label[label] = (certainty, tokens[slot])
        tracks.append(Track(score, tokens_by_label, audio_embeds[slot], class_probs[slot]))
    return tracks


def _merge(slots: list[Track], tracks: list[Track]) -> None:
    """Adds one window's slots to the tracks they continue, or as new ones."""
    for slot, known in zip(slots, _assign(slots, tracks), strict=True):
        if known is None:
            tracks.append(slot)
        else:
            known.absorb(slot)


def _assign(slots: list[Track], tracks: list[Track]) -> list[Track | None]:
    """For every slot of a window the track it continues, or `None`."""
    assigned: list[Track | None] = [None] * len(slots)
    if not slots or not tracks:
        return assigned
    slot_embeds = F.normalize(torch.stack([slot.audio_embed for slot in slots]), dim=-1)
    track_embeds = F.normalize(torch.stack([track.audio_embed for track in tracks]), dim=-1)
    similarity = (slot_embeds @ track_embeds.T).float().numpy()
    same_label = np.equal.outer([slot.label_index for slot in slots], [track.label_index for track in tracks])
    eligible = (similarity >= MERGE_SIMILARITY) | same_label
    # A source is one sounding class, so a shared label counts as much as a similarity of 1.
    rows, columns = linear_sum_assignment(np.where(eligible, similarity + same_label, 0.0), maximize=True)
    for row, column in zip(rows, columns, strict=True):
        if eligible[row, column]:
            assigned[row] = tracks[column]
    return assigned
