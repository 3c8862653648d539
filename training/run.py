"""What all training runs share: their settings, folder, accelerator, checkpoints, data in order, curves."""

import gc
import json
import logging
import math
from collections.abc import Callable, Sized
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, ProjectConfiguration, set_seed
from checkpoints import FREE, Checkpoints, StepSampler, StopSignal, claim_output_dir, start_worker
from config import setting
from diffusers.optimization import get_scheduler
from huggingface_hub import HfApi
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm


logger = logging.getLogger(__name__)

# PyTorch's names of instruction sets for which oneDNN has no kernels in bfloat16.
SLOW_IN_BF16 = ("NO AVX", "DEFAULT", "AVX2")


@dataclass
class RunConfig:
    """Settings of every run."""

    dataset: str = setting("data/soundscapes-mini", "folder or Hub repository of soundscapes-mini")
    output_dir: str = setting("runs/run", "the run's folder")
    overwrite_output_dir: bool = setting(False, "begin anew in a folder that is not empty")
    resume_from_checkpoint: str | None = setting(None, "'latest', or a checkpoint's folder")
    train_batch_size: int = setting(16, "examples per step and process")
    max_train_steps: int = setting(10000, "optimiser steps")
    learning_rate: float = setting(1e-3, "highest learning rate")
    weight_decay: float = setting(0.01, "of AdamW")
    dataloader_num_workers: int = setting(1, "processes that make examples")
    checkpointing_steps: int = setting(500, "steps from one checkpoint to the next")
    checkpoints_total_limit: int = setting(2, "checkpoints to keep")
    seed: int = setting(0, "of everything random")


@dataclass
class TrackedRunConfig(RunConfig):
    """Settings of runs with a schedule, curves and validation."""

    lr_scheduler: str = setting("cosine", "one of diffusers' schedules")
    lr_warmup_steps: int = setting(200, "steps until the highest learning rate")
    max_grad_norm: float = setting(1.0, "gradients are clipped to this norm")
    mixed_precision: str | None = setting(None, "no, fp16 or bf16; the launcher's if not given")
    validation_steps: int = setting(1000, "steps from one validation to the next")
    logging_steps: int = setting(20, "steps from one point of the curves to the next")
    report_to: str | None = setting("tensorboard", "accelerate's tracker, or none")


@dataclass
class SoundscapeRunConfig(TrackedRunConfig):
    """Settings of runs that begin with a pipeline and learn from mixtures."""

    pretrained_model_name_or_path: str | None = setting(None, "checkpoint to begin with: folder or Hub repository")
    dataset: str = setting("data/soundscapes-mini", "folder or Hub repository; see load_clips")
    num_sources: list[int] = setting([1, 2], "fewest and most sources of a mixture")
    num_examples: int = setting(10000, "mixtures in an epoch")
    repeat_examples: bool = setting(False, "every epoch has the same mixtures")
    augment_fraction: float = setting(1.0, "of mixtures, whose clips are varied")
    gradient_accumulation_steps: int = setting(1, "batches per optimiser step")
    gradient_checkpointing: bool = setting(False, "less memory, more time")
    image_encoder: str | None = setting(None, "A2V teacher, of transformers; without it there is no A2V loss")
    presence_weight: float = setting(1.0, "of the presence loss")
    label_weight: float = setting(1.0, "of the label loss")
    a2a_weight: float = setting(0.5, "of the audio-audio alignment; 0 spares the teacher")
    a2v_weight: float = setting(0.5, "of the audio-visual alignment")
    mask_weight: float = setting(2.0, "of the mask loss")
    aux_weight: float = setting(1.0, "of presence and label before every layer of the separator")
    temperature: float = setting(0.07, "of both alignments")
    label_smoothing: float = setting(0.0, "of the label loss")
    push_to_hub: bool = setting(False, "publish the result")
    hub_model_id: str | None = setting(None, "where; by default the output folder's name")

    def loss_weights(self) -> dict[str, float]:
        """Of the separator's losses, by name."""
        return {name: getattr(self, f"{name}_weight") for name in ("presence", "label", "a2a", "a2v", "mask", "aux")}


