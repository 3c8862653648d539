"""Examples of what a pipeline draws, encoded once: latents of pictures, and the conditions that go with them."""

from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.data import Dataset

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.data.clips import load_clips
from avgas_pipeline.data.mixtures import MixtureSampler
from avgas_pipeline.data.soundscapes_mini import load_soundscapes_mini
from avgas_pipeline.models.added_conditions import time_ids
from avgas_pipeline.models.latent_scale import scale_latents
from avgas_pipeline.models.separator import AudioVisualSeparator

from ..data.example_cache import EXAMPLE_SETTINGS, ExampleCache
from ..data.objects import ObjectDataset
from ..data.selection import check_labels, choose_designs
from ..data.soundscapes import Collator, SoundscapeDataset, window_s
from ..randomness import RowRandom
from .drawing import DrawingModel
from .generator import Generator, encode_example
from .latents import encode_pictures, sample_latents
from .separation import SeparationModel
from .slots import correct_labels


def draws_by_labels_alone(separator: AudioVisualSeparator) -> bool:
    """Whether condition tokens are those of labels, whatever slots say (`training/mini/tokens_of_labels.py`)."""
    return separator.label_tokens is not None and not any(
        weight.any() for weight in separator.token_head[-1].parameters()
    )


def build_sampler(pipe: AVGASPipeline, clips: Any, pictures: Any, settings: Any) -> MixtureSampler:
    """Mixtures as long as the pipeline's audio encoder hears at once, with pictures of the size that it draws."""
    extractor = pipe.audio_feature_extractor
    sampler = MixtureSampler(
        clips,
        pictures,
        seed=settings.seed,
        num_sources=tuple(settings.num_sources),
        duration_s=window_s(extractor),
        sampling_rate=extractor.sampling_rate,
        augment=settings.augment_fraction,
        target=settings.mixture_target,
        image_size=settings.resolution or pipe.default_size[0],
    )
    if not sampler.has_pictures:
        raise ValueError(f"{settings.dataset}: its clips have no pictures to learn to draw.")
    if sampler.image_size % pipe.vae_scale_factor:
        factor = pipe.vae_scale_factor
        raise ValueError(f"resolution has to be a multiple of {factor} but is {sampler.image_size}.")
    return sampler


def separated_fraction(pipe: AVGASPipeline, settings: Any) -> float:
    """The share of examples that show one source: none where one slot stands for all, and all where mixed pictures
    are composed of the sources' own."""
    if pipe.separator.config.num_slots == 1:
        return 0.0
    return 1.0 if pipe.config.compose_sources else settings.separated_fraction


class LabelledPictures:
    """
    Pictures of labels: for pipelines that draw by labels alone, so that no sound is needed.

    Args:
        pipe ([`AVGASPipeline`]): Draws them.
        settings (`RunSettings`): With `dataset`, `num_examples`, `designs`, `resolution` and `seed`.
        length (`int`): How many are asked for in all.
    """

    fields = ("latents", "label")
    example_settings = ("dataset", "seed", "num_examples", "designs", "resolution")

    def __init__(self, pipe: AVGASPipeline, settings: Any, length: int) -> None:
        separator, name = pipe.separator, settings.pretrained_model_name_or_path
        if separator.token_norm is None:
            raise ValueError(f"{name}: its condition tokens are not normalised.")
        labels = [separator.id2label[number] for number in range(len(separator.id2label))]
        pictures = load_soundscapes_mini(settings.dataset, "train")[1]
        if settings.designs is not None:
            pictures = choose_designs(pictures, settings.designs)
        side = settings.resolution or pipe.default_size[0]
        self.dataset = ObjectDataset(pictures, labels, settings.num_examples, length, settings.seed, side)
        self.labels = labels
        self.vae = pipe.vae
        self.model = DrawingModel(pipe.unet, separator)
        folder = Path(settings.output_dir) / "cache"
        self.cache = ExampleCache(folder, vars(settings), {"vae": pipe.vae}, self.fields, self.example_settings)

    def encoded(self, settings: Any, accelerator: Accelerator) -> Dataset:
        """The examples, encoded; those of an interrupted run are used again."""
        vae = self.vae.requires_grad_(False).to(accelerator.device).eval()

        def encode(batch: dict[str, Any]) -> dict[str, torch.Tensor]:
            with torch.no_grad():
                latents = encode_pictures(vae, batch.pop("pixel_values").to(accelerator.device))[0]
            return {**batch, "latents": scale_latents(vae, latents).half()}

        collate, workers = torch.utils.data.default_collate, settings.dataloader_num_workers
        self.cache.build(self.dataset, collate, encode, accelerator, workers)
        return self.cache.dataset(self.dataset)

    def latents(self, batch: dict[str, torch.Tensor], random: RowRandom) -> torch.Tensor:
        """Scaled latents `(B, C, H, W)` of a batch, float32."""
        return batch["latents"].float()

    def conditions(self, batch: dict[str, torch.Tensor], dropped: torch.Tensor) -> dict[str, Any]:
        """What the U-Net gets beside latents; the null tokens in rows of `dropped` `(B,)`."""
        return self.model.conditions(batch["label"], dropped)


