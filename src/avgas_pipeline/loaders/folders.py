"""Finding a checkpoint, and what is wrong with its folder before anything is loaded; imports no torch: it is slow."""

import math
import os
from collections.abc import Collection
from numbers import Real
from pathlib import Path
from typing import Any

from .json_files import read_json
from .weight_files import check_weight_files


# Checkpoints that come with the package, by name.
CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"
DEFAULT_CHECKPOINT = "avgas-mini"
# diffusers' name of a LoRA's file.
LORA_WEIGHTS = "pytorch_lora_weights.safetensors"

# Components that a pipeline is loaded with, unless they are passed; all others are optional.
_NEEDED = ("vae", "unet", "scheduler", "audio_encoder", "audio_feature_extractor", "separator")
_OPTIONAL = ("text_encoder", "tokenizer", "tagger", "tagger_feature_extractor")
# The largest number in a configuration, where the weights' shapes don't set it: what it counts may be allocated.
_MOST = {
    "config.json": 2**20,
    "scheduler_config.json": 2**20,
    "preprocessor_config.json": 2**22,
    "processor_config.json": 2**22,
}
# Of a feature extractor, as far as it has them.
_ABOVE_0 = ("sampling_rate", "feature_size", "num_mel_bins", "n_fft", "fft_window_size", "hop_length", "max_length")
_ABOVE_0 += ("frame_s", "hop_s", "window_s", "max_length_s", "chunk_length")
# Pixels of a latent; labels, which transformers lists by name; bins and bands of a spectrogram, since a matrix is made
# of both; frames of 10 ms; seconds.
_MOST_OF = {
    **{
        "sample_size": 2**12,
        "num_labels": 2**15,
        "feature_size": 2**12,
        "num_mel_bins": 2**12,
        "num_mask_bands": 2**12,
    },
    **{"n_fft": 2**16, "fft_window_size": 2**16, "max_length": 2**16},
    # Multiplies no length.
    "rope_theta": 1e12,
    **{"frame_s": 10, "window_s": 600, "max_length_s": 600, "chunk_length": 600},
}


def locate(name: str | os.PathLike, passed: Collection[str] = ()) -> str:
    """
    Folder or Hub repository of a checkpoint; one that comes with the package gives way to a folder of its name.

    Raises:
        FileNotFoundError: If it can only be a folder, and there is none, or the folder lacks something.
        ValueError: If it is a file, or something in the folder is damaged or pickled.
    """
    path = os.fspath(name)
    if path == DEFAULT_CHECKPOINT and not os.path.isdir(path):
        path = str(CHECKPOINTS / path)
    if os.path.isdir(path):
        check_folder(Path(path), passed)
    elif os.path.exists(path):
        raise ValueError(f"{path}: is a file; a pipeline is loaded from a folder or a Hub repository.")
    elif not may_be_repository(path):
        raise FileNotFoundError(f"{path}: no such folder. {DEFAULT_CHECKPOINT} comes with the package.")
    return path


def lora_of_run(name: str | os.PathLike) -> str | None:
    """The LoRA weights that `train.py` left in a run's folder, beside the pipeline that they belong to."""
    path = Path(name, LORA_WEIGHTS)
    return str(path) if path.is_file() and Path(name, "model_index.json").is_file() else None


def may_be_repository(path: str) -> bool:
    """Whether a name that is no path of anything may be one on the Hub."""
    return not os.path.isabs(path) and not path.startswith(".") and path.count("/") <= 1


def check_folder(folder: Path, passed: Collection[str] = ()) -> None:
    """
    Finds what a checkpoint folder lacks, and what is damaged, before anything is loaded; components in `passed` need
    no files.

    Raises:
        FileNotFoundError: If something is missing.
        ValueError: If something can't be read, is pickled, or leads out of its folder.
    """
    index = folder / "model_index.json"
    if not index.exists():
        raise FileNotFoundError(f"{folder}: not a pipeline checkpoint, it has no model_index.json.")
    components = read_components(index)
    missing = [name for name in _NEEDED if name not in passed and components.get(name, (None,))[0] is None]
    if missing:
        raise ValueError(f"{index}: names no `{missing[0]}`, which the pipeline needs.")
    for name, (library, _) in components.items():
        if name not in passed and library is not None:
            check_component(folder, name)