def check_settings(config: RunConfig) -> None:
    """
    Raises:
        ValueError: For numbers that can't be.
    """
    positive = ("train_batch_size", "max_train_steps", "checkpointing_steps", "checkpoints_total_limit")
    positive += ("validation_steps", "logging_steps", "num_examples", "gradient_accumulation_steps", "resolution")
    positive += ("max_pictures_per_label",)
    for name in positive:
        value = getattr(config, name, None)
        if value is not None and value < 1:
            raise ValueError(f"{name} has to be at least 1 but is {value}.")
    if not 0 <= config.seed < 2**31:
        raise ValueError(f"seed has to be from 0 to {2**31 - 1} but is {config.seed}.")
    if not 0 <= getattr(config, "augment_fraction", 0) <= 1:
        raise ValueError(f"augment_fraction has to be from 0 to 1 but is {config.augment_fraction}.")
    numbers = getattr(config, "num_sources", [1, 1])
    if len(numbers) != 2 or not 1 <= numbers[0] <= numbers[1]:
        raise ValueError(f"num_sources has to be the fewest and the most, such as 1 3, but is {numbers}.")


def precision(config: TrackedRunConfig) -> str | None:
    """The configured precision, or float32 where bfloat16 on this CPU would be several times slower than that."""
    on_cpu = not torch.accelerator.is_available()
    if on_cpu and config.mixed_precision == "bf16" and torch.backends.cpu.get_cpu_capability() in SLOW_IN_BF16:
        logger.warning("This CPU has no fast bfloat16: training in float32 instead.")
        return "no"
    return config.mixed_precision


