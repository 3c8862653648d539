"""Whether a checkpoint's weights are those of its models, found without allocating the models."""

import inspect
import os
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin, pipelines
from diffusers.pipelines.pipeline_loading_utils import (
    ALL_IMPORTABLE_CLASSES,
    LOADABLE_CLASSES,
    get_class_obj_and_candidates,
)
from diffusers.utils import logging as diffusers_logging
from torch.nn.modules.module import register_module_parameter_registration_hook
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from .folders import read_components
from .json_files import read_json
from .weight_files import read_shapes


# Libraries set a parameter up to three times while they load it; a few more may be built than are saved.
_SET_PER_TENSOR = 4
_SET_BESIDE = 500


def check_components(
    folder: Path,
    expected: Mapping[str, tuple[type, ...]],
    passed: Collection[str] = (),
    variant: str | None = None,
    trust_remote_code: bool = False,
) -> None:
    """
    Loads a checkpoint's components, models without memory for their weights.

    Args:
        folder (`Path`): A folder that [`~.folders.check_folder`] has passed.
        expected (`Mapping`): Of which classes each component may be; components that are not in it are left out.
        passed (`Collection[str]`, *optional*): Components that are not loaded from the folder.
        variant (`str`, *optional*): Of the weights' files.
        trust_remote_code (`bool`, defaults to `False`): Whether a component's class may come from the folder.

    Raises:
        ValueError: If a component can't be loaded, is of another class, or if its weights are not those of its model.
    """
    index = folder / "model_index.json"
    for name, (library, class_name) in read_components(index).items():
        if name in passed or library is None or name not in expected:
            continue
        component = folder / name
        is_own_code = trust_remote_code and (component / f"{library}.py").is_file()
        if library not in LOADABLE_CLASSES and not is_own_code:
            raise ValueError(
                f"{index}: classes of {library!r} are not loaded by name; pass `{name}` to `from_pretrained`."
            )
        with _naming(component):
            kind, _ = get_class_obj_and_candidates(
                library, class_name, ALL_IMPORTABLE_CLASSES, pipelines, False, name, folder, trust_remote_code
            )
        if not is_own_code and not (isinstance(kind, type) and issubclass(kind, expected[name])):
            raise ValueError(f"{index}: {class_name} can't be the pipeline's `{name}`.")
        if issubclass(kind, ConfigMixin) and (component / kind.config_name).is_file():
            _check_config(kind, component / kind.config_name)
        if issubclass(kind, torch.nn.Module):
            check_model(kind, component, _variant_of(component, variant))
        else:
            with _naming(component):
                kind.from_pretrained(str(component))


def _check_config(kind: type[ConfigMixin], path: Path) -> None:
    config = read_json(path)
    if not isinstance(config.get("_class_name"), str):
        raise ValueError(f"{path}: has no `_class_name` that says of which class it is.")
    for name, parameter in inspect.signature(kind.__init__).parameters.items():
        # Many are used only when pictures are drawn.
        if isinstance(parameter.default, Real) and isinstance(config.get(name), str | dict):
            raise ValueError(f"{path}: `{name}` has to be a number but is {config[name]!r}.")


def check_model(kind: type[ModelMixin] | type[PreTrainedModel], folder: Path, variant: str | None = None) -> None:
    """
    Raises:
        ValueError: If a model can't be built from its `config.json`, or if tensors are missing in its weights, have
            another shape, or have no place in it.
    """
    count = sum(len(read_shapes(path)) for path in folder.glob("*.safetensors"))
    with _naming(folder), _at_most(_SET_PER_TENSOR * count + _SET_BESIDE), torch.device("meta"):
        _, info = kind.from_pretrained(
            str(folder),
            variant=variant,
            use_safetensors=True,
            local_files_only=True,
            device_map="meta",
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    check_loading_info(folder, info)


def check_loading_info(source: str | os.PathLike, info: dict[str, Any], allowed: Collection[str] = ()) -> None:
    """
    Args:
        source (`str` or `os.PathLike`): Where a model was loaded from.
        info (`dict`): What `from_pretrained` gives with `output_loading_info`.
        allowed (`Collection[str]`, *optional*): Tensors that may be missing.

    Raises:
        ValueError: If tensors are missing, have another shape, or have no place in the model.
    """
    shapes = [f"{name} is {list(found)}, not {list(due)}" for name, found, due in sorted(info["mismatched_keys"])]
    faults = {
        "missing tensors": sorted(set(info["missing_keys"]) - set(allowed)),
        "tensors of another shape": shapes,
        "tensors that have no place in the model": sorted(info["unexpected_keys"]),
    }
    texts = [f"{len(names)} {fault} ({_first(names)})" for fault, names in faults.items() if names]
    if texts:
        raise ValueError(f"{source}: the weights are not those of the config.json: {'; '.join(texts)}.")


def _first(names: list[str]) -> str:
    return ", ".join([*names[:3], *(["..."] if len(names) > 3 else [])])


def _variant_of(component: Path, variant: str | None) -> str | None:
    """The variant, if diffusers would take it for this component."""
    names = [path.name.split(".") for path in component.iterdir()]
    return variant if variant and any(name[1:] and name[1].startswith(variant) for name in names) else None


@contextmanager
def _naming(component: Path) -> Iterator[None]:
    """What goes wrong in the block is a `ValueError` that names the component's folder, and only that is said."""
    loggers = (diffusers_logging, transformers_logging)
    levels = [logging.get_verbosity() for logging in loggers]
    for logging in loggers:
        logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    except ImportError:
        raise
    # Configurations may hold anything, and what the libraries' constructors then raise may be anything, too.
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{component}: can't be loaded ({type(error).__name__}: {reason}).") from error
    finally:
        for logging, level in zip(loggers, levels, strict=True):
            logging.set_verbosity(level)


@contextmanager
def _at_most(limit: int) -> Iterator[None]:
    """Stops a model that gets far more parameters than it has weights: a million layers would take hours."""
    count, thread = 0, threading.get_ident()

    def count_one(*_: Any) -> None:
        nonlocal count
        count += threading.get_ident() == thread
        if count > limit:
            raise ValueError("its config.json makes a model with far more parameters than there are weights")

    handle = register_module_parameter_registration_hook(count_one)
    try:
        yield
    finally:
        handle.remove()