def check_component(folder: Path, name: str) -> None:
    """
    Raises:
        FileNotFoundError: If a checkpoint's component lacks something.
        ValueError: If something of it can't be read, is pickled, or leads out of its folder.
    """
    component = folder / name
    if not component.is_dir():
        raise FileNotFoundError(f"{folder}: the checkpoint has no folder for its component `{name}`.")
    most = dict(_MOST)
    # Models have a config.json; schedulers, tokenizers and feature extractors name theirs otherwise.
    if (component / "config.json").exists():
        shapes = check_weight_files(component)
        most["config.json"] = max([most["config.json"], *(size for shape in shapes.values() for size in shape)])
    for path in sorted(component.glob("*.json")):
        # The words of a tokenizer are no configuration, and are read by its own library.
        if path.name in most or path.name == "tokenizer_config.json":
            _check_config(path, read_json(path, most.get(path.name), _MOST_OF if path.name in most else None))


def _check_config(path: Path, config: dict[str, Any]) -> None:
    if config.get("transformers_weights") is not None:
        raise ValueError(f"{path}: `transformers_weights` names another weights file, which is never loaded.")
    kind = {"scheduler_config.json": "_class_name", "preprocessor_config.json": "feature_extractor_type"}.get(
        path.name
    )
    if kind is not None and not isinstance(config.get(kind), str):
        raise ValueError(f"{path}: has no `{kind}` that says of which class it is.")
    if kind == "feature_extractor_type":
        for name in _ABOVE_0:
            value = config.get(name)
            if value is not None and (not isinstance(value, Real) or isinstance(value, bool) or value <= 0):
                raise ValueError(f"{path}: `{name}` has to be a number above 0 but is {value!r}.")
    settings = config.get("pipeline_settings")
    if settings is not None and not isinstance(settings, dict):
        raise ValueError(f"{path}: `pipeline_settings` has to be an object.")
    _check_settings(path, settings or {})


def read_components(index: Path) -> dict[str, tuple[str | None, str | None]]:
    """
    Library and class of every component that a `model_index.json` names, both `None` where one was left out.

    Raises:
        ValueError: If it is not the `model_index.json` of a pipeline.
    """
    entries = read_json(index, largest=2**20)
    if not _is_pair_of(str, entries.get("_class_name")) and not isinstance(entries.get("_class_name"), str):
        raise ValueError(f"{index}: has no `_class_name` that says of which class the pipeline is.")
    _check_settings(index, entries)
    components = {}
    for name, value in entries.items():
        is_component = isinstance(value, list) or name in _NEEDED or name in _OPTIONAL
        if name.startswith("_") or not is_component or (value is None and name in (*_NEEDED, *_OPTIONAL)):
            continue
        is_valid = _is_pair_of(str, value) or _is_pair_of(type(None), value)
        if not is_valid or Path(name).name != name or name == "..":
            raise ValueError(f"{index}: {name!r} is not a component with library and class.")
        components[name] = tuple(value)
    return components


def _is_pair_of(kind: type, value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(each, kind) for each in value)


def _check_settings(path: Path, settings: dict[str, Any]) -> None:
    """The pipeline's own settings, as its `model_index.json` and its separator have them."""
    steps = settings.get("default_num_inference_steps")
    if steps is not None and (not isinstance(steps, int) or isinstance(steps, bool) or steps < 1):
        raise ValueError(f"{path}: `default_num_inference_steps` has to be a whole number above 0 but is {steps!r}.")
    for name, most in (("default_guidance_scale", math.inf), ("speed_variation", 0.5), ("label_threshold", 1)):
        value = settings.get(name)
        if value is not None and (not isinstance(value, Real) or isinstance(value, bool) or not 0 <= value <= most):
            raise ValueError(f"{path}: `{name}` has to be a number from 0 to {most:g} but is {value!r}.")
