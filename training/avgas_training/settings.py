"""Settings of the training scripts: dataclasses that check themselves. `command_line.py` reads them."""

import dataclasses
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal


# Parts of the pictures, of which `holdout_fold` leaves out one.
NUM_FOLDS = 5
# Settings that may be paths, by any of which a folder is the same.
PATHS = (
    "dataset",
    "dataset_columns",
    "image_encoder",
    "pretrained_model_name_or_path",
    "extra_clips",
    "extra_pictures",
    "designs",
)
LrScheduler = Literal["linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup"]
# Beyond it, float32 overflows within a step.
LARGEST = 1e30


def setting(default: Any, text: str, may_change: bool = False, least: float = 0, most: float = LARGEST) -> Any:
    """
    A field of a run's settings.

    Args:
        default (`Any`): Its default; lists are copied.
        text (`str`): Its help.
        may_change (`bool`, defaults to `False`): Whether an interrupted run may go on with another value.
        least, most (`float`): Of a number, or of every number of a list.
    """
    metadata = {"help": text, "may_change": may_change, "least": least, "most": most}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def default_of(field: dataclasses.Field) -> Any:
    """A setting's default."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def resolve_paths(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by name, with paths that are there as absolute ones without links; the others are names on the Hub."""
    return {name: _resolved(value) if name in PATHS else value for name, value in settings.items()}


def _resolved(value: Any) -> Any:
    if isinstance(value, list):
        return [_resolved(each) for each in value]
    return os.path.realpath(value) if isinstance(value, str) and os.path.exists(value) else value


def _check_range(field: dataclasses.Field, number: float, value: Any) -> None:
    least, most = field.metadata["least"], field.metadata["most"]
    if least <= number <= most:
        return
    bounds = f"from {least} to {most}"
    if most == LARGEST:
        bounds = f"at least {least}" if not number > most else f"at most {most:g}"
    raise ValueError(f"{field.name} has to be {bounds} but is {str(value)[:40]}.")


@dataclass
class RunSettings:
    """
    Settings of every run.

    Raises:
        ValueError: For a value that can't be; the message names the setting. All others of this file do the same.
    """

    dataset: str = setting("data/soundscapes-mini", "folder or Hub repository of soundscapes-mini", may_change=True)
    output_dir: str = setting("runs/run", "the run's folder", may_change=True)
    overwrite_output_dir: bool = setting(False, "begin anew in a folder that is not empty", may_change=True)
    resume_from_checkpoint: str | None = setting(None, "'latest', or a checkpoint's folder", may_change=True)
    train_batch_size: int = setting(16, "examples per step and process", least=1)
    max_train_steps: int = setting(10000, "optimiser steps", least=1)
    learning_rate: float = setting(1e-3, "highest learning rate")
    weight_decay: float = setting(0.01, "of AdamW")
    mixed_precision: Literal["no", "fp16", "bf16"] | None = setting(None, "the launcher's if not given")
    dataloader_num_workers: int = setting(1, "processes that make examples", may_change=True)
    checkpointing_steps: int = setting(500, "steps from one checkpoint to the next", may_change=True, least=1)
    checkpoints_total_limit: int = setting(2, "checkpoints to keep", may_change=True, least=1)
    logging_steps: int = setting(20, "steps from one point of the curves to the next", may_change=True, least=1)
    report_to: str | None = setting("tensorboard", "accelerate's tracker, or none", may_change=True)
    seed: int = setting(0, "of everything random", most=2**31 - 1)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            for number in value if isinstance(value, list) else [value]:
                if isinstance(number, (int, float)):
                    _check_range(field, number, value)

    def refuse(self, names: Sequence[str], why: str) -> None:
        """
        Raises:
            ValueError: If one of these settings, which have no effect here, is not its default.
        """
        for field in dataclasses.fields(self):
            if field.name in names and getattr(self, field.name) != default_of(field):
                raise ValueError(f"{field.name} has no effect {why}: leave it out.")

    def fixed(self) -> dict[str, Any]:
        """The settings that have to be the same to go on with an interrupted run, by name."""
        values = dataclasses.asdict(self)
        return {
            field.name: values[field.name] for field in dataclasses.fields(self) if not field.metadata["may_change"]
        }


