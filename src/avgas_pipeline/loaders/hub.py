"""Loading and publishing: safetensors only, clear errors for bad folders, and a real model card."""

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging
from huggingface_hub import file_exists
from safetensors import SafetensorError
from typing_extensions import Self

from .model_card import create_model_card


logger = logging.get_logger(__name__)

# Checkpoints that come with the package, by name.
CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"
DEFAULT_CHECKPOINT = "avgas-mini"


class HubMixin:
    """Goes before `DiffusionPipeline` among the bases of a pipeline."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> Self:
        r"""
        Load a pipeline from a folder or from the Hub, as [`DiffusionPipeline.from_pretrained`] does, but never from
        pickled weights. `"avgas-mini"` comes with the package, and needs no network. All models are in float32 unless
        `dtype` says otherwise, whatever they were saved in.

        Raises:
            FileNotFoundError: If the folder, or one of its components' weights, is missing.
            ValueError: If the weights are pickled only.
        """
        if kwargs.pop("use_safetensors", None) is False:
            raise ValueError("Weights are loaded from safetensors only; leave `use_safetensors` at True.")
        path = locate(pretrained_model_name_or_path, kwargs)
        try:
            # transformers' models would have the files' own type.
            if "torch_dtype" not in kwargs:
                kwargs.setdefault("dtype", torch.float32)
            return super().from_pretrained(path, use_safetensors=True, **kwargs)
        except SafetensorError as error:
            raise ValueError(f"{path}: a weights file is damaged or not safetensors ({error}).") from None

    def save_pretrained(
        self, save_directory: str | os.PathLike, safe_serialization: bool = True, **kwargs: Any
    ) -> None:
        """
        Save the pipeline to a folder, as [`DiffusionPipeline.save_pretrained`] does, but always as safetensors, which
        a warning says where `safe_serialization` is `False`.
        """
        if not safe_serialization:
            logger.warning("Weights are never pickled: `safe_serialization=False` saves safetensors all the same.")
        if type(self).__module__.startswith("diffusers_modules."):
            raise ValueError(
                "What was loaded with `trust_remote_code` can't be saved; install avgas-pipeline for that."
            )
        super().save_pretrained(save_directory, **kwargs)

    def _upload_folder(
        self, working_dir: str | os.PathLike, repo_id: str, token: str | None = None, **kwargs: Any
    ) -> Any:
        # Both ways to push write a card here: the repository's own, or else an unfilled template.
        card = Path(working_dir, "README.md")
        if card.exists() and not file_exists(repo_id, "README.md", token=token):
            create_model_card(self, repo_id).save(card)
        return super()._upload_folder(working_dir, repo_id, token=token, **kwargs)


def locate(name: str | os.PathLike, passed: Collection[str] = ()) -> str:
    """
    Folder or Hub repository of a checkpoint; one that comes with the package gives way to a folder of its name.

    Raises:
        FileNotFoundError: If it can only be a folder, and there is none, or the folder lacks something.
        ValueError: If it is a file, or its weights are pickled.
    """
    path = os.fspath(name)
    if path == DEFAULT_CHECKPOINT and not os.path.isdir(path):
        path = str(CHECKPOINTS / path)
    if os.path.isdir(path):
        check_folder(Path(path), passed)
    elif os.path.exists(path):
        raise ValueError(f"{path}: is a file; a pipeline is loaded from a folder or a Hub repository.")
    elif not may_be_repository(path):
        raise FileNotFoundError(f"{path}: no such folder.")
    return path


def may_be_repository(path: str) -> bool:
    """Whether a name that is no path of anything may be one on the Hub."""
    return not os.path.isabs(path) and not path.startswith(".") and path.count("/") <= 1


def check_folder(folder: Path, passed: Collection[str] = ()) -> None:
    """Finds what a checkpoint folder lacks before anything is loaded; components in `passed` need no files."""
    index = folder / "model_index.json"
    if not index.exists():
        raise FileNotFoundError(f"{folder}: not a pipeline checkpoint, it has no model_index.json.")
    for name, (library, _) in read_components(index).items():
        if name in passed or library is None:
            continue
        component = folder / name
        if not component.is_dir():
            raise FileNotFoundError(f"{folder}: the checkpoint has no folder for its component `{name}`.")
        # Models have a config.json; schedulers, tokenizers and feature extractors name theirs otherwise.
        if not (component / "config.json").exists() or any(component.glob("*.safetensors")):
            continue
        pickled = [file.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for file in component.glob(pattern)]
        if pickled:
            raise ValueError(
                f"{component}: its weights are pickled ({pickled[0]}), which is never loaded; convert them to"
                " safetensors."
            )
        raise FileNotFoundError(f"{component}: has no weights (*.safetensors).")


def read_components(index: Path) -> dict[str, tuple[str | None, str | None]]:
    """Library and class of every component that a `model_index.json` names, both `None` where one was left out."""
    try:
        entries = json.loads(index.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{index}: not valid JSON ({error}).") from None
    if not isinstance(entries, dict):
        raise ValueError(f"{index}: has to hold a JSON object.")
    components = {}
    for name, value in entries.items():
        if name.startswith("_") or not isinstance(value, list):
            continue
        if len(value) != 2 or Path(name).name != name or name == "..":
            raise ValueError(f"{index}: {name!r} is not a component with library and class.")
        components[name] = tuple(value)
    return components
