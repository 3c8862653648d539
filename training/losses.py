"""Losses of the separator, after its slots are matched to the sources, and of the generator."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import SchedulerMixin
from diffusers.training_utils import compute_snr
from processes import Processes
from scipy.optimize import linear_sum_assignment

from avgas_pipeline import AudioVisualSeparatorOutput


ALONE = Processes()


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
    (arXiv 2107.06278). A slot's class counts as far as the slot is present: of two that hear the same source, the one
    that says so gets it, and keeps it.

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

    slots = np.full(labels.shape, -1)
    for row, (row_cost, present) in enumerate(zip(cost.cpu().numpy(), (labels >= 0).cpu().numpy(), strict=True)):
        numbers = present.nonzero()[0]
        matched, sources = linear_sum_assignment(row_cost[:, numbers])
        slots[row, numbers[sources]] = matched
    return torch.from_numpy(slots).to(labels)


def info_nce(
    embeds: torch.Tensor,
    positives: torch.Tensor,
    labels: torch.Tensor,
    temperature: float = 0.07,
    processes: Processes = ALONE,
) -> torch.Tensor:
    """
    InfoNCE (arXiv 1807.03748) on squared L2 distance, both ways: each embedding against its positive among those of
    all other labels, of all processes. Between unit vectors the squared distance is 2 - 2 cos.

    Args:
        embeds (`torch.Tensor` of shape `(P, E)`): Unit norm.
        positives (`torch.Tensor` of shape `(P, E)`): Unit norm.
        labels (`torch.Tensor` of shape `(P,)`): Others of the same label are not negatives; -1 marks rows that do not
            count at all.
        temperature (`float`, defaults to 0.07): What distances are divided by.
        processes ([`Processes`], *optional*): All have the same number of rows.
    """
    embeds, positives = embeds.float(), positives.float()
    all_labels = processes.gather(labels)
    counts = labels >= 0
    own = processes.rank * len(labels) + torch.arange(len(labels), device=labels.device)
    excluded = (labels[:, None] == all_labels[None]) | (all_labels < 0)[None]
    excluded[torch.arange(len(labels)), own] = False
    total = embeds.new_zeros(())
    for anchors, others in ((embeds, positives), (positives, embeds)):
        distances = torch.cdist(anchors, processes.gather(others)).square()
        logits = (-distances / temperature).masked_fill(excluded, float("-inf"))
        total = total + F.cross_entropy(logits, own, reduction="none")[counts].sum()
    return 0.5 * total / processes.mean_count(counts.sum())


def separation_losses(
    output: AudioVisualSeparatorOutput,
    targets: SeparationTargets,
    temperature: float = 0.07,
    label_smoothing: float = 0.0,
    processes: Processes = ALONE,
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """
    All losses of a separator with more than one slot, by name: `presence`, `label`, in training mode `aux` (both of
    them, of the same slots before every layer), and as far as there are targets `a2a`, `a2v` and `mask`, the
    cross-entropy of masks with ideal ratio masks, which stays above 0 even where they are equal. Means are over the
    sources of all processes.

    Args:
        output ([`AudioVisualSeparatorOutput`]): Of B mixtures.
        targets ([`SeparationTargets`]): Of the same.
        temperature (`float`, defaults to 0.07): Of InfoNCE.
        label_smoothing (`float`, defaults to 0.0): Of the label loss, in [0, 1).
        processes ([`Processes`], *optional*): The others.

    Returns:
        The losses, and the matched slots `(B, N)` as of [`match_sources`].
    """
    slots = match_sources(output, targets)
    found = slots >= 0
    rows, sources = found.nonzero(as_tuple=True)
    matched = slots[rows, sources]
    settings = (targets.labels, slots, label_smoothing, processes)
    losses = _what_is_heard(output.presence_logits, output.class_logits, *settings)
    if output.aux_class_logits is not None:
        layers = [
            sum(_what_is_heard(*logits, *settings).values())
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
            losses[name] = info_nce(own, others.flatten(0, 1), flat_labels, temperature, processes)
    if output.mask_logits is not None and targets.mask_ratio is not None:
        masked = rows < len(targets.mask_ratio)
        rows, sources, matched = rows[masked], sources[masked], matched[masked]
        ratio = targets.mask_ratio[rows, sources]
        # Least where the mask is the mean of what it may be, as Wiener's is; absolute error would want its median.
        error = F.binary_cross_entropy_with_logits(output.mask_logits[rows, matched].float(), ratio, reduction="none")
        weight = targets.mask_weight[rows]
        losses["mask"] = (error * weight).sum() / processes.mean_count(weight.sum())
    return losses, slots


def _what_is_heard(
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


def single_embedding_losses(
    output: AudioVisualSeparatorOutput,
    targets: SeparationTargets,
    temperature: float = 0.07,
    label_smoothing: float = 0.0,
    processes: Processes = ALONE,
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """
    The losses of a separator with one slot, the baseline without separation: its one embedding is drawn to the mean of
    the sources' embeddings, and its label probabilities are spread evenly over their labels.

    Returns:
        The losses, and slots `(B, N)`: 0 for the first source, -1 for the others.
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
            losses[name] = info_nce(own[:, 0], mean, distinct, temperature, processes)
    slots = torch.full_like(targets.labels, -1)
    slots[:, 0] = 0
    return losses, slots


def losses_for(output: AudioVisualSeparatorOutput) -> Callable:
    """[`separation_losses`], or for a separator with one slot [`single_embedding_losses`]."""
    return single_embedding_losses if output.presence_logits.shape[1] == 1 else separation_losses


def diffusion_loss(
    prediction: torch.Tensor,
    target: torch.Tensor,
    timesteps: torch.Tensor,
    scheduler: SchedulerMixin,
    snr_gamma: float | None = None,
) -> torch.Tensor:
    """
    Mean squared error of what the U-Net predicts, weighted by the clipped signal-to-noise ratio if `snr_gamma` is
    given (min-SNR, arXiv 2303.09556).

    Args:
        prediction (`torch.Tensor` of shape `(B, C, H, W)`): The U-Net's.
        target (`torch.Tensor` of shape `(B, C, H, W)`): Noise, velocity, latents or flow.
        timesteps (`torch.Tensor` of shape `(B,)`): As given to the U-Net.
        scheduler (`SchedulerMixin`): Knows what is predicted.
        snr_gamma (`float`, *optional*): Where the ratio is clipped; 5 is usual. Not for flow matching.
    """
    error = F.mse_loss(prediction.float(), target.float(), reduction="none").flatten(1).mean(dim=1)
    if snr_gamma is None:
        return error.mean()
    snr = compute_snr(scheduler, timesteps)
    # The same weight of the latents, in units of what is predicted.
    units = {"epsilon": snr, "v_prediction": snr + 1, "sample": torch.ones_like(snr)}
    weight = snr.clamp(max=snr_gamma) / units[scheduler.config.prediction_type]
    return (weight * error).mean()