@dataclass
class ScheduledRunSettings(RunSettings):
    """Settings of runs with a schedule of diffusers and validation."""

    lr_scheduler: LrScheduler = setting("cosine", "schedule of the learning rate, one of diffusers'")
    lr_warmup_steps: int = setting(200, "steps until the highest learning rate")
    max_grad_norm: float = setting(1.0, "gradients are clipped to this norm")
    validation_steps: int = setting(1000, "steps from one validation to the next", may_change=True, least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_train_steps <= self.lr_warmup_steps:
            if self.lr_scheduler == "polynomial":
                raise ValueError(f"lr_warmup_steps has to be below max_train_steps but is {self.lr_warmup_steps}.")
            warnings.warn(
                f"The run ends within its warm-up: lr_warmup_steps is {self.lr_warmup_steps} of {self.max_train_steps}"
                " steps, so the learning rate is never reached.",
                stacklevel=2,
            )


@dataclass
class ClipRunSettings(ScheduledRunSettings):
    """Settings of runs that learn from clips, however they lie."""

    dataset: str = setting(
        "data/soundscapes-mini", "clips: folder or Hub repository; see docs/data.md", may_change=True
    )
    dataset_split: str = setting("train", "which of its splits to learn from")
    dataset_layout: str | None = setting(None, "how it lies; found by its files if not given")
    dataset_columns: str | None = setting(
        None, "which column of a table says what, as labels=category,id=clip, or a YAML file of the same"
    )

    def clips_of_dataset(self) -> dict[str, Any]:
        """The arguments of `load_clips`."""
        return {
            "data": self.dataset,
            "split": self.dataset_split,
            "layout": self.dataset_layout,
            "columns": self.dataset_columns,
        }


@dataclass
class MixtureRunSettings(ClipRunSettings):
    """Settings of runs that begin with a pipeline and learn from mixtures."""

    pretrained_model_name_or_path: str | None = setting(None, "checkpoint to begin with: folder or Hub repository")
    num_sources: list[int] = setting([1, 2], "fewest and most sources of a mixture", least=1)
    num_examples: int = setting(10000, "mixtures in an epoch", least=1)
    augment_fraction: float = setting(1.0, "share of mixtures whose clips are varied", most=1)
    gradient_accumulation_steps: int = setting(1, "batches per optimiser step", least=1)
    gradient_checkpointing: bool = setting(False, "less memory, more time")
    image_encoder: str | None = setting(
        None, "frozen image encoder of transformers, teacher of A2V; without it there is no A2V loss"
    )
    presence_weight: float = setting(1.0, "weight of the presence loss")
    label_weight: float = setting(1.0, "weight of the label loss")
    a2a_weight: float = setting(0.5, "weight of the audio-audio alignment; 0 spares the teacher's time")
    a2v_weight: float = setting(0.5, "weight of the audio-visual alignment")
    mask_weight: float = setting(2.0, "weight of the mask loss")
    aux_weight: float = setting(1.0, "weight of presence and label before every layer of the separator")
    label_smoothing: float = setting(0.0, "of the label loss", most=1)
    push_to_hub: bool = setting(False, "publish the result", may_change=True)
    hub_model_id: str | None = setting(None, "where; by default the output folder's name", may_change=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pretrained_model_name_or_path is None:
            raise ValueError("pretrained_model_name_or_path is needed: the checkpoint to begin with.")
        if len(self.num_sources) != 2 or not 1 <= self.num_sources[0] <= self.num_sources[1]:
            raise ValueError(f"num_sources has to be the fewest and the most, such as 1 3, but is {self.num_sources}.")

    def loss_weights(self) -> dict[str, float]:
        """Weights of the separator's losses, by name."""
        return {name: getattr(self, f"{name}_weight") for name in ("presence", "label", "a2a", "a2v", "mask", "aux")}


@dataclass
class GeneratorSettings(MixtureRunSettings):
    """Settings of `train.py`."""

    output_dir: str = setting("runs/generator", "the run's folder", may_change=True)
    full: bool = setting(False, "train all weights of U-Net and condition tokens, instead of LoRA layers")
    train_separator: bool = setting(False, "train audio encoder and separator as well, end to end")
    rank: int = setting(16, "of the LoRA layers", least=1)
    lora_alpha: int | None = setting(None, "their scale times the rank; the rank if not given", least=1)
    lora_dropout: float = setting(0.0, "in the LoRA layers", most=1)
    lora_target_modules: list[str] = setting(["to_q", "to_k", "to_v", "to_out.0"], "layers of the U-Net that get them")
    cache_examples: bool = setting(
        False, "encode the examples once and keep them on disk; every epoch then has the same ones"
    )
    designs: str | None = setting(None, "CSV table of the designs to draw: label, source_group; all if not given")
    mixture_target: Literal["compose", "collage", "single"] = setting(
        "compose", "picture of a mixture: a scene of its sources, them side by side, or the loudest one"
    )
    separated_fraction: float = setting(
        0.5,
        "share of examples whose picture shows one of their sources alone; all where the checkpoint composes mixed"
        " pictures of these",
        most=1,
    )
    resolution: int | None = setting(None, "side of the pictures, in pixels; the checkpoint's if not given", least=1)
    train_batch_size: int = setting(8, "mixtures per step and process", least=1)
    learning_rate: float = setting(1e-4, "highest learning rate")
    separator_learning_rate: float = setting(1e-4, "that of audio encoder and separator, with train_separator")
    lr_scheduler: LrScheduler = setting("constant_with_warmup", "schedule of the learning rate, one of diffusers'")
    use_8bit_adam: bool = setting(False, "AdamW of bitsandbytes")
    condition_dropout: float = setting(0.1, "share of examples that learn the null tokens, for guidance", most=1)
    slot_noise: float = setting(
        0.0, "noise on slots, as a multiple of their spread: those of unknown recordings are less certain"
    )
    slot_shuffle: float = setting(
        0.0,
        "share of mixtures whose sources get each other's slots but keep their labels, so that labels decide",
        most=1,
    )
    snr_gamma: float | None = setting(None, "min-SNR weighting of the diffusion loss; 5 is usual")
    noise_offset: float = setting(0.0, "of the noise's mean; 0.1 is usual")
    ema_decay: float = setting(0.0, "of averaged weights, which are saved; 0 does without", most=1)
    num_validation_mixtures: int = setting(4, "mixtures in the grid of pictures", may_change=True, least=1)
    num_inference_steps: int = setting(25, "denoising steps of the grid", may_change=True, least=1)
    guidance_scale: float = setting(4.0, "of the grid", may_change=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.full:
            self.refuse(("rank", "lora_alpha", "lora_dropout", "lora_target_modules"), "with full")
        if not self.train_separator:
            self.refuse(("image_encoder", "separator_learning_rate"), "without train_separator")
        together = "and train_separator do not go together"
        if self.train_separator and self.cache_examples:
            raise ValueError(f"cache_examples {together}: what the separator says changes every step.")
        if self.train_separator and self.slot_noise:
            raise ValueError(f"slot_noise {together}: slots would learn to drown it.")
        if self.train_separator and self.slot_shuffle:
            raise ValueError(f"slot_shuffle {together}: sources would learn to be alike.")


@dataclass
class SeparatorSettings(MixtureRunSettings):
    """Settings of `train_separator.py`."""

    output_dir: str = setting("runs/separator", "the run's folder", may_change=True)
    num_slots: int | None = setting(
        None,
        "places for sources in the separator; if this, num_layers, mask_channels or label_temperature is given and not"
        " what the checkpoint has, training begins with a new separator",
        least=1,
    )
    num_layers: int | None = setting(None, "layers of the separator; 0 projects the pooled audio to the slots")
    mask_channels: int | None = setting(None, "width of the separator's mask decoder; 0 leaves masks out")
    label_temperature: float | None = setting(
        None, "at which the separator weighs the tokens of labels, if the checkpoint's separator has such tokens"
    )
    new_audio_encoder: Literal["resnet18"] | None = setting(
        None, "begin with an untrained audio encoder and a new separator: resnet18 is AV-GAS's, on spectrograms"
    )
    num_sources: list[int] = setting([1, 3], "fewest and most sources of a mixture", least=1)
    extra_clips: list[str] = setting(
        [],
        "folders of clips without pictures: learnt with the dataset's, never validated on; labelled 'background', they"
        " are heard and are no source",
    )
    balance: Literal["label", "square_root", "source_group"] = setting(
        "label",
        "what is drawn evenly: labels, or source groups, or labels by the square root of the number of their groups",
    )
    gain_range_db: float = setting(6.0, "levels of sources, plus or minus")
    learning_rate: float = setting(3e-4, "highest learning rate of the separator")
    encoder_learning_rate: float = setting(3e-5, "that of the audio encoder; 0 freezes it")
    encoder_trainable: list[str] = setting(
        [], "train only the audio encoder's weights whose names begin with one of these; all if empty"
    )
    mask_fraction: float = setting(
        1.0, "share of a batch's mixtures whose masks are learnt: masks take half of a step's time", most=1
    )
    ema_decay: float = setting(0.999, "of the averaged weights, which teach A2A and are saved", most=1)
    validation_fraction: float = setting(
        0.1, "share of every label's source groups that is held out to validate on; 0 for none", most=1
    )
    num_validation_mixtures: int = setting(200, "mixtures of held-out clips", may_change=True, least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mask_fraction == 0:
            raise ValueError("mask_fraction has to be above 0: give mask_weight 0 to leave masks out.")


@dataclass
class AutoencoderSettings(ScheduledRunSettings):
    """Settings of `train_autoencoder.py`."""

    output_dir: str = setting("runs/autoencoder", "the run's folder", may_change=True)
    pretrained_model_name_or_path: str | None = setting(
        None, "pipeline whose autoencoder to begin with: folder or Hub repository; a new one if not given"
    )
    decoder_only: bool = setting(False, "train the decoder alone: latents stay those that a U-Net has learnt")
    extra_pictures: list[str] = setting([], "Parquet tables of further pictures, which need no known labels")
    block_out_channels: list[int] = setting(
        [16, 32, 64, 128, 128], "channels at every resolution; the first is not used", least=1
    )
    latent_channels: int = setting(16, "channels of the latents", least=1)
    resolution: int = setting(128, "side of the pictures, in pixels", least=1)
    layout: Literal["compose", "collage"] = setting(
        "compose", "objects of a scene: anywhere, or side by side on white"
    )
    max_objects: int = setting(3, "most objects of a scene", least=1)
    augment: bool = setting(True, "vary every object")
    max_train_steps: int = setting(20000, "optimiser steps", least=1)
    weight_decay: float = setting(1e-4, "of AdamW")
    edge_weight: float = setting(0.0, "weight of absolute errors of pixels and edges; blurs less, learns slower")
    latent_weight: float = setting(1e-5, "weight of the latents' mean square, against which their noise is set")
    latent_noise: float = setting(
        1.0, "standard deviation of the noise on latents: more of it forgives a U-Net more of its errors"
    )
    ema_decay: float = setting(0.999, "of the averaged weights that are saved", most=1)
    num_validation_scenes: int = setting(64, "new scenes to validate on", may_change=True, least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.block_out_channels) < 2:
            raise ValueError("block_out_channels has to be of two resolutions at least.")
        if self.pretrained_model_name_or_path is not None:
            self.refuse(("block_out_channels", "latent_channels"), "with pretrained_model_name_or_path")
        if self.decoder_only and self.pretrained_model_name_or_path is None:
            raise ValueError("decoder_only needs pretrained_model_name_or_path: whose latents to keep.")


@dataclass
class JudgeSettings(RunSettings):
    """Settings of `train_judge.py`."""

    output_dir: str = setting("runs/judge", "the run's folder", may_change=True)
    pretrained_model_name_or_path: str | None = setting(None, "judge to begin with: folder; a new one if not given")
    hidden_sizes: list[int] = setting([24, 48, 96, 176], "channels of a new ResNet's four stages", least=1)
    train_batch_size: int = setting(64, "scenes per step and process", least=1)
    max_train_steps: int = setting(4500, "optimiser steps", least=1)
    learning_rate: float = setting(2e-3, "highest learning rate")
    weight_decay: float = setting(0.05, "of AdamW")
    splits: list[str] = setting(["train", "test"], "splits whose pictures it learns; train alone for an A2V teacher")
    holdout_fold: int | None = setting(
        None,
        "leave out one fifth of the pictures, by source group, and report on it: the fifth 0, 1, 2, 3 or 4",
        most=NUM_FOLDS - 1,
    )
    num_validation_scenes: int = setting(2000, "scenes of each kind in the report", may_change=True, least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pretrained_model_name_or_path is not None:
            self.refuse(("hidden_sizes",), "with pretrained_model_name_or_path")


@dataclass
class DrawingSettings(ScheduledRunSettings):
    """Settings of `train_drawing.py`."""

    output_dir: str = setting("runs/drawing", "the run's folder", may_change=True)
    pretrained_model_name_or_path: str = setting("avgas-mini", "checkpoint to begin with: folder or Hub repository")
    autoencoder: str | None = setting(None, "folder of another AutoencoderDC than the checkpoint's")
    new_unet: list[int] = setting(
        [], "channels of a new U-Net at every resolution; the checkpoint's if not given", least=1
    )
    resolution: int = setting(256, "side of the pictures, in pixels", least=1)
    designs: str | None = setting(None, "CSV table of the designs to draw: label, source_group; all if not given")
    num_examples: int = setting(24000, "pictures in an epoch, which are encoded once", least=1)
    condition_dropout: float = setting(0.1, "share of examples that learn the null tokens, for guidance", most=1)
    snr_gamma: float | None = setting(None, "min-SNR weighting of the diffusion loss; 5 is usual")
    ema_decay: float = setting(0.999, "of the averaged weights that are saved", most=1)
    train_batch_size: int = setting(64, "pictures per step and process", least=1)
    num_inference_steps: int = setting(
        10, "denoising steps of the pictures that are looked at", may_change=True, least=1
    )
    guidance_scale: float = setting(3.0, "of the pictures that are looked at", may_change=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.condition_dropout == 1:
            raise ValueError("condition_dropout has to be below 1: labels would never be learnt.")


@dataclass
class DistillSettings(ClipRunSettings):
    """Settings of `distill.py`."""

    output_dir: str = setting("runs/distilled", "the run's folder", may_change=True)
    pretrained_model_name_or_path: str = setting("avgas-mini", "the teacher: folder or Hub repository")
    num_inference_steps: int = setting(4, "denoising steps of the student", least=1)
    teacher_steps: int = setting(12, "those of the teacher, a multiple", least=1)
    guidance_scale: float | None = setting(None, "the teacher's; its default if not given")
    full: bool = setting(False, "train all weights of the U-Net, instead of LoRA layers")
    rank: int = setting(64, "of the LoRA layers", least=1)
    lora_target_modules: list[str] = setting(
        ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2"],
        "layers of the U-Net that get them",
    )
    designs: str | None = setting(None, "CSV table of the designs to draw: label, source_group; all if not given")
    num_examples: int = setting(20000, "examples in an epoch, which are encoded once", least=1)
    num_sources: list[int] = setting(
        [1, 2], "fewest and most sources of a mixture, where mixtures are learnt from", least=1
    )
    mixture_target: Literal["compose", "collage", "single"] = setting(
        "compose", "picture of a mixture, as the teacher learnt it; see train.py"
    )
    separated_fraction: float = setting(
        0.5, "share of mixtures whose picture shows one of their sources alone", most=1
    )
    augment_fraction: float = setting(1.0, "share of mixtures whose clips are varied", most=1)
    resolution: int | None = setting(None, "side of the pictures, in pixels; the checkpoint's if not given", least=1)
    train_batch_size: int = setting(32, "examples per step and process", least=1)
    max_train_steps: int = setting(2000, "optimiser steps", least=1)
    learning_rate: float = setting(1e-4, "highest learning rate")
    lr_warmup_steps: int = setting(50, "steps until the highest learning rate")
    ema_decay: float = setting(0.99, "of the averaged weights that are saved", most=1)
    gradient_checkpointing: bool = setting(False, "less memory, more time")
    push_to_hub: bool = setting(False, "publish the result", may_change=True)
    hub_model_id: str | None = setting(None, "where; by default the output folder's name", may_change=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.full:
            self.refuse(("rank", "lora_target_modules"), "with full")
        if len(self.num_sources) != 2 or not 1 <= self.num_sources[0] <= self.num_sources[1]:
            raise ValueError(f"num_sources has to be the fewest and the most, such as 1 3, but is {self.num_sources}.")
