"""The A2A teacher: the averaged model, which encodes the clean clips."""

from copy import deepcopy

import torch
from diffusers.training_utils import EMAModel

from avgas_pipeline import AudioVisualSeparatorOutput

from .separation import SeparationModel


class Teacher:
    """
    A copy of a model with averaged weights.

    Args:
        model ([`SeparationModel`]): That learns.
        ema (`EMAModel`): The averages of its weights.
    """

    def __init__(self, model: SeparationModel, ema: EMAModel) -> None:
        self.model = deepcopy(model).requires_grad_(False).eval()
        self.ema = ema

    def to(self, device: torch.device) -> None:
        """Move the copy and the averages."""
        self.model.to(device)
        self.ema.to(device)

    @torch.no_grad()
    def update(self, model: SeparationModel) -> None:
        """Take over the averaged weights, and the model's running statistics."""
        self.ema.copy_to(self.model.parameters())
        for own, new in zip(self.model.buffers(), model.buffers(), strict=True):
            own.copy_(new)

    @torch.no_grad()
    def embed(self, inputs: dict[str, torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
        """
        Embeddings `(B, N, E)` of the sources with labels `(B, N)`, of the slot that most has the source's label; zero
        where there is no source. `inputs` has one row per source.
        """
        present = labels >= 0
        if not present.any():
            width = self.model.separator.config.audio_embed_dim
            return torch.zeros(*labels.shape, width, device=labels.device)
        output = AudioVisualSeparatorOutput(*self.model(inputs, None))
        # (sources, K)
        scores = output.class_logits.softmax(dim=-1)[torch.arange(len(output.class_logits)), :, labels[present]]
        best = (scores * output.presence_logits.sigmoid()).argmax(dim=1)
        embeds = output.audio_embeds.new_zeros((*labels.shape, output.audio_embeds.shape[-1]))
        embeds[present] = output.audio_embeds[torch.arange(len(best)), best]
        return embeds
