"""Loading a model onto a device, quietly. Libraries are imported only when it is called for."""

from typing import TYPE_CHECKING

from .checks import one_line
from .options import DType


if TYPE_CHECKING:
    from ..pipeline_avgas import AVGASPipeline


def load_pipeline(model: str, device: str | None, dtype: DType | None) -> "AVGASPipeline":
    """
    Load a checkpoint.

    Args:
        model (`str`): Folder or Hub repository.
        device (`str`, *optional*): Where to put it; the best accelerator, or else the CPU.
        dtype ([`DType`], *optional*): Its type; float32 if not given.

    Raises:
        ValueError: If the checkpoint can't be loaded, or nothing can be computed on the device.
        FileNotFoundError: If there is no such folder, or it lacks something.
    """
    quieten()

    import torch

    from ..pipeline_avgas import AVGASPipeline

    if device is None:
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        device = "cpu" if accelerator is None else accelerator.type
    check_device(device)
    options = {} if dtype is None else {"dtype": getattr(torch, dtype.value)}
    return AVGASPipeline.from_pretrained(model, **options).to(device)


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
