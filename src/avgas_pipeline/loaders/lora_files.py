"""What a LoRA's file may hold: checked before peft makes layers of it."""

import math
import os
import re
from collections.abc import Collection, Iterable, Mapping
from numbers import Real
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from huggingface_hub import model_info
from huggingface_hub.constants import HF_HUB_OFFLINE

from ..files import finished
from .weight_files import check_plain_name, indexes


# The two halves of a layer, in peft's names and in the older ones of diffusers.
_HALVES = (("lora_A.", "lora_B."), ("lora_embedding_A", "lora_embedding_B"), ("down.weight", "up.weight"))
# `lora_A.weight` is a layer's, `lora_A.default.weight` that of an adapter called "default".
_NAMED = re.compile(r"\.lora_(?:embedding_)?[AB]\.(?!weight$|bias$)")
# Settings that say nothing of what a finished layer does, and how a training began, which matters for these no more.
_WITHOUT_EFFECT = {
    "base_model_name_or_path",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "lora_dropout",
    "peft_type",
    "peft_version",
    "revision",
    "task_type",
}
_PLAIN_STARTS = (True, False, "gaussian")
_SWITCHES = ("use_dora", "use_rslora", "lora_bias")
# peft takes the names in a pattern for regular expressions: these can't take long to match.
_PLAIN_PATTERN = re.compile(r"\^?[\w.]+")


def find_lora_file(
    source: str,
    weight_name: str | None,
    subfolder: str | None,
    revision: str | None,
    token: str | bool | None,
    local_files_only: bool | None,
) -> str:
    """
    Name of the one LoRA file in a folder or a Hub repository.

    Args:
        source (`str`): A folder, or a repository.
        weight_name (`str`, *optional*): The name, if it is known.
        subfolder (`str`, *optional*): Where the file is in `source`.
        revision (`str`, *optional*), token (`str` or `bool`, *optional*): Of the repository.
        local_files_only (`bool`, *optional*): Whether the repository may not be asked.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If there are several or it can't be known, or if a name leads out of the folder, or to something
            else than safetensors.
    """
    place = PurePosixPath(subfolder or ".")
    if place.is_absolute() or ".." in place.parts or "\\" in str(place):
        raise ValueError(f"{source}: the subfolder {subfolder!r} leads out of it.")
    if weight_name is not None:
        check_plain_name(source, weight_name)
        return weight_name
    if os.path.isdir(source):
        folder = Path(source, place)
        names = [path.name for path in finished(folder, "*.safetensors")]
        names += [path.name for path in indexes(folder)]
    elif HF_HUB_OFFLINE or local_files_only:
        raise ValueError(f"{source}: pass `weight_name`; offline it can't be found out.")
    else:
        files = [PurePosixPath(each.rfilename) for each in model_info(source, revision=revision, token=token).siblings]
        names = [path.name for path in files if path.parent == place]
    return _choose(f"{source}/{place}" if subfolder else source, sorted(names))


def _choose(source: str, names: list[str]) -> str:
    sharded = [name for name in names if ".safetensors.index." in name]
    if sharded:
        raise ValueError(f"{source}: {sharded[0]} says that the LoRA is in several files; save it as one.")
    names = [name for name in names if name.endswith(".safetensors")]
    if LORA_WEIGHT_NAME_SAFE in names:
        return LORA_WEIGHT_NAME_SAFE
    if not names:
        raise FileNotFoundError(f"{source}: has no LoRA weights (*.safetensors).")
    if len(names) > 1:
        raise ValueError(f"{source}: has several safetensors files ({names[0]}, {names[1]}, ...); pass `weight_name`.")
    return names[0]


def check_adapter_name(name: str) -> None:
    """
    Raises:
        ValueError: If peft can't call an adapter so.
    """
    # Adapters are modules of a `ModuleDict`.
    if not isinstance(name, str) or not name or "." in name or hasattr(torch.nn.ModuleDict(), name):
        raise ValueError(
            f"An adapter can't be called {name!r}; choose a name without dots that is no word of PyTorch's, such as"
            " 'my_style'."
        )


def check_lora_keys(source: str, state_dict: Mapping[str, torch.Tensor], components: Collection[str]) -> None:
    """
    Args:
        source (`str`): Where it comes from.
        state_dict (`Mapping`): A LoRA's weights, by names that begin with a component's.
        components (`Collection[str]`): Of which components it may have layers.

    Raises:
        ValueError: If it is no LoRA of these components, or if a layer lacks one of its halves.
    """
    if not state_dict or not all(isinstance(key, str) and "lora" in key for key in state_dict):
        raise ValueError(f"{source}: invalid LoRA checkpoint: every parameter's name has to contain 'lora'.")
    whole = next((key for key in state_dict if "base_model.model." in key), None)
    if whole is not None:
        raise ValueError(
            f"{source}: {whole} is a name of peft's own files; take 'base_model.model.' out of the names, or save with"
            " `save_lora_weights` what `get_peft_model_state_dict` gives."
        )
    named = next((key for key in state_dict if _NAMED.search(key)), None)
    if named is not None:
        raise ValueError(
            f"{source}: {named} has the name of an adapter in it; save what `get_peft_model_state_dict` gives, whose"
            " names end with 'lora_A.weight' and 'lora_B.weight'."
        )
    foreign = sorted({key.split(".", 1)[0] for key in state_dict} - set(components))
    if foreign:
        raise ValueError(
            f"{source}: invalid LoRA checkpoint: its parameters begin with {foreign}, not with one of"
            f" {sorted(components)}."
        )
    for key, weight in state_dict.items():
        _check_halves(source, state_dict, key, weight)


