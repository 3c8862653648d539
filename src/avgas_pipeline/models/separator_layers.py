"""Layers of [`AudioVisualSeparator`]: attention of slots, the mask decoder, and what an audio classifier adds."""

import math

import torch
import torch.nn.functional as F
from diffusers.models.attention import AttentionModuleMixin, FeedForward
from diffusers.models.attention_dispatch import dispatch_attention_fn
from torch import nn


# Of an audio classifier's scores, what is lower counts as this.
_LEAST_TAG_SCORE = 1e-3


class SeparatorAttnProcessor:
    """Scaled dot-product attention through diffusers' attention backends."""

    _attention_backend = None
    _parallel_config = None

    def __call__(
        self,
        attn: "SeparatorAttention",
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        query = attn.to_q(hidden_states).unflatten(-1, (attn.heads, -1))
        key = attn.to_k(encoder_hidden_states).unflatten(-1, (attn.heads, -1))
        value = attn.to_v(encoder_hidden_states).unflatten(-1, (attn.heads, -1))
        hidden_states = dispatch_attention_fn(
            query,
            key,
            value,
            attn_mask=attention_mask,
            backend=self._attention_backend,
            parallel_config=self._parallel_config,
        )
        hidden_states = hidden_states.flatten(2, 3).to(query.dtype)
        return attn.to_out[1](attn.to_out[0](hidden_states))


class SeparatorAttention(nn.Module, AttentionModuleMixin):
    """Multi-head attention of `hidden_states` to `encoder_hidden_states`, with diffusers' parameter names."""

    _default_processor_cls = SeparatorAttnProcessor
    _available_processors = [SeparatorAttnProcessor]  # noqa: RUF012
    _supports_qkv_fusion = False

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_k = nn.Linear(dim, dim, bias=False)
        self.to_v = nn.Linear(dim, dim, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(dim, dim), nn.Dropout(dropout)])
        self.set_processor(SeparatorAttnProcessor())

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        return self.processor(self, hidden_states, encoder_hidden_states, attention_mask)


class SeparatorBlock(nn.Module):
    """Transformer decoder layer: slots attend to each other, then to the audio tokens."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn1 = SeparatorAttention(dim, heads, dropout)
        self.norm2 = nn.LayerNorm(dim)
        self.attn2 = SeparatorAttention(dim, heads, dropout)
        self.norm3 = nn.LayerNorm(dim)
        self.ff = FeedForward(dim, dropout=dropout, activation_fn="gelu")

    def forward(
        self, slots: torch.Tensor, audio_tokens: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> torch.Tensor:
        normed = self.norm1(slots)
        slots = slots + self.attn1(normed, normed)
        slots = slots + self.attn2(self.norm2(slots), audio_tokens, attention_mask)
        return slots + self.ff(self.norm3(slots))


class PixelDecoder(nn.Module):
    """
    An embedding for every bin of the mixture's spectrogram: fine detail from the spectrogram itself, two levels deep,
    and context from the audio tokens at the coarsest level.
    """

    def __init__(self, token_dim: int, channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 3, padding=1)
        self.down1 = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1)
        self.down2 = nn.Conv2d(2 * channels, 2 * channels, 3, stride=2, padding=1)
        self.token_proj = nn.Conv2d(token_dim, 2 * channels, 1)
        self.context = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1)
        self.up1 = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1)
        self.up2 = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, token_grid: torch.Tensor, spectrogram: torch.Tensor) -> torch.Tensor:
        # One channel, with strides of channels last: convolutions on a CPU are nearly twice as fast so.
        fine = F.silu(self.stem(spectrogram.contiguous()[..., None].permute(0, 3, 1, 2)))
        middle = F.silu(self.down1(fine))
        coarse = self.down2(middle)
        tokens = self.token_proj(token_grid)
        coarse = F.silu(coarse + F.interpolate(tokens, size=coarse.shape[-2:], mode="bilinear", align_corners=False))
        coarse = coarse + F.silu(self.context(coarse))
        middle = F.silu(self.up1(middle + F.interpolate(coarse, size=middle.shape[-2:], mode="nearest")))
        fine = F.silu(fine + self.up2(F.interpolate(middle, size=fine.shape[-2:], mode="nearest")))
        return self.out(fine)


class TagEvidence(nn.Module):
    """
    What an audio classifier's scores over time say of slots: each slot looks at the moments that are its own, and the
    logarithms of their mean scores count for the labels that the classifier has a name for, and for others as far as
    that is learnt.
    """

    def __init__(self, hidden_dim: int, num_tags: int, label_tags: list[list[int]]) -> None:
        super().__init__()
        self.token_proj = nn.Linear(num_tags, hidden_dim)
        self.to_q = nn.Linear(hidden_dim, hidden_dim, bias=False)
        self.to_k = nn.Linear(hidden_dim, hidden_dim, bias=False)
        self.label_weight = nn.Parameter(torch.zeros(len(label_tags)))
        self.label_proj = nn.Linear(num_tags, len(label_tags), bias=False)
        # Nothing changes for slots until it is trained.
        for layer in (self.token_proj, self.label_proj):
            nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.token_proj.bias)
        widest = max(map(len, label_tags))
        # A label without name takes the place behind the last tag.
        rows = [[*tags, *[(tags or [num_tags])[0]] * (widest - len(tags))] for tags in label_tags]
        self.register_buffer("label_tags", torch.tensor(rows).reshape(len(rows), widest), persistent=False)

    def frames(self, tag_logits: torch.Tensor) -> torch.Tensor:
        """What is added to the audio tokens of each moment, `(B, T, hidden_dim)`."""
        return self.token_proj(_relative_log(tag_logits.float().sigmoid()).to(self.token_proj.weight.dtype))

    def forward(self, slots: torch.Tensor, frames: torch.Tensor, tag_logits: torch.Tensor) -> torch.Tensor:
        """Logits to add to those of labels, `(..., B, K, num_labels)`, for slots `(..., B, K, hidden_dim)`."""
        evidence = self._evidence(slots, frames, tag_logits)
        weighed = self.label_weight.float() * self._of_labels(evidence)
        return weighed.to(slots.dtype) + self.label_proj(evidence.to(slots.dtype))

    def named(self, slots: torch.Tensor, frames: torch.Tensor, tag_logits: torch.Tensor) -> torch.Tensor:
        """Evidence `(..., B, K, num_labels)` of the labels that the classifier has a name for, in [0, 1]."""
        return self._of_labels(self._evidence(slots, frames, tag_logits))

    def _evidence(self, slots: torch.Tensor, frames: torch.Tensor, tag_logits: torch.Tensor) -> torch.Tensor:
        query, key = self.to_q(slots), self.to_k(frames)
        attention = (query @ key.transpose(-1, -2) / slots.shape[-1] ** 0.5).float().softmax(dim=-1)
        return _relative_log(attention @ tag_logits.float().sigmoid())

    def _of_labels(self, evidence: torch.Tensor) -> torch.Tensor:
        return F.pad(evidence, (0, 1))[..., self.label_tags].amax(dim=-1)


def _relative_log(scores: torch.Tensor) -> torch.Tensor:
    """Logarithms of scores, 0 for those of 0.001 and less, 1 for 1."""
    return scores.clamp_min(_LEAST_TAG_SCORE).log() / -math.log(_LEAST_TAG_SCORE) + 1
