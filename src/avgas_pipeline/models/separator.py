"""`AudioVisualSeparator`: MaskFormer for sound, from audio tokens to source slots."""

from dataclasses import dataclass, fields
from numbers import Real
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.embeddings import get_1d_sincos_pos_embed_from_grid
from diffusers.utils import BaseOutput
from torch import nn

from .separator_layers import PixelDecoder, SeparatorBlock, TagEvidence


# Label of slots whose source is of no kind that the others name.
UNKNOWN_LABEL = "unknown sound"


@dataclass
class AudioVisualSeparatorOutput(BaseOutput):
    r"""
    What the separator says of a batch of B audio windows, with K slots.

    Args:
        presence_logits (`torch.Tensor` of shape `(B, K)`):
            Which slots hold a source.
        class_logits (`torch.Tensor` of shape `(B, K, num_labels)`):
            Which label a slot's source has.
        audio_embeds (`torch.Tensor` of shape `(B, K, audio_embed_dim)`):
            Unit vectors, aligned with the clean clip's audio embedding (A2A).
        visual_embeds (`torch.Tensor` of shape `(B, K, visual_embed_dim)`):
            Unit vectors, aligned with the embedding of the source's image (A2V).
        condition_tokens (`torch.Tensor` of shape `(B, K, num_condition_tokens, cross_attention_dim)`):
            What a slot hands to the U-Net's cross-attention.
        null_tokens (`torch.Tensor` of shape `(num_condition_tokens, cross_attention_dim)`):
            The learned tokens of no source, for classifier-free guidance. With `pooled_projection_dim` these and the
            condition tokens have one more token, which holds the pooled embedding, padded with zeros.
        mask_logits (`torch.Tensor` of shape `(B, K, num_mask_bands, frames)`, *optional*):
            Soft spectrogram masks before the sigmoid, ratios of a source's amplitude to the soundscape's; `None` if
            the model has no mask decoder (`mask_channels=0`).
        slots (`torch.Tensor` of shape `(B, K, hidden_dim)`, *optional*):
            What the heads are computed from; [`AudioVisualSeparator.condition`] makes condition tokens of them.
        aux_presence_logits (`torch.Tensor` of shape `(num_layers, B, K)`, *optional*):
            Presence as the slots before every layer have it; in training mode only.
        aux_class_logits (`torch.Tensor` of shape `(num_layers, B, K, num_labels)`, *optional*):
            Labels, likewise.
    """

    presence_logits: torch.Tensor
    class_logits: torch.Tensor
    audio_embeds: torch.Tensor
    visual_embeds: torch.Tensor
    condition_tokens: torch.Tensor
    null_tokens: torch.Tensor
    mask_logits: torch.Tensor | None = None
    slots: torch.Tensor | None = None
    aux_presence_logits: torch.Tensor | None = None
    aux_class_logits: torch.Tensor | None = None


