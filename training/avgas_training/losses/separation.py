"""Losses of the separator, after its slots are matched to the sources."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from avgas_pipeline import AudioVisualSeparatorOutput

from ..processes import ALONE, Processes
from .contrastive import info_nce
from .matching import SeparationTargets, match_sources


def separation_losses(
    output: AudioVisualSeparatorOutput,
    targets: SeparationTargets,
    label_smoothing: float = 0.0,
    processes: Processes = ALONE,
) -> dict[str, torch.Tensor]:
    """
    All losses of a separator with more than one slot, by name: `presence`, `label`, in training mode `aux` (both of
    them, of the same slots before every layer), and as far as there are targets `a2a`, `a2v` and `mask`, the
    cross-entropy of masks with ideal ratio masks, which stays above 0 even where they are equal. Means are over the
    sources of all processes.

    Args:
        output ([`AudioVisualSeparatorOutput`]): Of B mixtures.
        targets ([`SeparationTargets`]): Of the same.
        label_smoothing (`float`, defaults to 0.0): Of the label loss, in [0, 1).
        processes ([`Processes`], *optional*): The others.
    """
    slots = match_sources(output, targets)
    found = slots >= 0
    rows, sources = found.nonzero(as_tuple=True)
    matched = slots[rows, sources]
    settings = (targets.labels, slots, label_smoothing, processes)
    losses = _presence_and_label(output.presence_logits, output.class_logits, *settings)
    if output.aux_class_logits is not None:
        layers = [
            sum(_presence_and_label(*logits, *settings).values())
            for logits in zip(output.aux_presence_logits, output.aux_class_logits, strict=True)
        ]
        losses["aux"] = torch.stack(layers).mean()
    # One row per place for a source, empty or not, so that all processes have as many.
    batch = torch.arange(len(slots), device=slots.device)[:, None]
    flat_labels = targets.labels.masked_fill(~found, -1).flatten()
    for name, own, others in (
        ("a2a", output.audio_embeds, targets.audio_embeds),
        ("a2v", output.visual_embeds, targets.visual_embeds),
    ):
        if others is not None:
            own = own[batch, slots.clamp(min=0)].flatten(0, 1)
            losses[name] = info_nce(own, others.flatten(0, 1), flat_labels, processes=processes)
    if output.mask_logits is not None and targets.mask_ratio is not None:
        masked = rows < len(targets.mask_ratio)
        rows, sources, matched = rows[masked], sources[masked], matched[masked]
        ratio = targets.mask_ratio[rows, sources]
        # Least where the mask is the mean of what it may be, as Wiener's is; absolute error would want its median.
        error = F.binary_cross_entropy_with_logits(output.mask_logits[rows, matched].float(), ratio, reduction="none")
        weight = targets.mask_weight[rows]
        losses["mask"] = (error * weight).sum() / processes.mean_count(weight.sum())
    return losses


def single_embedding_losses(
    output: AudioVisualSeparatorOutput,
    targets: SeparationTargets,
    label_smoothing: float = 0.0,
    processes: Processes = ALONE,
) -> dict[str, torch.Tensor]:
    """
    The losses of a separator with one slot, the baseline without separation: its one embedding is drawn to the mean of
    the sources' embeddings, and its label probabilities are spread evenly over their labels. Arguments are those of
    [`separation_losses`].
    """
    present = (targets.labels >= 0).float()
    share = present / present.sum(dim=1, keepdim=True).clamp_min(1)
    wanted = torch.zeros_like(output.class_logits[:, 0], dtype=torch.float32)
    wanted.scatter_add_(1, targets.labels.clamp(min=0), share)
    logits = output.presence_logits.float()
    losses = {
        "presence": F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits)),
        "label": F.cross_entropy(output.class_logits[:, 0].float(), wanted, label_smoothing=label_smoothing),
    }
    # A mixture is its own class.
    distinct = processes.rank * len(wanted) + torch.arange(len(wanted), device=wanted.device)
    for name, own, others in (
        ("a2a", output.audio_embeds, targets.audio_embeds),
        ("a2v", output.visual_embeds, targets.visual_embeds),
    ):
        if others is not None:
            mean = F.normalize((others * share[..., None].to(others)).sum(dim=1), dim=-1)
            losses[name] = info_nce(own[:, 0], mean, distinct, processes=processes)
    return losses


def losses_for(output: AudioVisualSeparatorOutput) -> Callable:
    """[`separation_losses`], or for a separator with one slot [`single_embedding_losses`]."""
    return single_embedding_losses if output.presence_logits.shape[1] == 1 else separation_losses


def _presence_and_label(
    presence_logits: torch.Tensor,
    class_logits: torch.Tensor,
    labels: torch.Tensor,
    slots: torch.Tensor,
    label_smoothing: float,
    processes: Processes,
) -> dict[str, torch.Tensor]:
    """Losses of presence and label, of sources matched with slots `(B, N)`."""
    found = slots >= 0
    rows, sources = found.nonzero(as_tuple=True)
    matched = slots[rows, sources]
    presence = torch.zeros_like(presence_logits, dtype=torch.float32)
    presence[rows, matched] = 1.0
    label_loss = F.cross_entropy(
        class_logits[rows, matched].float(), labels[rows, sources], reduction="sum", label_smoothing=label_smoothing
    )
    return {
        "presence": F.binary_cross_entropy_with_logits(presence_logits.float(), presence),
        "label": label_loss / processes.mean_count(found.sum()),
    }
