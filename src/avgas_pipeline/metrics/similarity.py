"""Similarity of generated images to their soundscapes (AIS) and to the pictures that go with them (IIS)."""

from typing import Any

import torch
import torch.nn.functional as F
from torchmetrics import Metric

from .base import concatenate


def paired_similarity(image_embeds: torch.Tensor, reference_embeds: torch.Tensor) -> dict[str, torch.Tensor]:
    r"""
    How much closer each image is to its own reference than to others', by the cosine s(i, j) of image i and
    reference j:

    - `cosine`: s(i, i), as in MACS, in [-1, 1];
    - `z_score`: s(i, i) among the cosines of *all other* generated images to the same reference, in their standard
      deviations, as in MACS; 0 on average by chance; NaN where the others do not differ;
    - `win_rate`: the share of the *other references* that are less similar to the image than its own, ties counting
      half, as in SonicDiffusion (arXiv 2405.00878); in [0, 1], 0.5 by chance.

    MACS and SonicDiffusion call different ones of these AIS and IIS, so they have names of their own here. None of
    them knows of classes: with one class or several, the pair is what counts.

    Args:
        image_embeds (`torch.Tensor` of shape `(N, D)`): Of the generated images; N at least 2 for the last two.
        reference_embeds (`torch.Tensor` of shape `(N, D)`): Of their references.

    Returns:
        `dict[str, torch.Tensor]`: each of shape `(N,)`, float64.

    Raises:
        ValueError: If shapes differ.
    """
    if image_embeds.ndim != 2 or image_embeds.shape != reference_embeds.shape:
        raise ValueError(
            f"Embeddings have to be of one shape, (images, dimensions), but are {tuple(image_embeds.shape)} and"
            f" {tuple(reference_embeds.shape)}."
        )
    cosines = F.normalize(image_embeds.double(), dim=-1) @ F.normalize(reference_embeds.double(), dim=-1).T
    own = cosines.diagonal()
    count = len(own)
    if count < 2:
        undefined = torch.full_like(own, float("nan"))
        return {"cosine": own, "z_score": undefined, "win_rate": undefined}

    others = ~torch.eye(count, dtype=torch.bool, device=cosines.device)
    to_same_reference = cosines.T[others].view(count, count - 1)
    deviation = to_same_reference.std(dim=1, correction=0)
    z_score = (own - to_same_reference.mean(dim=1)) / deviation.masked_fill(deviation == 0, float("nan"))
    to_other_references = cosines[others].view(count, count - 1)
    wins = (to_other_references < own[:, None]).double() + 0.5 * (to_other_references == own[:, None]).double()
    return {"cosine": own, "z_score": z_score, "win_rate": wins.mean(dim=1)}


class _PairedSimilarity(Metric):
    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    name = ""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("image_embeds", [], dist_reduce_fx="cat")
        self.add_state("reference_embeds", [], dist_reduce_fx="cat")

    def update(self, image_embeds: torch.Tensor, reference_embeds: torch.Tensor) -> None:
        """Take in a batch of pairs, `(N, D)` each."""
        self.image_embeds.append(image_embeds)
        self.reference_embeds.append(reference_embeds)

    @property
    def values(self) -> dict[str, torch.Tensor]:
        """The values `(N,)` of the pairs that this process has taken in, in order, float64, by name."""
        images, references = (concatenate(state) for state in (self.image_embeds, self.reference_embeds))
        if not len(images):
            images = references = images.view(0, 1)
        return {f"{self.name}_{key}": value for key, value in paired_similarity(images, references).items()}

    def compute(self) -> dict[str, torch.Tensor]:
        """The means, by name."""
        return {name: values.nanmean() for name, values in self.values.items()}


class AudioImageSimilarity(_PairedSimilarity):
    """
    AIS: [`paired_similarity`] of generated images and the soundscapes they were made from, both embedded in one
    audio-visual space (MACS: Wav2CLIP for sound, CLIP ViT-B/32 for images).

    `update(image_embeds, audio_embeds)` with `(N, D)` both; `compute()` gives `ais_cosine` and `ais_z_score` (MACS)
    and `ais_win_rate` (SonicDiffusion), higher is better.
    """

    name = "ais"


class ImageImageSimilarity(_PairedSimilarity):
    """
    IIS: [`paired_similarity`] of generated images and the real pictures that go with their soundscapes, by the
    features of one image model, such as a judge's.

    `update(image_embeds, reference_embeds)` with `(N, D)` both; `compute()` gives `iis_cosine` and `iis_z_score`
    (MACS) and `iis_win_rate` (SonicDiffusion), higher is better.
    """

    name = "iis"
