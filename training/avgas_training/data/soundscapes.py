"""Mixtures as the separator and the generator learn from them."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch.utils.data import Dataset
from transformers import FeatureExtractionMixin, PreTrainedModel

from avgas_pipeline.audio.loudness import reference_gain
from avgas_pipeline.audio.windows import Window
from avgas_pipeline.data.clips import BACKGROUND_LABEL
from avgas_pipeline.data.mixtures import Mixture, MixtureSampler
from avgas_pipeline.data.scenes import crop_of
from avgas_pipeline.models.encoder_adapters import encoder_inputs, window_length


class SoundscapeDataset(Dataset):
    """
    An endless sequence of mixtures: number i is example `i % num_examples` of epoch `i // num_examples`, whatever
    process or worker asks for it.

    Args:
        sampler ([`MixtureSampler`]): Draws them, of the encoder's window and rate.
        num_examples (`int`): Mixtures in an epoch.
        num_epochs (`int`): How many epochs there are.
        repeat (`bool`, defaults to `False`): Every epoch has the same mixtures, so that they can be cached.
    """

    def __init__(self, sampler: MixtureSampler, num_examples: int, num_epochs: int, repeat: bool = False) -> None:
        self.sampler = sampler
        self.num_examples = num_examples
        self.num_epochs = num_epochs
        self.repeat = repeat

    def __len__(self) -> int:
        return self.num_examples * self.num_epochs

    def __getitem__(self, number: int) -> Mixture:
        epoch, index = divmod(number, self.num_examples)
        return self.sampler.sample(index, 0 if self.repeat else epoch)


class Collator:
    """
    From mixtures to a batch: the encoder's inputs, waveforms, labels and pictures. Runs in the loader's workers.

    Args:
        feature_extractor (`FeatureExtractionMixin`): The audio encoder's.
        audio_encoder (`PreTrainedModel`): Only its configuration is used.
        label2id (`Mapping[str, int]`): Index of every label.
        max_sources (`int`): N: places for sources in every batch, so that all processes have as many.
        picture_rows (`Mapping[str, int]`, *optional*): Row of every picture in a table of embeddings.
        with_stems (`bool`, defaults to `False`): Whether batches have the encoder's inputs of the clean sources, too.
        sampler ([`MixtureSampler`], *optional*): Draws target images, if they are needed.
        separated_fraction (`float`, defaults to 0.0): Of examples, whose target shows one of their sources alone.
    """

    def __init__(
        self,
        feature_extractor: FeatureExtractionMixin,
        audio_encoder: PreTrainedModel,
        label2id: Mapping[str, int],
        max_sources: int,
        picture_rows: Mapping[str, int] | None = None,
        with_stems: bool = False,
        sampler: MixtureSampler | None = None,
        separated_fraction: float = 0.0,
    ) -> None:
        self.feature_extractor = feature_extractor
        # Weights would be copied to every worker.
        self.audio_encoder = weightless(audio_encoder)
        self.label2id = label2id
        self.max_sources = max_sources
        self.picture_rows = picture_rows
        self.with_stems = with_stems
        self.sampler = sampler
        self.separated_fraction = separated_fraction

    def __call__(self, mixtures: Sequence[Mixture]) -> dict[str, Any]:
        """
        `encoder` (inputs of the mixtures), `waveform` `(B, T)`, `stems` `(B, N, T)`, `labels` `(B, N)` with -1 for no
        source, and as asked for `clean_encoder` (inputs of the sources, of all mixtures in a row), `picture_rows`
        `(B, N)`, `pixel_values` `(B, 3, H, W)` in [-1, 1] with `shown` `(B, N)`, the sources in the picture, and
        `picture_sizes` `(B, 4)`: height and width before pictures were scaled, and what was cut off above and left.
        """
        most = self.max_sources
        length = len(mixtures[0].waveform)
        stems = np.zeros((len(mixtures), most, length), dtype=np.float32)
        labels = torch.full((len(mixtures), most), -1)
        rows = torch.full((len(mixtures), most), -1)
        for number, mixture in enumerate(mixtures):
            sources = [place for place, label in enumerate(mixture.labels) if label != BACKGROUND_LABEL]
            count = len(sources)
            stems[number, :count] = mixture.stems[sources]
            labels[number, :count] = torch.tensor([self.label2id[mixture.labels[place]] for place in sources])
            if self.picture_rows is not None:
                pictures = [mixture.plan.sources[place].picture for place in sources]
                rows[number, :count] = torch.tensor([self.picture_rows[picture] for picture in pictures])
        batch = {
            "encoder": self.encoder_inputs([mixture.waveform for mixture in mixtures]),
            "waveform": torch.from_numpy(np.stack([mixture.waveform for mixture in mixtures])),
            "stems": torch.from_numpy(stems),
            "labels": labels,
        }
        if self.with_stems:
            # A row for each source, in the order of the labels.
            clean = list(stems[labels.numpy() >= 0])
            # All mixtures may be backgrounds, and feature extractors take no empty batch.
            batch["clean_encoder"] = self.encoder_inputs(clean) if clean else {}
        if self.picture_rows is not None:
            batch["picture_rows"] = rows
        if self.sampler is not None:
            shown = labels >= 0
            images, sizes = [], []
            for number, mixture in enumerate(mixtures):
                alone = self._source_alone(mixture)
                if alone is not None:
                    shown[number] = torch.arange(most) == alone
                images.append(to_pixels(self._target(mixture, alone)))
                sizes.append(self._picture_size(mixture, alone))
            batch["pixel_values"], batch["shown"] = torch.stack(images), shown
            batch["picture_sizes"] = torch.tensor(sizes, dtype=torch.float32)
        return batch

    def _source_alone(self, mixture: Mixture) -> int | None:
        """The source that an example's picture shows alone, decided by its own seed; `None` for all of them."""
        rng = np.random.default_rng([mixture.plan.scene_seed, 7])
        if rng.random() >= self.separated_fraction:
            return None
        return int(rng.integers(len(mixture.labels)))

    def _target(self, mixture: Mixture, alone: int | None) -> PIL.Image.Image:
        if alone is None:
            return mixture.image
        return self.sampler.render_image(replace(mixture.plan, sources=[mixture.plan.sources[alone]]))

    def _picture_size(self, mixture: Mixture, alone: int | None) -> tuple[int, int, int, int]:
        """Of a photograph that fills the target, its own size and crop; of what is composed, the target's."""
        side, sources = self.sampler.image_size, mixture.plan.sources
        if alone is None and self.sampler.target == "single":
            alone = max(range(len(sources)), key=lambda place: sources[place].gain_db)
        shown = mixture.pictures if alone is None else [mixture.pictures[alone]]
        if len(shown) > 1 or self.sampler.target == "compose" or shown[0].mode == "RGBA":
            return side, side, 0, 0
        return (shown[0].height, shown[0].width, *crop_of(shown[0], side, side)[:2])

    def encoder_inputs(self, waveforms: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
        """The audio encoder's inputs for whole windows, each brought to the reference level as by the pipeline."""
        rate = self.feature_extractor.sampling_rate
        windows = [Window(0, waveform, len(waveform), reference_gain(waveform, rate)) for waveform in waveforms]
        return encoder_inputs(self.feature_extractor, self.audio_encoder, windows)


def to_pixels(image: PIL.Image.Image) -> torch.Tensor:
    """An RGB image as `(3, H, W)` in [-1, 1]."""
    return torch.from_numpy(np.asarray(image, dtype=np.float32)).permute(2, 0, 1) / 127.5 - 1.0


def weightless(model: PreTrainedModel) -> PreTrainedModel:
    """A model of the same class and configuration without memory for weights."""
    with torch.device("meta"):
        return type(model)(deepcopy(model.config))


def window_s(feature_extractor: FeatureExtractionMixin) -> float:
    """Length of the encoder's window, in seconds."""
    return window_length(feature_extractor) / feature_extractor.sampling_rate
