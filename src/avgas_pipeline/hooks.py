"""Where and how models run that have no hooks, and in which data type."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice

import torch


# Where accelerate and diffusers keep their hooks, for offloading and layerwise casting, on the modules that have one.
_MOVING = ("_hf_hook", "_diffusers_hook")
# Where PyTorch keeps those of users.
_WATCHING = ("_forward_hooks", "_forward_pre_hooks")


def has_hooks(model: torch.nn.Module, kinds: tuple[str, ...] = _MOVING) -> bool:
    """Whether the model or a part of it has a hook, of accelerate or diffusers unless `kinds` says otherwise."""
    # `modules()` takes several times as long, for every call of the pipeline.
    parts = [model]
    for part in parts:
        if part is not None:
            attributes = vars(part)
            for kind in kinds:
                if attributes.get(kind):
                    return True
            parts += part._modules.values()
    return False


def inference_mode(model: torch.nn.Module) -> AbstractContextManager:
    """
    `torch.inference_mode`, in which a model of many small layers takes some per cent less time than under `no_grad`.

    With hooks it is a context that changes nothing: accelerate's and diffusers' move parameters, and the user's take
    activations, neither of which could go through autograd any more.
    """
    return nullcontext() if has_hooks(model, _MOVING + _WATCHING) else torch.inference_mode()


def common_device(models: Sequence[torch.nn.Module]) -> torch.device:
    """The device of models without hooks; if they are spread over several, the first that is an accelerator."""
    devices = [parameter.device for model in models for parameter in islice(model.parameters(), 1)]
    accelerators = (device for device in devices if device.type not in ("cpu", "meta"))
    return next(accelerators, devices[0] if devices else torch.device("cpu"))


def data_type(model: torch.nn.Module) -> torch.dtype:
    """A model's `dtype`, for which diffusers looks among the hooks of all its parts, though most have none."""
    if not has_hooks(model) and not getattr(model, "_keep_in_fp32_modules", None):
        for parameter in model.parameters():
            if parameter.is_floating_point():
                return parameter.dtype
    return model.dtype
