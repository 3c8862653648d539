"""Which slot holds which source."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from avgas_pipeline import AudioVisualSeparatorOutput


@dataclass
class SeparationTargets:
    """
    The sources of B mixtures, N at most.

    Attributes:
        labels (`torch.Tensor` of shape `(B, N)`): Label indices; -1 where there is no source.
        mask_ratio (`torch.Tensor` of shape `(M, N, F, T)`, *optional*): Ideal ratio masks in [0, 1] of the first M
            mixtures.
        mask_weight (`torch.Tensor` of shape `(M, F, T)`, *optional*): What each bin counts.
        audio_embeds (`torch.Tensor` of shape `(B, N, E)`, *optional*): The teacher's, of the clean clips; unit norm.
        visual_embeds (`torch.Tensor` of shape `(B, N, V)`, *optional*): The image encoder's; unit norm.
    """

    labels: torch.Tensor
    mask_ratio: torch.Tensor | None = None
    mask_weight: torch.Tensor | None = None
    audio_embeds: torch.Tensor | None = None
    visual_embeds: torch.Tensor | None = None


@torch.no_grad()
def match_sources(output: AudioVisualSeparatorOutput, targets: SeparationTargets) -> torch.Tensor:
    """
    The slot of every source, by the Hungarian algorithm on the cost of class, embeddings and mask, as in MaskFormer
    (arXiv 2107.06278). A slot's class counts as far as the slot is present: of two that say the same source, the one
    that says it is present gets it, and keeps it.

    Returns:
        `torch.Tensor` of shape `(B, N)`: Slot numbers; -1 where there is no source, or no slot is left for it.
    """
    labels = targets.labels
    probs = output.class_logits.float().softmax(dim=-1) * output.presence_logits.float().sigmoid()[..., None]
    # (B, K, N)
    cost = -probs.gather(2, labels.clamp(min=0)[:, None].expand(-1, probs.shape[1], -1))
    for own, others in ((output.audio_embeds, targets.audio_embeds), (output.visual_embeds, targets.visual_embeds)):
        if others is not None:
            cost = cost - own.float() @ others.float().transpose(1, 2)
    if output.mask_logits is not None and targets.mask_ratio is not None:
        masks = output.mask_logits.float().sigmoid().flatten(2)
        weight = targets.mask_weight.flatten(1)
        weight = weight / weight.sum(dim=1, keepdim=True).clamp_min(1e-8)
        for number in range(labels.shape[1]):
            error = (masks - targets.mask_ratio[:, number].flatten(1)[:, None]).abs()
            cost[: len(error), :, number] += (error * weight[:, None]).sum(dim=2)

    # A model that has diverged is told by its loss.
    cost = cost.nan_to_num()
    slots = np.full(labels.shape, -1)
    for row, (row_cost, present) in enumerate(zip(cost.cpu().numpy(), (labels >= 0).cpu().numpy(), strict=True)):
        numbers = present.nonzero()[0]
        matched, sources = linear_sum_assignment(row_cost[:, numbers])
        slots[row, numbers[sources]] = matched
    return torch.from_numpy(slots).to(labels)
