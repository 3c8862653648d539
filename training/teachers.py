"""What the separator is taught: which sources there are, their masks, and how teachers hear and see them."""

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from image_teacher import embed_pictures
from listening import Hearing, spectrograms
from losses import SeparationTargets

from avgas_pipeline import AudioVisualSeparator, AudioVisualSeparatorOutput


class Teacher:
    """The averaged model, which hears the clean clips."""

    def __init__(self, hearing: Hearing, ema: EMAModel) -> None:
        self.hearing = deepcopy(hearing).requires_grad_(False).eval()
        self.ema = ema

    def to(self, device: torch.device) -> None:
        """Move the model and the averages."""
        self.hearing.to(device)
        self.ema.to(device)

    @torch.no_grad()
    def update(self, hearing: Hearing) -> None:
        """Take over the averaged weights, and the model's running statistics."""
        self.ema.copy_to(self.hearing.parameters())
        for own, new in zip(self.hearing.buffers(), hearing.buffers(), strict=True):
            own.copy_(new)

    @torch.no_grad()
    def embed(self, inputs: dict[str, torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
        """
        Embeddings `(B, N, E)` of the sources with labels `(B, N)`, of the slot that most has the source's label; zero
        where there is no source. `inputs` has one row per source.
        """
        output = AudioVisualSeparatorOutput(*self.hearing(inputs, None))
        present = labels >= 0
        # (sources, K)
        scores = output.class_logits.softmax(dim=-1)[torch.arange(len(output.class_logits)), :, labels[present]]
        best = (scores * output.presence_logits.sigmoid()).argmax(dim=1)
        embeds = output.audio_embeds.new_zeros((*labels.shape, output.audio_embeds.shape[-1]))
        embeds[present] = output.audio_embeds[torch.arange(len(best)), best]
        return embeds


class Lessons:
    """
    The targets of a batch.

    Args:
        teacher ([`Teacher`], *optional*): Hears the clean clips, for A2A.
        picture_embeds (`torch.Tensor` of shape `(P, V)`, *optional*): Of all pictures, for A2V.
        sampling_rate (`int`): Of the waveforms, in Hz.
        accelerator (`Accelerator`): The run's, whose precision the teacher hears in.
        mask_fraction (`float`, defaults to 1.0): Of a batch's mixtures, whose masks are taught; one at least.
    """

    def __init__(
        self,
        teacher: Teacher | None,
        picture_embeds: torch.Tensor | None,
        sampling_rate: int,
        accelerator: Accelerator,
        mask_fraction: float = 1.0,
    ) -> None:
        self.teacher = teacher
        self.picture_embeds = picture_embeds
        self.sampling_rate = sampling_rate
        self.accelerator = accelerator
        self.mask_fraction = mask_fraction

    def of(self, batch: dict[str, Any], config: dict[str, Any]) -> tuple[torch.Tensor | None, SeparationTargets]:
        """What the mask decoder sees, `(M, F, T)`, and the targets, for a separator of some configuration."""
        labels = batch["labels"]
        targets, spectrogram = SeparationTargets(labels), None
        if config["mask_channels"]:
            count = math.ceil(self.mask_fraction * len(labels))
            spectrogram, targets.mask_ratio, targets.mask_weight = spectrograms(
                batch["waveform"][:count], batch["stems"][:count], config, self.sampling_rate
            )
        if self.teacher is not None:
            with self.accelerator.autocast():
                targets.audio_embeds = self.teacher.embed(batch["clean_encoder"], labels)
        if self.picture_embeds is not None:
            rows = batch["picture_rows"]
            embeds = self.picture_embeds.to(labels.device)[rows.clamp(min=0)]
            targets.visual_embeds = embeds * (rows >= 0)[..., None]
        return spectrogram, targets


def see_pictures(
    image_encoder: str | None,
    pictures: Sequence[Mapping[str, Any]],
    separator: AudioVisualSeparator,
    device: torch.device,
) -> tuple[torch.Tensor | None, dict[str, int] | None]:
    """
    Embeddings `(P, V)` of all pictures, and the row of each by its id; nothing without an image encoder.

    Raises:
        ValueError: If they are not of the separator's size.
    """
    if image_encoder is None:
        return None, None
    embeds = embed_pictures(image_encoder, pictures, device)
    if separator.config.visual_embed_dim != embeds.shape[1]:
        raise ValueError(
            f"{image_encoder}: has embeddings of {embeds.shape[1]}, but the separator's visual_embed_dim is"
            f" {separator.config.visual_embed_dim}."
        )
    return embeds, {name: number for number, name in enumerate(pictures["id"])}
