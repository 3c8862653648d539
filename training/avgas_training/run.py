"""What all training runs share: their folder, accelerator, checkpoints, data in order, curves."""

import gc
import logging
import math
import os
import signal
import sys
from collections.abc import Callable, Sequence, Sized
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from types import FrameType

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    InitProcessGroupKwargs,
    ProjectConfiguration,
    set_seed,
)
from diffusers.optimization import get_scheduler
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from avgas_pipeline.cli.signals import END_SIGNALS

from .checkpoints import Checkpoints
from .curves import Curves
from .data.order import StepSampler, start_worker
from .folder import claim_output_dir
from .randomness import RowRandom
from .settings import RunSettings, ScheduledRunSettings


logger = logging.getLogger(__name__)

# PyTorch's names of instruction sets for which oneDNN has no kernels in bfloat16.
SLOW_IN_BF16 = ("NO AVX", "DEFAULT", "AVX2")
_LONGEST_WAIT = timedelta(days=7)
HALVES = {"bf16": "bfloat16", "fp16": "float16"}


class Run:
    """
    A run's accelerator and folder, and what is made with them.

    Args:
        settings ([`RunSettings`]): Its settings.
        gradient_accumulation_steps (`int`, defaults to 1): Batches per optimiser step.

    Raises:
        ValueError: If the folder holds something, and the run neither goes on nor may overwrite it.
    """

    def __init__(self, settings: RunSettings, gradient_accumulation_steps: int = 1) -> None:
        self.settings = settings
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self.accelerator = Accelerator(
            cpu=not torch.accelerator.is_available(),
            mixed_precision=precision(settings),
            gradient_accumulation_steps=gradient_accumulation_steps,
            log_with=None if settings.report_to == "none" else settings.report_to,
            project_config=ProjectConfiguration(settings.output_dir, logging_dir=f"{settings.output_dir}/logs"),
            # Which heads learn depends on the losses that there are.
            kwargs_handlers=[
                DistributedDataParallelKwargs(find_unused_parameters=True),
                # The others wait while the first one encodes examples, or draws.
                InitProcessGroupKwargs(timeout=_LONGEST_WAIT),
            ],
        )
        kind = self.accelerator.distributed_type
        if kind in (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM):
            # Averaged weights, checkpoints and the result are written from whole weights.
            raise ValueError(f"{kind.value} is not supported: use data parallelism (distributed_type MULTI_GPU).")
        if self.accelerator.is_main_process:
            claim_output_dir(settings.output_dir, settings.overwrite_output_dir, settings.resume_from_checkpoint)
        self.accelerator.wait_for_everyone()
        set_seed(settings.seed)
        self._stop: _StopSignal | None = None
        self.curves = Curves(Path(settings.output_dir) / "curves.jsonl")
        # What has to be the same to go on.
        self.fixed_settings = {**settings.fixed(), "num_processes": self.accelerator.num_processes}
        self.fixed_settings["mixed_precision"] = self.accelerator.mixed_precision
        self.checkpoints = Checkpoints(
            self.accelerator, settings.output_dir, self.fixed_settings, settings.checkpoints_total_limit
        )

    @property
    def examples_per_step(self) -> int:
        """Of all processes and accumulated batches."""
        return self.settings.train_batch_size * self.accelerator.num_processes * self.gradient_accumulation_steps

    def loader(self, examples: Dataset | Sized, step: int, collate_fn: Callable | None = None) -> DataLoader:
        """Batches from some step on to the last."""
        return self.accelerator.prepare(
            DataLoader(
                examples,
                batch_size=self.settings.train_batch_size,
                sampler=StepSampler(step, self.settings.max_train_steps, self.examples_per_step),
                collate_fn=collate_fn,
                num_workers=self.settings.dataloader_num_workers,
                worker_init_fn=start_worker,
                # Of its own, since what it draws must not move the random numbers that a checkpoint restored.
                generator=torch.Generator().manual_seed(self.settings.seed),
            )
        )

    def start_trackers(self, name: str) -> None:
        """Begin the curves; from here on signals end the run after a step."""
        self._stop = _StopSignal()
        self.accelerator.init_trackers(name, {key: str(value) for key, value in asdict(self.settings).items()})

    def progress_bar(self, step: int) -> tqdm:
        """Of the whole run, in its main process, from some step on."""
        return tqdm(
            total=self.settings.max_train_steps,
            initial=step,
            disable=not self.accelerator.is_main_process,
            mininterval=10,
        )

    def random(self, step: int, turn: int = 0) -> RowRandom:
        """What is drawn for the rows of this process's batch; `turn` counts the batches of a step."""
        # Of all batches so far, processes take turns.
        batches = step * self.gradient_accumulation_steps + turn
        size = self.settings.train_batch_size
        first = (batches * self.accelerator.num_processes + self.accelerator.process_index) * size
        return RowRandom(self.settings.seed, range(first, first + size))

    def learn(
        self,
        loss: torch.Tensor,
        step: int,
        trained: Sequence[torch.nn.Parameter],
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
    ) -> None:
        """
        A step of the optimiser, where batches are not accumulated.

        Raises:
            ValueError: If the loss is infinite or not a number.
        """
        self.check_finite(loss, step)
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(trained, self.settings.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()

    def check_finite(self, loss: torch.Tensor, step: int) -> None:
        """
        Raises:
            ValueError: If a loss is infinite or not a number.
        """
        if not math.isfinite(loss.item()):
            raise ValueError(f"The loss is {loss.item()} at step {step}; {self.checkpoints.advice()}.")

    def end_step(
        self,
        step: int,
        losses: dict[str, torch.Tensor],
        schedule: torch.optim.lr_scheduler.LRScheduler,
        progress: tqdm,
    ) -> bool:
        """
        Log and save a checkpoint, as far as they are due; returns whether the run is to stop.

        Raises:
            ValueError: If the weights of a checkpoint are not finite.
        """
        progress.update()
        if self.is_due(step, self.settings.logging_steps):
            values = {name: self.accelerator.reduce(loss.detach(), "mean").item() for name, loss in losses.items()}
            progress.set_postfix({name: f"{value:.4f}" for name, value in values.items()})
            self.log({**values, "lr": schedule.get_last_lr()[0]}, step)
        stopping = self._stopping()
        # From the last step's one, the run can be trained on.
        if self.is_due(step, self.settings.checkpointing_steps) or stopping:
            self.checkpoints.save(step)
        if stopping:
            reached = f"{step} of {self.settings.max_train_steps}"
            self.accelerator.print(
                f"Stopped after step {reached}: --resume_from_checkpoint latest goes on.", file=sys.stderr
            )
        return stopping

    def is_due(self, step: int, every: int) -> bool:
        """Whether something that is done every so many steps, and at the last one, is to be done."""
        return step % every == 0 or step == self.settings.max_train_steps

    def log(self, values: dict[str, float], step: int) -> None:
        """A point of the curves, for the tracker and for the card of the result."""
        self.accelerator.log(values, step=step)
        if self.accelerator.is_main_process:
            self.curves.add(values, step)

    def end(self, step: int, use: str) -> None:
        """
        Say where the result is and how it is used, if that was the last step, and close trackers and the process
        group, once the caller has let go of the prepared model. In `use`, `{}` stands for the folder.
        """
        if step == self.settings.max_train_steps:
            folder = self.settings.output_dir
            self.accelerator.print(f"-> {folder}: {use.format(folder)}")
        # If the model were the last to hold the group, it would wait for gloo's threads, and they for the interpreter.
        self.accelerator.free_memory()
        gc.collect()
        self.accelerator.end_training()
        if self._stop is not None:
            self._stop.restore()

    def _stopping(self) -> bool:
        """Whether a signal to end has come, to whichever process; to be asked by all of them alike."""
        if self.accelerator.num_processes == 1:
            return self._stop.received
        received = torch.tensor(float(self._stop.received), device=self.accelerator.device)
        return self.accelerator.reduce(received, "sum").item() > 0


def build_schedule(
    settings: ScheduledRunSettings, optimizer: torch.optim.Optimizer, num_processes: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning rate's, in steps of all processes, which is how accelerate counts."""
    return get_scheduler(
        settings.lr_scheduler,
        optimizer,
        num_warmup_steps=settings.lr_warmup_steps * num_processes,
        num_training_steps=settings.max_train_steps * num_processes,
    )


def precision(settings: RunSettings) -> str | None:
    """
    The wanted precision, the launcher's if not given, or float32 where a CPU has no kernels for half of it (float16),
    or several times slower ones (bfloat16).
    """
    on_cpu = not torch.accelerator.is_available()
    wanted = settings.mixed_precision or os.environ.get("ACCELERATE_MIXED_PRECISION")
    slow_in_bf16 = torch.backends.cpu.get_cpu_capability() in SLOW_IN_BF16
    if on_cpu and (wanted == "fp16" or (wanted == "bf16" and slow_in_bf16)):
        logger.warning(f"This CPU has no fast {HALVES[wanted]}: training in float32 instead.")
        return "no"
    return settings.mixed_precision


class _StopSignal:
    """
    Whether SIGTERM or SIGHUP has come: the loop then saves and ends, as schedulers of clusters expect. One that is
    ignored, as after `nohup`, stays so.
    """

    def __init__(self) -> None:
        self.received = False
        self._previous = {
            number: signal.signal(number, self._receive)
            for number in END_SIGNALS
            if signal.getsignal(number) is not signal.SIG_IGN
        }

    def restore(self) -> None:
        """Have the signals do again what they did before."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = True