class EncodedSoundscapes:
    """
    Mixtures and their pictures, for any pipeline.

    Args:
        pipe ([`AVGASPipeline`]): Hears and draws them.
        settings (`RunSettings`): With `dataset`, `num_examples`, `num_sources`, `augment_fraction`, `mixture_target`,
            `separated_fraction`, `resolution` and `seed`.
        length (`int`): How many are asked for in all.
    """

    def __init__(self, pipe: AVGASPipeline, settings: Any, length: int) -> None:
        clips, pictures = load_clips(**settings.clips_of_dataset())
        label2id = check_labels(clips["label"], pipe.separator.id2label, settings.pretrained_model_name_or_path)
        extractor = pipe.audio_feature_extractor
        sampler = build_sampler(pipe, clips, pictures, settings)
        self.collate = Collator(
            extractor,
            pipe.audio_encoder,
            label2id,
            settings.num_sources[1],
            sampler=sampler,
            separated_fraction=separated_fraction(pipe, settings),
        )
        epochs = -(-length // settings.num_examples)
        self.dataset = SoundscapeDataset(sampler, settings.num_examples, epochs, repeat=True)
        self.pipe = pipe
        self.generator = Generator(pipe.unet, SeparationModel(pipe.audio_encoder, pipe.separator))
        models = {"audio_encoder": pipe.audio_encoder, "separator": pipe.separator, "vae": pipe.vae}
        decisive = [name for name in EXAMPLE_SETTINGS if name in vars(settings)]
        folder = Path(settings.output_dir) / "cache"
        self.cache = ExampleCache(folder, vars(settings), models, example_settings=decisive)

    def encoded(self, settings: Any, accelerator: Accelerator) -> Dataset:
        """The examples, encoded; those of an interrupted run are used again."""
        device = accelerator.device
        encoder = self.generator.separation.requires_grad_(False).to(device).eval()
        vae = self.pipe.vae.requires_grad_(False).to(device).eval()
        self.cache.build(
            self.dataset,
            self.collate,
            lambda batch: encode_example(encoder, vae, batch, device),
            accelerator,
            settings.dataloader_num_workers,
        )
        return self.cache.dataset(self.dataset)

    def latents(self, batch: dict[str, torch.Tensor], random: RowRandom) -> torch.Tensor:
        """Scaled latents `(B, C, H, W)` of a batch, float32: a new sample of them."""
        return sample_latents(self.pipe.vae, batch, random)

    def conditions(self, batch: dict[str, torch.Tensor], dropped: torch.Tensor) -> dict[str, Any]:
        """What the U-Net gets beside latents; the null tokens in rows of `dropped` `(B,)`."""
        separator, logits = self.pipe.separator, None
        if separator.label_tokens is not None:
            logits = separator.class_head(batch["slots"])
            if separator.config.num_slots > 1:
                logits = correct_labels(logits, batch["labels"], separator.config.label_temperature)
        side = self.dataset.sampler.image_size
        sizes = time_ids(batch["picture_sizes"], side, side)
        return self.generator.conditions(batch["shown"], dropped, batch["slots"], logits, sizes)
