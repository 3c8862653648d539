"""Runs that can be interrupted: checkpoints that are whole or absent, data in an order that a step number tells."""

import json
import os
import re
import shutil
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from threadpoolctl import threadpool_limits
from torch.utils.data import Sampler


STATE = "trainer_state.json"
# Settings that may change when a run goes on.
FREE = {
    *("output_dir", "overwrite_output_dir", "resume_from_checkpoint", "dataset", "dataloader_num_workers"),
    *("checkpointing_steps", "checkpoints_total_limit", "validation_steps", "num_validation_scenes", "report_to"),
    *("logging_steps", "num_validation_mixtures", "push_to_hub", "hub_model_id"),
}


class Checkpoints:
    """
    The `checkpoint-N` folders of a run: everything that going on exactly needs (models, optimisers, schedulers, random
    states, and what is registered with the accelerator), written under another name first.

    Args:
        accelerator (`Accelerator`): What prepared the models.
        output_dir (`str` or `os.PathLike`): The run's folder.
        settings (`Mapping`): What has to be the same to go on.
        total_limit (`int`, *optional*): How many to keep; all if not given.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        output_dir: str | os.PathLike,
        settings: Mapping[str, Any],
        total_limit: int | None = None,
    ) -> None:
        self.accelerator = accelerator
        self.output_dir = Path(output_dir)
        self.settings = json.loads(json.dumps(settings))
        self.total_limit = total_limit

    def save(self, step: int) -> None:
        """
        Write `checkpoint-<step>`, then remove those beyond the limit, the oldest first. Those of later steps, which a
        run has left that went on from an earlier one, are removed in any case: it comes by the same steps again.
        """
        final = self.output_dir / f"checkpoint-{step}"
        partial = self.output_dir / f".checkpoint-{step}.partial"
        if self.accelerator.is_main_process:
            shutil.rmtree(partial, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self.accelerator.save_state(str(partial), safe_serialization=True)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            (partial / STATE).write_text(json.dumps({"step": step, "settings": self.settings}, indent=2))
            shutil.rmtree(final, ignore_errors=True)
            os.replace(partial, final)
            paths = self.paths()
            kept = paths[: paths.index(final) + 1][-(self.total_limit or len(paths)) :]
            for path in paths:
                if path not in kept:
                    shutil.rmtree(path)
        self.accelerator.wait_for_everyone()

    def paths(self) -> list[Path]:
        """All checkpoints, the oldest first."""
        found = [path for path in self.output_dir.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
        return sorted(found, key=lambda path: int(path.name.split("-")[1]))

    def resume(self, resume_from_checkpoint: str | None) -> int:
        """
        Load a checkpoint.

        Args:
            resume_from_checkpoint (`str`, *optional*): A path, or `"latest"` for the newest of the run's.

        Returns:
            `int`: The step to go on from; 0 without a checkpoint.

        Raises:
            FileNotFoundError: If there is no such checkpoint.
            ValueError: If it is not complete, or of another run.
        """
        if resume_from_checkpoint is None:
            return 0
        if resume_from_checkpoint == "latest":
            paths = self.paths()
            if not paths:
                return 0
            path = paths[-1]
        else:
            path = Path(resume_from_checkpoint)
        if not path.is_dir():
            raise FileNotFoundError(f"{path}: no such checkpoint.")
        try:
            state = json.loads((path / STATE).read_text())
            step, settings = int(state["step"]), state["settings"]
        except (OSError, ValueError, KeyError, TypeError):
            raise ValueError(f"{path}: not a complete checkpoint of this script.") from None
        keys = sorted({*settings, *self.settings})
        differing = [key for key in keys if settings.get(key) != self.settings.get(key)]
        if differing:
            raise ValueError(f"{path}: is of another run: {', '.join(differing)} differ.")
        try:
            self.accelerator.load_state(str(path))
        except (OSError, RuntimeError, KeyError, EOFError, UnpicklingError, SafetensorError) as error:
            raise ValueError(f"{path}: can't be loaded ({' '.join(str(error).split())[:200]}).") from None
        for registered in self.accelerator._custom_objects:
            # It is loaded to the CPU.
            if isinstance(registered, EMAModel):
                registered.to(self.accelerator.device)
        return step


def save_trainable_only(accelerator: Accelerator) -> None:
    """Has checkpoints hold the weights that are trained and running statistics, and not frozen models beside them."""

    def parts(model: torch.nn.Module) -> dict[str, torch.Tensor]:
        model = accelerator.unwrap_model(model)
        trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        return {**trained, **{f"buffer:{name}": buffer for name, buffer in model.named_buffers()}}

    def save(models: list[torch.nn.Module], weights: list[Any], folder: str) -> None:
        if accelerator.is_main_process:
            for number, model in enumerate(models):
                tensors = {name: value.detach().contiguous().cpu() for name, value in parts(model).items()}
                save_file(tensors, Path(folder) / f"trained_{number}.safetensors")
        weights.clear()

    def load(models: list[torch.nn.Module], folder: str) -> None:
        for number, model in enumerate(models):
            saved, own = load_file(Path(folder) / f"trained_{number}.safetensors"), parts(model)
            if saved.keys() != own.keys():
                raise RuntimeError("it holds other weights")
            with torch.no_grad():
                for name, value in own.items():
                    value.copy_(saved[name])
        models.clear()

    accelerator.register_save_state_pre_hook(save)
    accelerator.register_load_state_pre_hook(load)


class StepSampler(Sampler[int]):
    """
    The numbers of a run's examples from some step on, in order: example i of an endless dataset is drawn from i alone,
    so that going on from a step needs no more than its number.

    Args:
        first_step (`int`): Step to begin with.
        num_steps (`int`): Last step.
        batch_size (`int`): Examples per step, of all processes and accumulated batches.
    """

    def __init__(self, first_step: int, num_steps: int, batch_size: int) -> None:
        self.examples = range(first_step * batch_size, num_steps * batch_size)

    def __iter__(self) -> Iterator[int]:
        return iter(self.examples)

    def __len__(self) -> int:
        return len(self.examples)


class StopSignal:
    """Whether SIGTERM has come: the loop then saves and ends, as schedulers of clusters expect."""

    def __init__(self) -> None:
        self.received = False
        signal.signal(signal.SIGTERM, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = True


def start_worker(worker_id: int) -> None:
    """For a loader's `worker_init_fn`: one thread each, and no end on SIGTERM."""
    # Clusters signal whole groups, and the loop still needs its workers.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # NumPy's threads would take the cores from the training step.
    threadpool_limits(1)


