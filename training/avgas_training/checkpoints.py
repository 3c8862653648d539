"""The checkpoints of a run, each whole or absent."""

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from avgas_pipeline.data.text_files import read_json
from avgas_pipeline.files import remove_folder, write_text

from .averages import load_averages, save_averages
from .settings import resolve_paths


STATE = "trainer_state.json"
# Before the names of what is no weight, where only a part of a model is saved.
BUFFER = "buffer:"
_LENGTH = "max_train_steps"
_AVERAGES = "averages_{}.safetensors"


class Checkpoints:
    """
    The `checkpoint-N` folders of a run: everything that going on exactly needs (models, optimisers, schedulers, random
    states, and averages that it was told of), written under another name first.

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
        self.settings = resolve_paths(json.loads(json.dumps(settings)))
        self.total_limit = total_limit
        self._averages: list[EMAModel] = []

    def keep(self, ema: EMAModel) -> None:
        """Have checkpoints hold averages of weights, too; it is told before one is loaded."""
        ema.to(self.accelerator.device)
        self._averages.append(ema)

    def save(self, step: int) -> None:
        """
        Write `checkpoint-<step>`, then remove those beyond the limit, the oldest first. Those of later steps, which a
        run has left that went on from an earlier one, are removed in any case: it comes by the same steps again.

        Raises:
            ValueError: If weights or the optimiser's averages are not finite, so that no checkpoint is one that nobody
                can go on from.
        """
        if not all(_is_finite(tensor) for tensor in self._tensors()):
            raise ValueError(f"The weights are not finite at step {step}; {self.advice()}.")
        final = self.output_dir / f"checkpoint-{step}"
        # All processes write to it, so that its name can't be one process's own; `remove_partial` knows its beginning.
        partial = self.output_dir / f".partial-checkpoint-{step}"
        if self.accelerator.is_main_process:
            shutil.rmtree(partial, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        try:
            self.accelerator.save_state(str(partial), safe_serialization=True)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            for number, ema in enumerate(self._averages):
                save_averages(ema, partial / _AVERAGES.format(number))
            write_text(partial / STATE, json.dumps({"step": step, "settings": self.settings}, indent=2))
            remove_folder(final)
            os.replace(partial, final)
            paths = self.paths()
            kept = paths[: paths.index(final) + 1][-(self.total_limit or len(paths)) :]
            for path in paths:
                if path not in kept:
                    remove_folder(path)
        self.accelerator.wait_for_everyone()

    def paths(self) -> list[Path]:
        """All checkpoints, the oldest first."""
        found = [path for path in self.output_dir.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
        return sorted(found, key=lambda path: int(path.name.split("-")[1]))

    def advice(self) -> str:
        """What to go on from when numbers are not finite any more."""
        for path in reversed(self.paths()):
            with suppress(OSError, SafetensorError):
                saved = [pair for file in path.glob("*.safetensors") for pair in load_file(file).items()]
                # A buffer may be a mask of infinities.
                weights = [tensor for name, tensor in saved if not name.startswith(BUFFER)]
                if weights and all(map(_is_finite, weights)):
                    return f"{path} is the last checkpoint whose weights are finite"
        return "no checkpoint has finite weights: begin anew"

    def _tensors(self) -> Iterable[torch.Tensor]:
        """All that is trained, and what is kept of the gradients."""
        for model in self.accelerator._models:
            yield from model.parameters()
        for optimizer in self.accelerator._optimizers:
            for state in optimizer.state.values():
                yield from (value for value in state.values() if isinstance(value, torch.Tensor))

    def resume(self, resume_from_checkpoint: str | None) -> int:
        """
        Load a checkpoint. Of a run that has come to its end, it may be trained on to more steps.

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
            state = read_json(path / STATE)
            step, settings = int(state["step"]), resolve_paths(state["settings"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
            raise ValueError(f"{path}: not a complete checkpoint of this script.") from None
        keys = sorted({*settings, *self.settings})
        differing = [key for key in keys if settings.get(key) != self.settings.get(key)]
        is_longer = differing == [_LENGTH] and settings[_LENGTH] == step < self.settings[_LENGTH]
        if differing and not is_longer:
            raise ValueError(f"{path}: is of another run: {', '.join(differing)} differ.")
        planned = [schedule.state_dict() for schedule in self.accelerator._schedulers]
        try:
            self.accelerator.load_state(str(path))
            for number, ema in enumerate(self._averages):
                load_averages(ema, path / _AVERAGES.format(number), self.accelerator.device)
        except (OSError, RuntimeError, KeyError, EOFError, UnpicklingError, SafetensorError) as error:
            raise ValueError(f"{path}: can't be loaded ({' '.join(str(error).split())[:200]}).") from None
        if is_longer:
            self._follow(planned)
        return step

    def _follow(self, planned: list[dict[str, Any]]) -> None:
        """Has the schedules that were loaded go on as if the run had been planned so long from its beginning."""
        for schedule, plan in zip(self.accelerator._schedulers, planned, strict=True):
            loaded = schedule.state_dict()
            counts = {name: loaded[name] - 1 for name in ("last_epoch", "_step_count")}
            schedule.load_state_dict({**plan, **counts})
            # It sets the optimiser's learning rate, too.
            schedule.scheduler.step()


def _is_finite(tensor: torch.Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())


def save_trainable_only(accelerator: Accelerator) -> None:
    """Has checkpoints hold the weights that are trained and running statistics, and not frozen models beside them."""

    def parts(model: torch.nn.Module) -> dict[str, torch.Tensor]:
        model = accelerator.unwrap_model(model)
        trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        return {**trained, **{f"{BUFFER}{name}": buffer for name, buffer in model.named_buffers()}}

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
