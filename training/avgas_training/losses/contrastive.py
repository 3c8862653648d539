"""Alignment of embeddings with those of teachers."""

import torch
import torch.nn.functional as F

from ..processes import ALONE, Processes


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