def _check_halves(source: str, state_dict: Mapping[str, torch.Tensor], key: str, weight: Any) -> None:
    if not isinstance(weight, torch.Tensor) or not weight.is_floating_point():
        raise ValueError(f"{source}: {key} is not a tensor of floating-point numbers.")
    for first, second in _HALVES:
        is_first = first in key
        # The other half of a bias does not exist.
        if key.endswith(".bias") or not (is_first or second in key):
            continue
        other = key.replace(first, second) if is_first else key.replace(second, first)
        if other not in state_dict:
            raise ValueError(f"{source}: {key} is half a layer; {other} is missing.")
        if weight.ndim < 2:
            raise ValueError(f"{source}: {key} has to be a matrix but is of shape {list(weight.shape)}.")


def check_lora_modules(source: str, model: torch.nn.Module, component: str, keys: Iterable[str]) -> list[str]:
    """
    The modules of a component that a LoRA in peft's names has layers for.

    Raises:
        ValueError: If the component has no such module.
    """
    prefix = f"{component}."
    wanted = {key.removeprefix(prefix).split(".lora_")[0] for key in keys if key.startswith(prefix)}
    lost = sorted(wanted - {name for name, _ in model.named_modules()})
    if lost:
        raise ValueError(
            f"{source}: has layers for {component}.{lost[0]}, {len(lost)} such modules in all, which this pipeline's"
            " models have not: it was made for others."
        )
    return sorted(wanted)


def read_settings(
    source: str, metadata: Any, component: str, state_dict: Mapping[str, torch.Tensor]
) -> dict[str, Any] | None:
    """
    A component's settings in a LoRA file's metadata, as far as its layers depend on them; `None` if it has none.

    Raises:
        ValueError: If they hold anything but names and numbers, or a setting that is not supported.
    """
    if metadata is None:
        return None
    if not isinstance(metadata, dict):
        raise ValueError(f"{source}: the LoRA's metadata has to be a JSON object.")
    prefix = f"{component}."
    settings = {key.removeprefix(prefix): value for key, value in metadata.items() if key.startswith(prefix)}
    if not settings:
        return None
    ranks = [
        len(weight) for key, weight in state_dict.items() if key.startswith(prefix) and "lora_A" in key and weight.ndim
    ]
    return {
        key: value for key, value in settings.items() if _is_taken(source, prefix + key, value, max(ranks, default=0))
    }


def _is_taken(source: str, name: str, value: Any, rank: int) -> bool:
    """Whether a setting changes what layers do; an error, if it does so in a way that is not supported."""
    key = name.split(".", 1)[1]
    if key in _WITHOUT_EFFECT or (key == "init_lora_weights" and value in _PLAIN_STARTS):
        return False
    checks = {
        "r": (lambda: _is_rank(value, rank), f"a rank from 1 to {rank}"),
        "lora_alpha": (lambda: _is_number(value), "a number"),
        "rank_pattern": (lambda: _is_pattern(value, lambda each: _is_rank(each, rank)), "ranks of named modules"),
        "alpha_pattern": (lambda: _is_pattern(value, _is_number), "numbers of named modules"),
        "target_modules": (lambda: _is_names(value), "a list of names, and no regular expression"),
        **{switch: (lambda: isinstance(value, bool), "true or false") for switch in _SWITCHES},
    }
    if key in checks:
        is_valid, kind = checks[key]
        if not is_valid():
            raise ValueError(f"{source}: `{name}` in the LoRA's metadata has to be {kind}.")
        return True
    # As everywhere in diffusers, peft is imported when the first LoRA is loaded.
    from peft import LoraConfig

    # Whatever else a LoRA may be configured to do, it is one of ours only where that is not used.
    default = LoraConfig().to_dict().get(key)
    if value != default and value:
        raise ValueError(f"{source}: `{name}` in the LoRA's metadata is a setting that is not supported.")
    return False


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_rank(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def _is_names(value: Any) -> bool:
    return isinstance(value, list | set | tuple) and all(isinstance(each, str) for each in value)


def _is_pattern(value: Any, is_valid: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str) and _PLAIN_PATTERN.fullmatch(name) and is_valid(each) for name, each in value.items()
    )
