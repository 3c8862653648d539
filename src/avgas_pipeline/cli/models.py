"""Loading a model onto a device, quietly. Libraries are imported only when it is called for."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..loaders.folders import DEFAULT_CHECKPOINT, lora_of_run
from ..notices import quieten
from ..printable import printable
from .checks import one_line
from .options import DType


if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from ..pipeline_avgas import AVGASPipeline


# Of whose errors some are the Hub's.
_HUB_LIBRARIES = ("httpx", "httpx2", "httpcore", "huggingface_hub", "requests")


def load_pipeline(
    model: str, device: str | None, dtype: DType | None, offload: bool = False, with_own_lora: bool = True
) -> "AVGASPipeline":
    """
    Load a checkpoint, and the LoRA in its folder where one was trained.

    Args:
        model (`str`): Folder or Hub repository.
        device (`str`, *optional*): Where to put it; the best accelerator, or else the CPU.
        dtype ([`DType`], *optional*): Its type; float32 if not given.
        offload (`bool`, defaults to `False`): Whether to keep there only what is at work.
        with_own_lora (`bool`, defaults to `True`): Whether to load that LoRA.

    Raises:
        ValueError: If the checkpoint can't be loaded, or nothing can be computed on the device.
        FileNotFoundError: If there is no such folder, or it lacks something.
    """
    quieten()

    import torch

    from ..pipeline_avgas import AVGASPipeline

    if (Path(model) / "pipeline.py").is_file():
        raise ValueError(
            f"{model}: carries its own code, which this command never runs; it needs the checkpoint that was exported."
        )
    options = {} if dtype is None else {"dtype": getattr(torch, dtype.value)}
    device = _checked_device(device)
    with asking_hub(model):
        pipe = AVGASPipeline.from_pretrained(model, **options)
    own_lora = lora_of_run(model) if with_own_lora else None
    if own_lora is not None:
        pipe.load_lora_weights(own_lora)
        typer.echo(printable(f"avgas: with the LoRA that was trained there, {own_lora}"), err=True)
    return _placed(pipe, device, offload)


@contextmanager
def asking_hub(name: str) -> Iterator[None]:
    """
    Where something is taken from the Hub, if it is no folder.

    Raises:
        FileNotFoundError: If it is not there, or the Hub can't be reached.
    """
    try:
        yield
    except Exception as error:
        # Its own errors, those of the library that it asks with, whose name changed, and what diffusers makes of both.
        library = type(error).__module__.split(".")[0]
        is_of_hub = library in _HUB_LIBRARIES or (isinstance(error, OSError) and "Cannot load model" in str(error))
        if not is_of_hub or os.path.exists(name):
            raise
        reason = "it could not be asked" if library != "huggingface_hub" else " ".join(str(error).split())[:200]
        raise FileNotFoundError(
            f"{name}: is no folder here, and was not found on the Hub ({reason}). {DEFAULT_CHECKPOINT} comes with the"
            " package."
        ) from None


def load_text_to_image(painter: str, device: str | None, dtype: DType, offload: bool = False) -> "DiffusionPipeline":
    """
    Load a text-to-image pipeline; arguments and errors as of [`load_pipeline`].
    """
    import torch

    from ..loaders.painter import load_painter

    device = _checked_device(device)
    with asking_hub(painter):
        pipe = load_painter(painter, getattr(torch, dtype.value))
    return _placed(pipe, device, offload)


def _checked_device(device: str | None) -> str:
    import torch

    if device is None:
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        device = "cpu" if accelerator is None else accelerator.type
    check_device(device)
    return device


def _placed(pipe: "DiffusionPipeline", device: str, offload: bool) -> "DiffusionPipeline":
    if not offload:
        return pipe.to(device)
    if device == "cpu":
        raise ValueError("--offload needs an accelerator: without one, all is in the computer's memory anyway.")
    pipe.enable_model_cpu_offload(device=device)
    return pipe


def check_device(device: str) -> None:
    """
    Raises:
        ValueError: If nothing can be computed on it.
    """
    import torch

    try:
        torch.zeros(1, device=torch.device(device)).cpu()
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {device}: {one_line(error)}") from None
