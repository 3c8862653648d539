"""What `AVGASPipeline` gives back."""

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import PIL.Image
import torch
from diffusers.utils import BaseOutput


# Names with a lower certainty are said with a "perhaps".
DOUBTFUL = 0.5


@dataclass
class SoundSource:
    r"""
    One source of a soundscape.

    Args:
        label (`str`, *optional*):
            Its most probable label; `None` if that is not certain enough, and when only embeddings were given.
        score (`float`):
            Probability that something is there, in [0, 1], whatever it is. Which name to trust `certainty` says.
        label_score (`float`):
            Probability of the label if something is there, in [0, 1].
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
            Rate of `audio` and `soundscape`, in Hz.
        soundscape (`np.ndarray` of shape `(samples,)`, *optional*):
            The recording that it was found in, as it was heard: mono float32, the same array for all its sources.
            `None` with `return_audio=False`.
        audio_embed (`torch.Tensor` of shape `(audio_embed_dim,)`, *optional*):
            Its audio embedding, a unit vector.
        is_drawn (`bool`):
            Whether pictures show it. Unknown sounds are drawn only if they are asked for, and composed pictures leave
            out what is heard in `negative_audio`.
        images (`list[PIL.Image.Image]`, `np.ndarray` or `torch.Tensor`):
            Its separated images, `num_images_per_prompt` of them; empty without `separate=True`, and for an unknown
            sound that is not drawn.
        prompt (`str`, *optional*):
            What a text-to-image pipeline drew them of; of [`AVGASPipeline.paint`] alone.
    """

    label: str | None = None
    score: float = 1.0
    label_score: float = 1.0
    label_probs: torch.Tensor | None = None
    activity: np.ndarray | None = None
    activity_hop_s: float | None = None
    audio: np.ndarray | None = None
    sampling_rate: int | None = None
    soundscape: np.ndarray | None = None
    audio_embed: torch.Tensor | None = None
    is_drawn: bool = True
    images: list[PIL.Image.Image] | np.ndarray | torch.Tensor = field(default_factory=list)
    prompt: str | None = None

    @property
    def name(self) -> str:
        """What to call it: its label, or "unknown sound", or "source" where nothing was heard."""
        return self.label or ("unknown sound" if self.is_unknown else "source")

    @property
    def certainty(self) -> float:
        """
        Probability that this name is right, in [0, 1]: `score * label_score`, and `score` of what has no label. It is
        the number that the command line, overviews and pages show.
        """
        return self.score * self.label_score if self.label is not None else self.score

    @property
    def is_doubtful(self) -> bool:
        """Whether it has a label that is rather wrong than right."""
        return self.label is not None and self.certainty < DOUBTFUL

    def __repr__(self) -> str:
        parts = [f"{self.name!r}", f"certainty={self.certainty:.2f}"]
        if self.audio is not None:
            parts.append(f"audio={len(self.audio) / self.sampling_rate:.2f} s at {self.sampling_rate} Hz")
        if self.activity is not None:
            parts.append(f"activity={len(self.activity)} frames")
        if len(self.images):
            parts.append(f"images={_describe_images(self.images)}")
        return f"{type(self).__name__}({', '.join(parts)})"

    def _repr_html_(self) -> str | None:
        return _html("source_html", self)

    def nearest(self, id2label: Mapping[int, str], count: int = 3) -> dict[str, float]:
        """The most probable labels with their probabilities; none if it has no `label_probs`."""
        if self.label_probs is None:
            return {}
        probs, indices = self.label_probs.topk(min(count, len(self.label_probs)))
        return {id2label[index]: prob for index, prob in zip(indices.tolist(), probs.tolist(), strict=True)}

    @property
    def is_unknown(self) -> bool:
        """Whether it was heard, and not recognised."""
        return self.label is None and self.label_probs is not None


