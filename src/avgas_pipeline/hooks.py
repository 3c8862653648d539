"""Where models run that no hook moves about."""

from collections.abc import Sequence
from itertools import islice

import torch


# What accelerate and diffusers call their hooks, for offloading and layerwise casting, on the modules that have one.
_HOOKS = ("_hf_hook", "_diffusers_hook")


def has_hooks(model: torch.nn.Module) -> bool:
    """Whether accelerate or diffusers has put a hook on the model or a part of it."""
    return any(name in vars(module) for module in model.modules() for name in _HOOKS)


def common_device(models: Sequence[torch.nn.Module]) -> torch.device:
    """The device of models without hooks; if they are spread over several, the first that is an accelerator."""
    devices = [parameter.device for model in models for parameter in islice(model.parameters(), 1)]
    accelerators = (device for device in devices if device.type not in ("cpu", "meta"))
    return next(accelerators, devices[0] if devices else torch.device("cpu"))