class Run:
    """
    A run's accelerator and folder, and what is made with them.

    Args:
        config ([`TrackedRunConfig`]): Its settings.

    Raises:
        ValueError: If the folder holds something, and the run neither goes on nor may overwrite it.
    """

    def __init__(self, config: TrackedRunConfig) -> None:
        check_settings(config)
        self.config = config
        self.accumulation = getattr(config, "gradient_accumulation_steps", 1)
        self.accelerator = Accelerator(
            cpu=not torch.accelerator.is_available(),
            mixed_precision=precision(config),
            gradient_accumulation_steps=self.accumulation,
            log_with=None if config.report_to == "none" else config.report_to,
            project_config=ProjectConfiguration(config.output_dir, logging_dir=f"{config.output_dir}/logs"),
            # Which heads learn depends on the losses that there are.
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
        kind = self.accelerator.distributed_type
        if kind in (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM):
            # Averaged weights, checkpoints and the result are written from whole weights.
            raise ValueError(f"{kind.value} is not supported: use data parallelism (distributed_type MULTI_GPU).")
        if self.accelerator.is_main_process:
            claim_output_dir(config.output_dir, config.overwrite_output_dir, config.resume_from_checkpoint)
        self.accelerator.wait_for_everyone()
        set_seed(config.seed)
        self.repo_id = None
        if getattr(config, "push_to_hub", False) and self.accelerator.is_main_process:
            # Now, or missing rights would be found out after the last step.
            self.repo_id = (
                HfApi().create_repo(config.hub_model_id or Path(config.output_dir).name, exist_ok=True).repo_id
            )
        self._stop = StopSignal()
        self.curves_path = Path(config.output_dir) / "curves.jsonl"
        # What has to be the same to go on.
        settings = {key: value for key, value in asdict(config).items() if key not in FREE}
        self.settings = {**settings, "num_processes": self.accelerator.num_processes}
        self.checkpoints = Checkpoints(
            self.accelerator, config.output_dir, self.settings, config.checkpoints_total_limit
        )

    @property
    def examples_per_step(self) -> int:
        """Of all processes and accumulated batches."""
        return self.config.train_batch_size * self.accelerator.num_processes * self.accumulation

    def schedule(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        """The learning rate's, in steps of all processes, which is how accelerate counts."""
        return get_scheduler(
            self.config.lr_scheduler,
            optimizer,
            num_warmup_steps=self.config.lr_warmup_steps * self.accelerator.num_processes,
            num_training_steps=self.config.max_train_steps * self.accelerator.num_processes,
        )

    def loader(self, examples: Dataset | Sized, step: int, collate_fn: Callable | None = None) -> DataLoader:
        """Batches from some step on to the last."""
        return self.accelerator.prepare(
            DataLoader(
                examples,
                batch_size=self.config.train_batch_size,
                sampler=StepSampler(step, self.config.max_train_steps, self.examples_per_step),
                collate_fn=collate_fn,
                num_workers=self.config.dataloader_num_workers,
                worker_init_fn=start_worker,
                # Of its own, since what it draws must not move the random numbers that a checkpoint restored.
                generator=torch.Generator().manual_seed(self.config.seed),
            )
        )

    def batch_numbers(self, step: int) -> range:
        """Of this process's batches from some step on to the last, among those of all processes."""
        count, accelerator = self.accelerator.num_processes, self.accelerator
        first, last = (number * self.accumulation * count for number in (step, self.config.max_train_steps))
        return range(first + accelerator.process_index, last, count)

    def end(self) -> None:
        """Close trackers and the process group, once the caller has let go of the prepared model."""
        # If the model were the last to hold the group, it would wait for gloo's threads, and they for the interpreter.
        self.accelerator.free_memory()
        gc.collect()
        self.accelerator.end_training()

    def progress_bar(self, step: int) -> tqdm:
        """Of the whole run, in its main process, from some step on."""
        return tqdm(
            total=self.config.max_train_steps,
            initial=step,
            disable=not self.accelerator.is_main_process,
            mininterval=10,
        )

    def end_step(
        self,
        step: int,
        losses: dict[str, torch.Tensor],
        schedule: torch.optim.lr_scheduler.LRScheduler,
        progress: tqdm,
    ) -> bool:
        """Log and checkpoint, as far as they are due; returns whether the run is to stop."""
        progress.update()
        if self.is_due(step, self.config.logging_steps):
            values = {name: self.accelerator.reduce(loss.detach(), "mean").item() for name, loss in losses.items()}
            progress.set_postfix({name: f"{value:.4f}" for name, value in values.items()})
            self.log({**values, "lr": schedule.get_last_lr()[0]}, step)
        stopping = self.stopping()
        if step % self.config.checkpointing_steps == 0 or stopping:
            self.checkpoints.save(step)
        return stopping

    def stopping(self) -> bool:
        """Whether SIGTERM has come, to whichever process; to be asked by all of them alike."""
        if self.accelerator.num_processes == 1:
            return self._stop.received
        received = torch.tensor(float(self._stop.received), device=self.accelerator.device)
        return self.accelerator.reduce(received, "sum").item() > 0

    def is_due(self, step: int, every: int) -> bool:
        """Whether something that is done every so many steps, and at the last one, is to be done."""
        return step % every == 0 or step == self.config.max_train_steps

    def start_trackers(self, name: str) -> None:
        """Begin the curves."""
        self.accelerator.init_trackers(name, {key: str(value) for key, value in asdict(self.config).items()})

    def log(self, values: dict[str, float], step: int) -> None:
        """A point of the curves, for the tracker and for the card of the result."""
        self.accelerator.log(values, step=step)
        if self.accelerator.is_main_process:
            with open(self.curves_path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")

    def read_curves(self) -> dict[str, dict[int, float]]:
        """All points so far by name and step; of a step that was repeated after an interruption, the last."""
        curves: dict[str, dict[int, float]] = {}
        if self.curves_path.exists():
            for line in self.curves_path.read_text(encoding="utf-8").splitlines():
                try:
                    values = json.loads(line)
                except ValueError:
                    # A run that was killed may have left half a line.
                    continue
                step = values.pop("step")
                for name, value in values.items():
                    curves.setdefault(name, {})[step] = value
        return {name: dict(sorted(points.items())) for name, points in curves.items()}

    def check_finite(self, loss: torch.Tensor, step: int) -> None:
        """
        Raises:
            ValueError: If a loss is infinite or not a number.
        """
        if not math.isfinite(loss.item()):
            raise ValueError(f"The loss is {loss.item()} at step {step}; the last checkpoint is good.")
