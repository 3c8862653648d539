"""Where scripts that change a whole pipeline write it: a folder that is whole or absent."""

import shutil
from pathlib import Path

from avgas_pipeline import AVGASPipeline


def check_is_new(folder: Path) -> None:
    """
    Before the work begins.

    Raises:
        ValueError: If the folder is there already.
    """
    if folder.exists():
        raise ValueError(f"{folder}: is there already.")


def save_whole(pipe: AVGASPipeline, folder: Path) -> None:
    """Save a pipeline beside its folder, under a temporary name that is given up at last."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    pipe.save_pretrained(partial)
    partial.rename(folder)
