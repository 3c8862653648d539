"""Averages of weights: looked at in place of the weights, and kept in checkpoints."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers.training_utils import EMAModel
from safetensors import safe_open
from safetensors.torch import save_file


_STATE = "state"


@contextmanager
def averaged(ema: EMAModel | None, trained: Sequence[torch.nn.Parameter]) -> Iterator[None]:
    """Has the weights be their averages, if there are any, while the block runs."""
    if ema is None:
        yield
        return
    ema.store(trained)
    ema.copy_to(trained)
    try:
        yield
    finally:
        ema.restore(trained)


def save_averages(ema: EMAModel, path: Path) -> None:
    """Write averages and how they are taken as safetensors; accelerate would pickle them."""
    state = ema.state_dict()
    tensors = {str(number): each.contiguous().cpu() for number, each in enumerate(state.pop("shadow_params"))}
    save_file(tensors, path, metadata={_STATE: json.dumps(state)})


def load_averages(ema: EMAModel, path: Path, device: torch.device) -> None:
    """
    Read what [`save_averages`] wrote.

    Raises:
        SafetensorError: If the file is damaged.
        RuntimeError: If it holds other averages.
    """
    with safe_open(path, "pt") as file:
        tensors = [file.get_tensor(str(number)) for number in range(len(file.keys()))]
        metadata = file.metadata() or {}
    if [each.shape for each in tensors] != [each.shape for each in ema.shadow_params]:
        raise RuntimeError("it holds other averages")
    try:
        ema.load_state_dict({**json.loads(metadata[_STATE]), "shadow_params": tensors})
    except (KeyError, TypeError, ValueError) as error:
        raise RuntimeError(f"it does not say how averages are taken: {error}") from None
    # They are loaded to the CPU.
    ema.to(device)