@dataclass
class EncodedAudio(BaseOutput):
    r"""
    What [`AVGASPipeline.encode_audio`] makes of B soundscapes, with the names of `__call__`'s arguments, so that
    `pipe(**encoded)` draws it. S is the largest number of sources in one soundscape, M the condition tokens of a
    source, C the U-Net's `cross_attention_dim`.

    Args:
        audio_embeds (`torch.Tensor` of shape `(B, S, M, C)`):
            Condition tokens of the present sources, zero after a soundscape's last source.
        audio_attention_mask (`torch.Tensor` of shape `(B, S)`, *optional*):
            `True` where there is a source; everywhere if `None`.
        negative_audio_embeds (`torch.Tensor` of shape `(B, S', M, C)`, *optional*):
            What guidance leads away from: the null tokens (S' = 1), or the sources of `negative_audio`.
        negative_audio_attention_mask (`torch.Tensor` of shape `(B, S')`, *optional*):
            `True` where there is a source; everywhere if `None`.
        null_audio_embeds (`torch.Tensor` of shape `(M, C)`, *optional*):
            The null tokens: where a source's weight of 0 leads.
        sources (`list[list[SoundSource]]`, *optional*):
            The sources of every soundscape, without images.
    """

    audio_embeds: torch.Tensor | None = None
    audio_attention_mask: torch.Tensor | None = None
    negative_audio_embeds: torch.Tensor | None = None
    negative_audio_attention_mask: torch.Tensor | None = None
    null_audio_embeds: torch.Tensor | None = None
    sources: list[list[SoundSource]] | None = None

    def __repr__(self) -> str:
        shapes = [f"{name}={tuple(value.shape)}" for name, value in self.items() if isinstance(value, torch.Tensor)]
        found = [] if self.sources is None else [f"sources={self.sources}"]
        return f"{type(self).__name__}({', '.join(shapes + found)})"

    @property
    def batch_size(self) -> int | None:
        """Number of soundscapes; `None` without `audio_embeds`."""
        return None if self.audio_embeds is None else len(self.audio_embeds)

    def check_shapes(self, cross_attention_dim: int, batch_size: int | None = None) -> None:
        """
        See that all fit each other and a U-Net.

        Args:
            cross_attention_dim (`int`): The U-Net's.
            batch_size (`int`, *optional*): Number of soundscapes, where `audio_embeds` are still to come.

        Raises:
            ValueError: If a shape does not fit, or a soundscape has no source.
        """
        if self.audio_embeds is not None:
            counts = _count_sources("audio", cross_attention_dim, self.audio_embeds, self.audio_attention_mask)
            batch_size = len(counts)
            if self.sources is not None and [len(found) for found in self.sources] != counts:
                given = [len(found) for found in self.sources]
                raise ValueError(f"`sources` has {given} sources, but `audio_embeds` {counts}.")
        elif self.audio_attention_mask is not None or self.sources is not None:
            raise ValueError("`audio_attention_mask` and `sources` go with `audio_embeds`, not with `audio`.")
        negative, negative_mask = self.negative_audio_embeds, self.negative_audio_attention_mask
        if negative is not None:
            _count_sources("negative_audio", cross_attention_dim, negative, negative_mask)
            if negative.shape[0] != batch_size:
                raise ValueError(
                    f"`negative_audio_embeds` is for {negative.shape[0]} soundscapes instead of {batch_size}."
                )
        elif negative_mask is not None:
            raise ValueError("`negative_audio_attention_mask` needs `negative_audio_embeds`.")
        null = self.null_audio_embeds
        if null is not None and (null.ndim != 2 or null.shape[-1] != cross_attention_dim):
            raise ValueError(
                f"`null_audio_embeds` has to be of shape (tokens, {cross_attention_dim}) but is of shape"
                f" {tuple(null.shape)}."
            )

    def with_overrides(self, other: "EncodedAudio") -> "EncodedAudio":
        """The same with what `other` has in place of its own."""
        return EncodedAudio(**{**self, **other})

    def to(self, device: torch.device, dtype: torch.dtype) -> "EncodedAudio":
        """The same with embeddings on a device and in a data type."""
        embeds = {name: value.to(device, dtype) for name, value in self.items() if name.endswith("audio_embeds")}
        return EncodedAudio(**{**self, **embeds})


