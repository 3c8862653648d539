"""What the weight files of a component say of themselves, before any weight is read; imports no torch."""

import os
from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError, safe_open

from .json_files import read_json


# What transformers or peft would load in place of, or on top of, a component's own weights.
_OTHERS = ("adapter_config.json", "adapter_model.*", "shard-*-model-*.safetensors")
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """
    Shape of every tensor in a safetensors file.

    Raises:
        ValueError: If the file is damaged or something else.
    """
    try:
        with safe_open(path, framework="np") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: a weights file is damaged or not safetensors ({error}).") from None


def check_weight_files(component: Path) -> dict[str, tuple[int, ...]]:
    """
    Names and shapes of all tensors of a model's folder.

    Raises:
        FileNotFoundError: If the folder has no weights.
        ValueError: If they are pickled only, damaged, or if an index names anything but safetensors files beside it.
    """
    for pattern in _OTHERS:
        for path in component.glob(pattern):
            raise ValueError(
                f"{path}: adapters and files of distributed runs are not read in a checkpoint; save the model with"
                " `save_pretrained`, and load LoRA with `load_lora_weights`."
            )
    paths = sorted(component.glob("*.safetensors"))
    pickled = sorted(file.name for pattern in _PICKLED for file in component.glob(pattern))
    if not paths and pickled:
        raise ValueError(
            f"{component}: its weights are pickled ({pickled[0]}), which is never loaded; convert them to safetensors."
        )
    if not paths:
        raise FileNotFoundError(f"{component}: has no weights (*.safetensors).")
    shapes = {path.name: read_shapes(path) for path in paths}
    for index in indexes(component):
        check_index(index, shapes)
    return {name: shape for tensors in shapes.values() for name, shape in tensors.items()}


def indexes(folder: Path) -> list[Path]:
    """Files that say which of several safetensors files holds which tensor, of all variants."""
    return sorted(path for path in folder.glob("*.index*.json") if ".bin." not in path.name)


def check_index(path: Path, shards: dict[str, Iterable[str]]) -> None:
    """
    Args:
        path (`Path`): A `*.safetensors.index.json`.
        shards (`dict`): Names of the tensors in every safetensors file beside it, by the file's name.

    Raises:
        ValueError: If it names other files than safetensors files of its folder, or tensors that are not in these.
    """
    index = read_json(path)
    names = index.get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise ValueError(f"{path}: has no `weight_map` that says which file holds which tensor.")
    if not isinstance(index.get("metadata"), dict):
        raise ValueError(f"{path}: has no `metadata`.")
    for name in names.values():
        check_plain_name(path, name)
    lost = sorted(tensor for tensor, name in names.items() if name in shards and tensor not in shards[name])
    if lost:
        raise ValueError(f"{path}: {lost[0]} is not in {names[lost[0]]}, {len(lost)} such tensors in all.")


def check_plain_name(source: str | os.PathLike, name: str) -> None:
    """
    Raises:
        ValueError: If a weights file's name, which stands in `source`, has a folder in it or another suffix.
    """
    if "/" in name or "\\" in name or not name.endswith(".safetensors"):
        raise ValueError(f"{source}: {name!r} is not the plain name of a safetensors file, and is never loaded.")
