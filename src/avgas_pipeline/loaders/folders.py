"""Finding a checkpoint, and what its folder lacks before anything is loaded; imports no torch, which takes seconds."""

import json
import os
from collections.abc import Collection
from pathlib import Path


# Checkpoints that come with the package, by name.
CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"
DEFAULT_CHECKPOINT = "avgas-mini"


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