@dataclass
class AVGASPipelineOutput(BaseOutput):
    r"""
    Args:
        images (`list[PIL.Image.Image]`, `np.ndarray` or `torch.Tensor`):
            Mixed images, `num_images_per_prompt` for every soundscape, in the order of the soundscapes.
        sources (`list[list[SoundSource]]`):
            For every soundscape its sources, that of the highest score first.
        prompts (`list[str]`, *optional*):
            For every soundscape the text that a text-to-image pipeline drew the mixed images of; of
            [`AVGASPipeline.paint`] alone.
    """

    images: list[PIL.Image.Image] | np.ndarray | torch.Tensor
    sources: list[list[SoundSource]]
    prompts: list[str] | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(images={_describe_images(self.images)}, sources={self.sources})"

    def _repr_html_(self) -> str | None:
        return _html("output_html", self)

    def overview(self, number: int = 0, title: str | None = None) -> PIL.Image.Image:
        """
        The figure that the command line makes: spectrogram, activity of the sources, mixed and separated images.

        Args:
            number (`int`, defaults to 0): Which soundscape.
            title (`str`, *optional*): Put above the figure.

        Raises:
            ValueError: If images are not PIL images, or the recording is not known: only embeddings were given, or it
                was encoded with `return_audio=False`.
        """
        return _of_package("results.outputs").output_overview(self, number, title)

    def save(self, output_dir: str | os.PathLike, recording: str | os.PathLike | None = None) -> list[Path]:
        """
        Write what the command line writes: images, separated audio, `sources.json` and `overview.png`. Several
        soundscapes get a folder each, `0`, `1` and so on.

        Args:
            output_dir (`str` or `os.PathLike`): Made if missing; what an earlier call wrote there is replaced.
            recording (`str` or `os.PathLike`, *optional*): The file that it was drawn of, if it is one: separated
                audio then has its rate and channels, and adds up to it with `rest.wav`.

        Returns:
            `list[Path]`: The files.

        Raises:
            ValueError: As [`AVGASPipelineOutput.overview`], or if there are several soundscapes and a `recording`.
            OSError: If they can't be written; then none of a soundscape is.
        """
        return _of_package("results.outputs").save_output(self, output_dir, recording)


def _of_package(module: str) -> ModuleType:
    # Not an import statement, which would take it into remote code, where what draws figures is not needed.
    try:
        return importlib.import_module(f"avgas_pipeline.{module}")
    except ModuleNotFoundError as error:
        if error.name != "avgas_pipeline":
            raise
        raise ImportError("Files and figures are made by avgas-pipeline, which is not installed.") from None


def _html(function: str, shown: Any) -> str | None:
    """For notebooks, which show the `repr` of what has none."""
    try:
        module = _of_package("results.html")
    except ImportError:
        return None
    return getattr(module, function)(shown)


def _describe_images(images: Any) -> str:
    """Number and size of images, whatever holds them."""
    if isinstance(images, (np.ndarray, torch.Tensor)):
        return f"{type(images).__name__} {tuple(images.shape)}"
    sizes = " ".join(dict.fromkeys(f"{image.width}x{image.height}" for image in images))
    return f"{len(images)} of {sizes}" if len(images) else "none"


def _count_sources(name: str, width: int, embeds: torch.Tensor, mask: torch.Tensor | None) -> list[int]:
    """Checks `<name>_embeds` and `<name>_attention_mask`; gives the number of sources in every soundscape."""
    if embeds.ndim != 4 or embeds.shape[-1] != width:
        raise ValueError(
            f"`{name}_embeds` has to be of shape (soundscapes, sources, tokens, {width}) but is of shape"
            f" {tuple(embeds.shape)}."
        )
    mask = torch.ones(embeds.shape[:2]) if mask is None else mask
    if mask.shape != embeds.shape[:2]:
        raise ValueError(
            f"`{name}_attention_mask` has to be of shape {tuple(embeds.shape[:2])}, as `{name}_embeds`, but is of"
            f" shape {tuple(mask.shape)}."
        )
    counts = (mask != 0).sum(dim=1).tolist()
    if not all(counts):
        raise ValueError(f"`{name}_embeds` has a soundscape without a source.")
    return counts
