"""Loading a model onto a device, quietly. Libraries are imported only when it is called for."""

from typing import TYPE_CHECKING

from .checks import one_line
from .options import DType


if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from ..pipeline_avgas import AVGASPipeline


def load_pipeline(model: str, device: str | None, dtype: DType | None, offload: bool = False) -> "AVGASPipeline":
    """
    Load a checkpoint.

    Args:
        model (`str`): Folder or Hub repository.
        device (`str`, *optional*): Where to put it; the best accelerator, or else the CPU.
        dtype ([`DType`], *optional*): Its type; float32 if not given.
        offload (`bool`, defaults to `False`): Whether to keep there only what is at work.

    Raises:
        ValueError: If the checkpoint can't be loaded, or nothing can be computed on the device.
        FileNotFoundError: If there is no such folder, or it lacks something.
    """
    quieten()

    import torch

    from ..pipeline_avgas import AVGASPipeline

    options = {} if dtype is None else {"dtype": getattr(torch, dtype.value)}
    device = _checked_device(device)
    return _placed(AVGASPipeline.from_pretrained(model, **options), device, offload)


def load_text_to_image(painter: str, device: str | None, dtype: DType, offload: bool = False) -> "DiffusionPipeline":
    """
    Load a text-to-image pipeline; arguments and errors as of [`load_pipeline`].
    """
    import torch

    from ..loaders.painter import load_painter

    device = _checked_device(device)
    return _placed(load_painter(painter, getattr(torch, dtype.value)), device, offload)


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


def quieten() -> None:
    """No warnings and progress bars of libraries, those of their imports included."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for logging in (diffusers_logging, transformers_logging):
        logging.set_verbosity_error()
        logging.disable_progress_bar()
