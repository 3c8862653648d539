"""What is done to sources' slots before the generator learns to draw them."""

import torch
import torch.nn.functional as F

from ..randomness import RowRandom


# Of a label that is known, beside zeros, at a temperature of 1.
CERTAIN_LOGIT = 20.0


def correct_labels(class_logits: torch.Tensor, labels: torch.Tensor, temperature: float) -> torch.Tensor:
    """
    Label logits `(B, N, num_labels)` of sources with labels `(B, N)`, -1 for none: where they are wrong, those of the
    true label, since that is what the picture shows. `temperature` is what they will be divided by.
    """
    right = class_logits.argmax(dim=-1) == labels
    true = CERTAIN_LOGIT * temperature * F.one_hot(labels.clamp(min=0), class_logits.shape[-1]).to(class_logits)
    return torch.where((right | (labels < 0))[..., None], class_logits, true)


def add_slot_noise(slots: torch.Tensor, amount: float, random: RowRandom) -> torch.Tensor:
    """Slots `(B, N, D)` with noise, a multiple of each one's spread (conditioning augmentation, arXiv 2106.15282)."""
    return slots + amount * slots.std(dim=-1, keepdim=True) * random.normal(slots.shape, slots.device)


def shuffle_slots(slots: torch.Tensor, fraction: float, random: RowRandom) -> torch.Tensor:
    """Slots `(B, N, D)`, in a fraction of the rows each from any place of its row, even from one of no source."""
    places = torch.arange(slots.shape[1], device=slots.device).expand(slots.shape[:2])
    anywhere = torch.stack([random.integers(slots.shape[1], slots.device) for _ in range(slots.shape[1])], dim=1)
    moved = random.uniform(slots.device) < fraction
    places = torch.where(moved[:, None], anywhere, places)
    return slots.gather(1, places[..., None].expand_as(slots))
