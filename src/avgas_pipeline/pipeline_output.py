"""What `AVGASPipeline` gives back."""

from dataclasses import dataclass, field

import numpy as np
import PIL.Image
import torch
from diffusers.utils import BaseOutput


@dataclass
class SoundSource:
    r"""
    One source heard in a soundscape.

    Args:
        label (`str`, *optional*):
            Its most probable label; `None` when only embeddings were given.
        score (`float`):
            Probability that it is present, in [0, 1].
        label_score (`float`):
            Probability of the label, in [0, 1].
        label_probs (`torch.Tensor` of shape `(num_labels,)`, *optional*):
            Probability of every label, in the order of the separator's `id2label`.
        activity (`np.ndarray` of shape `(frames,)`, *optional*):
            Its share of the soundscape's energy over the whole recording, in [0, 1]; 0 where the soundscape is
            silent. `None` if the separator has no masks.
        activity_hop_s (`float`, *optional*):
            Seconds from one frame of `activity` to the next; frame 0 is centred on the start.
        audio (`np.ndarray` of shape `(samples,)`, *optional*):
            Its separated sound, mono float32, as long as the soundscape. `None` if not asked for or without masks.
        sampling_rate (`int`, *optional*):
            Rate of `audio`, in Hz.
        audio_embed (`torch.Tensor` of shape `(audio_embed_dim,)`, *optional*):
            Its audio embedding, a unit vector.
        images (`list[PIL.Image.Image]`, `np.ndarray` or `torch.Tensor`):
            Its separated images, `num_images_per_prompt` of them; empty without `separate=True`.
    """

    label: str | None = None
    score: float = 1.0
    label_score: float = 1.0
    label_probs: torch.Tensor | None = None
    activity: np.ndarray | None = None
    activity_hop_s: float | None = None
    audio: np.ndarray | None = None
    sampling_rate: int | None = None
    audio_embed: torch.Tensor | None = None
    images: list[PIL.Image.Image] | np.ndarray | torch.Tensor = field(default_factory=list)


@dataclass
class EncodedAudio(BaseOutput):
    r"""
    What [`AVGASPipeline.encode_audio`] hears in B soundscapes, with the names of `__call__`'s arguments, so that
    `pipe(**encoded)` draws it. S is the largest number of sources in one soundscape, M the condition tokens of a
    source, C the U-Net's `cross_attention_dim`.

    Args:
        audio_embeds (`torch.Tensor` of shape `(B, S, M, C)`):
            Condition tokens of the present sources, zero after a soundscape's last source.
        audio_attention_mask (`torch.Tensor` of shape `(B, S)`):
            `True` where there is a source.
        negative_audio_embeds (`torch.Tensor` of shape `(B, S', M, C)`):
            What guidance leads away from: the null tokens (S' = 1), or the sources of `negative_audio`.
        negative_audio_attention_mask (`torch.Tensor` of shape `(B, S')`):
            `True` where there is a source.
        null_audio_embeds (`torch.Tensor` of shape `(M, C)`):
            The null tokens: where a source's weight of 0 leads.
        sources (`list[list[SoundSource]]`):
            The sources of every soundscape, without images.
    """

    audio_embeds: torch.Tensor
    audio_attention_mask: torch.Tensor
    negative_audio_embeds: torch.Tensor
    negative_audio_attention_mask: torch.Tensor
    null_audio_embeds: torch.Tensor
    sources: list[list[SoundSource]]


@dataclass
class AVGASPipelineOutput(BaseOutput):
    r"""
    Args:
        images (`list[PIL.Image.Image]`, `np.ndarray` or `torch.Tensor`):
            Mixed images, `num_images_per_prompt` for every soundscape, in the order of the soundscapes.
        sources (`list[list[SoundSource]]`):
            For every soundscape its sources, the most certain first.
    """

    images: list[PIL.Image.Image] | np.ndarray | torch.Tensor
    sources: list[list[SoundSource]]
