"""The checkpoints of a run, each whole or absent."""

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from avgas_pipeline.files import write_text


STATE = "trainer_state.json"


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
        # All processes write to it, so that its name can't be one process's own; `remove_partial` knows its beginning.
        partial = self.output_dir / f".partial-checkpoint-{step}"
        if self.accelerator.is_main_process:
            shutil.rmtree(partial, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self.accelerator.save_state(str(partial), safe_serialization=True)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            write_text(partial / STATE, json.dumps({"step": step, "settings": self.settings}, indent=2))
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
            state = json.loads((path / STATE).read_text(encoding="utf-8"))
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
