"""Where models run that no hook moves about, and in which data type."""

from collections.abc import Sequence
from itertools import islice

import torch


# What accelerate and diffusers call their hooks, for offloading and layerwise casting, on the modules that have one.
_ACCELERATE, _DIFFUSERS = "_hf_hook", "_diffusers_hook"


def has_hooks(model: torch.nn.Module) -> bool:
    """Whether accelerate or diffusers has put a hook on the model or a part of it."""
    # `modules()` takes more than twice as long, for every call of the pipeline.
    waiting = [model]
    while waiting:
        module = waiting.pop()
        attributes = vars(module)
        if _ACCELERATE in attributes or _DIFFUSERS in attributes:
            return True
        waiting += [part for part in module._modules.values() if part is not None]
    return False


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