def remove_results(path: Path) -> None:
    """Take away what an earlier run wrote, and nothing else; cached examples stay."""
    parts = []
    if (path / "model_index.json").exists():
        parts = [name for name, value in json.loads((path / "model_index.json").read_text()).items() if name[0] != "_"]
    for folder in (*path.glob("checkpoint-*"), path / "logs", *(path / name for name in parts)):
        shutil.rmtree(folder, ignore_errors=True)
    names = ("model_index.json", "README.md", "training.json", "curves.jsonl", "curves.png", "config.json")
    for file in (*path.glob("validation-*.png"), *path.glob("*.safetensors"), *(path / name for name in names)):
        file.unlink(missing_ok=True)


def claim_output_dir(output_dir: str | os.PathLike, overwrite: bool, resume_from_checkpoint: str | None) -> Path:
    """
    Make a run's folder.

    Raises:
        ValueError: If it holds something, and the run neither goes on nor may overwrite it.
    """
    path = Path(output_dir)
    if path.exists() and any(path.iterdir()):
        if not overwrite and resume_from_checkpoint is None:
            raise ValueError(
                f"{path}: is not empty; give --resume_from_checkpoint latest to go on, or --overwrite_output_dir."
            )
        if overwrite and resume_from_checkpoint is None:
            remove_results(path)
    path.mkdir(parents=True, exist_ok=True)
    return path
