"""What a checkpoint says it was trained on, so that nobody takes it for a test; imports no torch."""

import os
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError

from .folders import locate
from .json_files import read_json


# In a checkpoint's folder: lists of recordings by where they come from, as `{"freesound": [211527]}`.
TRAINED_ON = "trained_on.json"


def trained_on(checkpoint: str | os.PathLike) -> dict[str, frozenset[str]] | None:
    """
    The recordings that a checkpoint says it was trained on, by where they come from: `"freesound"`, numbers.

    Args:
        checkpoint (`str` or `os.PathLike`): Folder or Hub repository of a pipeline.

    Returns:
        `dict` or `None`: `None` if it does not say.

    Raises:
        ValueError: If what it says can't be read.
    """
    folder = locate(checkpoint)
    path = Path(folder, TRAINED_ON)
    if not os.path.isdir(folder):
        try:
            path = Path(hf_hub_download(folder, TRAINED_ON))
        except EntryNotFoundError:
            return None
    if not path.is_file():
        return None
    content = read_json(path)
    for origin, recordings in content.items():
        if not isinstance(recordings, list) or not all(type(each) in (int, str) for each in recordings):
            raise ValueError(f"{path}: {origin!r} has to be a list of numbers or names of recordings.")
    return {origin: frozenset(map(str, recordings)) for origin, recordings in content.items()}