class AudioVisualSeparator(ModelMixin, ConfigMixin, PeftAdapterMixin):
    r"""
    Separates the sources of a soundscape into slots, as MaskFormer (arXiv 2107.06278) separates the objects of a
    picture, with the audio-audio and audio-visual alignment of AV-GAS (arXiv 2504.18283).

    K learned queries, moved by the pooled audio, go through `num_layers` transformer decoder layers over the audio
    tokens of any encoder; each slot then has heads for presence, label, two embeddings, the U-Net's condition tokens
    and a spectrogram mask.

    Two baselines are configurations: `num_slots=1, num_layers=0` is a single audio embedding (no separation), and
    `num_slots=2, num_layers=0` over a ResNet-18, trained with hardly more than the A2A and A2V losses, is AV-GAS's
    separator.

    Parameters:
        audio_dim (`int`, defaults to 768):
            Channels of the audio encoder's last hidden state.
        num_slots (`int`, defaults to 8):
            Number of slots K: the most sources one window can have.
        num_layers (`int`, defaults to 4):
            Number of decoder layers; 0 projects the pooled audio to the slots.
        hidden_dim (`int`, defaults to 256):
            Width of the slots; a multiple of `num_attention_heads` and of 4.
        num_attention_heads (`int`, defaults to 8):
            Heads of each attention.
        dropout (`float`, defaults to 0.0):
            Dropout in attention and feed-forward layers.
        num_condition_tokens (`int`, defaults to 8):
            Condition tokens per source, M.
        cross_attention_dim (`int`, defaults to 768):
            Width of a condition token: the U-Net's `cross_attention_dim`.
        pooled_projection_dim (`int`, defaults to 0):
            Width of the pooled embedding that a U-Net takes beside the tokens, as Stable Diffusion XL's; 0 for none.
            It goes wherever the condition tokens go, as one more of them.
        norm_condition_tokens (`bool`, defaults to `True`):
            Whether condition tokens are normalised, as many text encoders' outputs are.
        label_temperature (`float`, *optional*):
            If given, condition tokens are the sum of what the slot's embedding says and of a learned embedding of its
            label: the mean over labels, by their probabilities at this temperature. Near 0 a source that may be one of
            several is drawn as the likeliest, not as something between them; 1 suits a slot that holds all sources.
        audio_embed_dim (`int`, defaults to 512):
            Width of the A2A embedding.
        visual_embed_dim (`int`, defaults to 512):
            Width of the A2V embedding: that of the image encoder used as teacher.
        num_labels (`int`, defaults to 309):
            Number of labels, if `id2label` is not given.
        id2label (`dict[int, str]`, *optional*):
            Label of every class index. One may be "unknown sound": a source that is of none of the other kinds.
        num_prefix_tokens (`int`, defaults to 0):
            Tokens of a 3-D audio hidden state before its grid (AST: 2).
        num_frequency_patches (`int`, defaults to 1):
            Rows of the grid in a 3-D audio hidden state, frequency-major (AST: 12; Whisper: 1).
        mask_channels (`int`, defaults to 32):
            Width of the mask decoder; 0 leaves masks out.
        num_mask_bands (`int`, defaults to 64):
            Mel bands of the masks.
        n_fft (`int`, defaults to 1024):
            Frame of the masks' spectrogram, in samples at the feature extractor's sampling rate.
        hop_length (`int`, defaults to 256):
            Distance between its frames, in samples; below `n_fft`, as separated audio is made of overlapping ones.
        num_tags (`int`, defaults to 0):
            Classes of an audio classifier whose scores are evidence for labels and presence; 0 does without.
        label_tags (`list[list[int]]`, *optional*):
            For every label the classes of that classifier that mean it, if any; needed with `num_tags`.
        pipeline_settings (`dict`, *optional*):
            Not used here: default steps and guidance and the speed variation of the pipeline that this separator is
            part of, so that a pipeline made of its components has the same.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["SeparatorBlock"]  # noqa: RUF012
    _repeated_blocks = ["SeparatorBlock"]  # noqa: RUF012
    _skip_layerwise_casting_patterns = ["norm", "queries", "null_tokens"]  # noqa: RUF012

    @register_to_config
    def __init__(
        self,
        audio_dim: int = 768,
        num_slots: int = 8,
        num_layers: int = 4,
        hidden_dim: int = 256,
        num_attention_heads: int = 8,
        dropout: float = 0.0,
        num_condition_tokens: int = 8,
        cross_attention_dim: int = 768,
        pooled_projection_dim: int = 0,
        norm_condition_tokens: bool = True,
        label_temperature: float | None = None,
        audio_embed_dim: int = 512,
        visual_embed_dim: int = 512,
        num_labels: int = 309,
        id2label: dict[int, str] | None = None,
        num_prefix_tokens: int = 0,
        num_frequency_patches: int = 1,
        mask_channels: int = 32,
        num_mask_bands: int = 64,
        n_fft: int = 1024,
        hop_length: int = 256,
        num_tags: int = 0,
        label_tags: list[list[int]] | None = None,
        pipeline_settings: dict[str, float] | None = None,
    ) -> None:
        super().__init__()
        counts = {
            1: {
                "audio_dim": audio_dim,
                "num_slots": num_slots,
                "hidden_dim": hidden_dim,
                "num_attention_heads": num_attention_heads,
                "num_condition_tokens": num_condition_tokens,
                "cross_attention_dim": cross_attention_dim,
                "audio_embed_dim": audio_embed_dim,
                "visual_embed_dim": visual_embed_dim,
                "num_labels": num_labels,
                "num_frequency_patches": num_frequency_patches,
                "num_mask_bands": num_mask_bands,
                "n_fft": n_fft,
                "hop_length": hop_length,
            },
            0: {
                "num_layers": num_layers,
                "num_prefix_tokens": num_prefix_tokens,
                "mask_channels": mask_channels,
                "num_tags": num_tags,
                "pooled_projection_dim": pooled_projection_dim,
            },
        }
        for least, values in counts.items():
            for name, value in values.items():
                if not isinstance(value, int) or isinstance(value, bool) or value < least:
                    raise ValueError(f"`{name}` has to be a whole number from {least} but is {value!r}.")
        if hidden_dim % num_attention_heads or hidden_dim % 4:
            raise ValueError(
                f"`hidden_dim` has to be a multiple of 4 and of `num_attention_heads` but is {hidden_dim} with"
                f" {num_attention_heads} heads."
            )
        if pooled_projection_dim > cross_attention_dim:
            raise ValueError(
                f"`pooled_projection_dim`, {pooled_projection_dim}, is above `cross_attention_dim`,"
                f" {cross_attention_dim}."
            )
        if not 0 < hop_length < n_fft:
            raise ValueError(f"`hop_length` has to be above 0 and below `n_fft`, {n_fft}, but is {hop_length}.")
        if not isinstance(dropout, Real) or not 0 <= dropout < 1:
            raise ValueError(f"`dropout` has to be a number from 0, and below 1, but is {dropout!r}.")
        if label_temperature is not None and (not isinstance(label_temperature, Real) or label_temperature <= 0):
            raise ValueError(f"`label_temperature` has to be above 0 but is {label_temperature!r}.")
        if id2label is not None and not _numbers_labels(id2label):
            raise ValueError("`id2label` has to be a dictionary that numbers its labels, texts, from 0 without gaps.")
        if id2label is not None:
            num_labels = len(id2label)
            self.register_to_config(num_labels=num_labels)
        if num_tags and not _numbers_tags(label_tags, num_labels, num_tags):
            raise ValueError(
                f"`label_tags` has to list, for each of {num_labels} labels, numbers of tags from 0 to {num_tags - 1}."
            )

        self.audio_norm = nn.LayerNorm(audio_dim)
        self.audio_proj = nn.Linear(audio_dim, hidden_dim)
        self.queries = nn.Parameter(torch.randn(num_slots, hidden_dim))
        self.slot_proj = nn.Linear(hidden_dim, num_slots * hidden_dim)
        self.blocks = nn.ModuleList(
            [SeparatorBlock(hidden_dim, num_attention_heads, dropout) for _ in range(num_layers)]
        )
        self.norm_out = nn.LayerNorm(hidden_dim)

        self.presence_head = nn.Linear(hidden_dim, 1)
        self.class_head = nn.Linear(hidden_dim, num_labels)
        self.audio_embed_head = nn.Linear(hidden_dim, audio_embed_dim)
        self.visual_embed_head = nn.Linear(hidden_dim, visual_embed_dim)
        num_tokens = num_condition_tokens + bool(pooled_projection_dim)
        token_dims = num_tokens * cross_attention_dim
        self.token_head = nn.Sequential(
            nn.Linear(hidden_dim, 2 * hidden_dim),
            nn.GELU(),
            nn.Linear(2 * hidden_dim, token_dims),
        )
        self.label_tokens = nn.Linear(num_labels, token_dims, bias=False) if label_temperature else None
        # U-Nets are used to text encoders' normalised outputs.
        self.token_norm = nn.LayerNorm(cross_attention_dim) if norm_condition_tokens else None
        self.null_tokens = nn.Parameter(torch.randn(num_tokens, cross_attention_dim) * 0.02)

        self.mask_head = nn.Linear(hidden_dim, mask_channels) if mask_channels else None
        self.pixel_decoder = PixelDecoder(hidden_dim, mask_channels) if mask_channels else None
        self.tag_evidence = TagEvidence(hidden_dim, num_tags, label_tags) if num_tags else None
        self.gradient_checkpointing = False

    @property
    def id2label(self) -> dict[int, str]:
        """Label of every class index; JSON keeps the keys of `config.id2label` as strings."""
        if self.config.id2label is None:
            return {index: f"LABEL_{index}" for index in range(self.config.num_labels)}
        return {int(index): label for index, label in self.config.id2label.items()}

    @property
    def unknown_index(self) -> int | None:
        """Index of the label "unknown sound", if there is one."""
        return next((index for index, label in self.id2label.items() if label == UNKNOWN_LABEL), None)

    def forward(
        self,
        audio_hidden_states: torch.Tensor,
        valid_fraction: torch.Tensor | None = None,
        spectrogram: torch.Tensor | None = None,
        tag_logits: torch.Tensor | None = None,
        return_dict: bool = True,
    ) -> AudioVisualSeparatorOutput | tuple:
        r"""
        Args:
            audio_hidden_states (`torch.Tensor`):
                The audio encoder's last hidden state, `(B, tokens, audio_dim)` or `(B, audio_dim, frequency, time)`.
            valid_fraction (`torch.Tensor` of shape `(B,)`, *optional*):
                How much of each window, from its start, is recording and not padding, in (0, 1]. Tokens of the
                padding are masked.
            spectrogram (`torch.Tensor` of shape `(B, num_mask_bands, frames)`, *optional*):
                The mixture, as [`~avgas_pipeline.audio.spectrogram.relative_log_mel`] gives it. Masks have its shape;
                if it has fewer rows than B, only the first windows get masks. Without it masks see only the audio
                tokens, at the resolution of their grid in time.
            tag_logits (`torch.Tensor` of shape `(B, T, num_tags)`, *optional*):
                What an audio classifier says of T moments of each window; needed if there is `num_tags`.
            return_dict (`bool`, defaults to `True`):
                Whether to return an [`AudioVisualSeparatorOutput`] or a tuple of its values.

        Raises:
            ValueError: If the hidden state or the tags do not fit the configuration.
        """
        prefix, grid = self._split_grid(audio_hidden_states)
        batch_size, _, num_rows, num_columns = grid.shape

        grid_tokens = self.audio_proj(self.audio_norm(grid.flatten(2).transpose(1, 2)))
        tag_frames = self._tag_frames(tag_logits)
        if tag_frames is not None:
            at_columns = F.interpolate(tag_frames.transpose(1, 2), size=num_columns, mode="nearest")
            grid_tokens = grid_tokens + at_columns.repeat(1, 1, num_rows).transpose(1, 2)
        position = self._position_embedding(num_rows, num_columns, grid.device).to(grid_tokens.dtype)
        tokens = torch.cat([self.audio_proj(self.audio_norm(prefix)), grid_tokens + position], dim=1)
        valid = self._token_mask(valid_fraction, batch_size, prefix.shape[1], num_rows, num_columns)

        if valid is None:
            attention_mask = None
            pooled = tokens.mean(dim=1)
        else:
            valid = valid.to(tokens.device)
            attention_mask = valid[:, None, None, :]
            weights = valid.to(tokens.dtype)[..., None]
            pooled = (tokens * weights).sum(dim=1) / weights.sum(dim=1)

        num_slots = self.config.num_slots
        slots = self.queries.to(tokens.dtype) + self.slot_proj(pooled).unflatten(-1, (num_slots, -1))
        unfinished = []
        for block in self.blocks:
            unfinished.append(slots)
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                slots = self._gradient_checkpointing_func(block, slots, tokens, attention_mask)
            else:
                slots = block(slots, tokens, attention_mask)
        slots = self.norm_out(slots)
        # Slots learn sooner if every layer is taught (arXiv 2005.12872), and the queries are, too (arXiv 2112.01527).
        aux = self.norm_out(torch.stack(unfinished)) if self.training and unfinished else None

        class_logits = self._class_logits(slots, tag_frames, tag_logits)
        output = AudioVisualSeparatorOutput(
            presence_logits=self.presence_head(slots).squeeze(-1),
            class_logits=class_logits,
            audio_embeds=F.normalize(self.audio_embed_head(slots), dim=-1),
            visual_embeds=F.normalize(self.visual_embed_head(slots), dim=-1),
            condition_tokens=self.condition(slots, class_logits),
            null_tokens=self.null_tokens.to(tokens.dtype),
            mask_logits=self._mask_logits(slots, grid_tokens, num_rows, num_columns, spectrogram),
            slots=slots,
            aux_presence_logits=self.presence_head(aux).squeeze(-1) if aux is not None else None,
            aux_class_logits=self._class_logits(aux, tag_frames, tag_logits) if aux is not None else None,
        )
        if return_dict:
            return output
        return tuple(getattr(output, field.name) for field in fields(output))

    def condition(self, slots: torch.Tensor, class_logits: torch.Tensor | None = None) -> torch.Tensor:
        r"""
        What slots hand to the U-Net's cross-attention.

        Args:
            slots (`torch.Tensor` of shape `(..., hidden_dim)`):
                As [`AudioVisualSeparatorOutput`] has them.
            class_logits (`torch.Tensor` of shape `(..., num_labels)`, *optional*):
                The labels to draw, in place of what the slots alone say. Without `label_temperature` they do nothing.

        Returns:
            `torch.Tensor` of shape `(..., num_condition_tokens, cross_attention_dim)`, with one more token for the
            pooled embedding if there is one.
        """
        tokens = self.token_head(slots)
        if self.label_tokens is not None:
            class_logits = self.class_head(slots) if class_logits is None else class_logits
            class_logits = class_logits.float()
            if self.unknown_index is not None:
                # What is of no kind is drawn, if at all, as what it is most like.
                class_logits = class_logits.clone()
                class_logits[..., self.unknown_index] = -torch.inf
            likely = (class_logits / self.config.label_temperature).softmax(dim=-1)
            tokens = tokens + self.label_tokens(likely.to(slots.dtype))
        tokens = tokens.unflatten(-1, (-1, self.config.cross_attention_dim))
        if self.token_norm is None:
            return tokens
        # The pooled embedding is none of them.
        last = self.config.num_condition_tokens
        return torch.cat([self.token_norm(tokens[..., :last, :]), tokens[..., last:, :]], dim=-2)

    def _tag_frames(self, tag_logits: torch.Tensor | None) -> torch.Tensor | None:
        if self.tag_evidence is None:
            return None
        if tag_logits is None or tag_logits.shape[-1] != self.config.num_tags:
            given = "none" if tag_logits is None else tag_logits.shape[-1]
            raise ValueError(f"The separator needs logits of {self.config.num_tags} tags, but is given {given}.")
        return self.tag_evidence.frames(tag_logits)

    def _class_logits(
        self, slots: torch.Tensor, tag_frames: torch.Tensor | None, tag_logits: torch.Tensor | None
    ) -> torch.Tensor:
        class_logits = self.class_head(slots)
        return class_logits if tag_frames is None else class_logits + self.tag_evidence(slots, tag_frames, tag_logits)

    def _split_grid(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Prefix tokens `(B, P, D)` and the time-frequency grid `(B, D, rows, columns)` of an audio hidden state."""
        if hidden_states.ndim == 4:
            channels, grid = hidden_states.shape[1], hidden_states
            prefix = grid.new_zeros((grid.shape[0], 0, channels))
        elif hidden_states.ndim == 3:
            channels = hidden_states.shape[-1]
            prefix = hidden_states[:, : self.config.num_prefix_tokens]
            tokens = hidden_states[:, self.config.num_prefix_tokens :]
            if tokens.shape[1] == 0 or tokens.shape[1] % self.config.num_frequency_patches:
                raise ValueError(
                    f"{hidden_states.shape[1]} audio tokens are not {self.config.num_prefix_tokens} prefix tokens and"
                    f" a grid of {self.config.num_frequency_patches} frequency patches."
                )
            grid = tokens.transpose(1, 2).unflatten(-1, (self.config.num_frequency_patches, -1))
        else:
            raise ValueError(f"Audio hidden states have to be 3-D or 4-D but are of shape {hidden_states.shape}.")
        if channels != self.config.audio_dim:
            raise ValueError(
                f"Audio hidden states have {channels} channels, but `audio_dim` is {self.config.audio_dim}."
            )
        return prefix, grid

    def _position_embedding(self, num_rows: int, num_columns: int, device: torch.device) -> torch.Tensor:
        """Sine-cosine embedding `(1, rows * columns, hidden_dim)`: half for frequency, half for time."""
        half = self.config.hidden_dim // 2
        rows = torch.arange(num_rows, device=device, dtype=torch.float32)
        columns = torch.arange(num_columns, device=device, dtype=torch.float32)
        row_embed = get_1d_sincos_pos_embed_from_grid(half, rows, output_type="pt")
        column_embed = get_1d_sincos_pos_embed_from_grid(half, columns, output_type="pt")
        grid = torch.cat(
            [
                row_embed[:, None].expand(-1, num_columns, -1),
                column_embed[None].expand(num_rows, -1, -1),
            ],
            dim=-1,
        )
        return grid.reshape(1, num_rows * num_columns, -1)

    @staticmethod
    def _token_mask(
        valid_fraction: torch.Tensor | None, batch_size: int, num_prefix: int, num_rows: int, num_columns: int
    ) -> torch.Tensor | None:
        """`(B, tokens)`, `True` for prefix tokens and for columns that begin before the padding."""
        if valid_fraction is None:
            return None
        begins = torch.arange(num_columns, device=valid_fraction.device) / num_columns
        columns = begins[None] < valid_fraction[:, None]
        grid = columns[:, None].expand(-1, num_rows, -1).reshape(batch_size, -1)
        return torch.cat([grid.new_ones((batch_size, num_prefix)), grid], dim=1)

    def _mask_logits(
        self,
        slots: torch.Tensor,
        grid_tokens: torch.Tensor,
        num_rows: int,
        num_columns: int,
        spectrogram: torch.Tensor | None,
    ) -> torch.Tensor | None:
        if self.pixel_decoder is None:
            return None
        if spectrogram is None:
            spectrogram = slots.new_zeros((slots.shape[0], self.config.num_mask_bands, num_columns))
        token_grid = grid_tokens.transpose(1, 2).unflatten(-1, (num_rows, num_columns))
        bins = self.pixel_decoder(token_grid[: len(spectrogram)], spectrogram.to(slots.dtype))
        return torch.einsum("bkc,bcft->bkft", self.mask_head(slots[: len(spectrogram)]), bins)


def _numbers_labels(id2label: Any) -> bool:
    """Whether it is a dictionary of texts by 0, 1 and so on; JSON makes texts of these numbers."""
    if not isinstance(id2label, dict) or not id2label or not all(isinstance(text, str) for text in id2label.values()):
        return False
    return {str(index) for index in id2label} == {str(index) for index in range(len(id2label))}


def _numbers_tags(label_tags: Any, num_labels: int, num_tags: int) -> bool:
    if not isinstance(label_tags, list) or len(label_tags) != num_labels:
        return False
    return all(
        isinstance(tags, list)
        and all(isinstance(tag, int) and not isinstance(tag, bool) and 0 <= tag < num_tags for tag in tags)
        for tags in label_tags
    )
