"""The folder of a run."""

import atexit
import os
from contextlib import suppress
from pathlib import Path

from avgas_pipeline.data.text_files import read_json
from avgas_pipeline.files import remove_folder, remove_partial


def claim_output_dir(output_dir: str | os.PathLike, overwrite: bool, resume_from_checkpoint: str | None) -> Path:
    """
    Make a run's folder, which goes again with the process if nothing was written to it.

    Raises:
        ValueError: If it holds something, and the run neither goes on nor may overwrite it.
    """
    path = Path(output_dir)
    if path.exists() and any(path.iterdir()):
        if not overwrite and resume_from_checkpoint is None:
            raise ValueError(
                f"{path}: is not empty; give --resume_from_checkpoint latest to go on, or --overwrite_output_dir."
            )
        if overwrite and resume_from_checkpoint is None:
            _remove_results(path)
        remove_partial(path)
    absolute = path.absolute()
    new = [each for each in (absolute, *absolute.parents) if not each.exists()]
    path.mkdir(parents=True, exist_ok=True)
    atexit.register(_remove_empty, new)
    return path


def _remove_empty(folders: list[Path]) -> None:
    # Only empty folders can be removed so.
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _remove_results(path: Path) -> None:
    """Remove what an earlier run wrote, and nothing else; cached examples stay."""
    for folder in (*path.glob("checkpoint-*"), path / "logs", *(path / name for name in _parts(path))):
        if folder.is_dir():
            remove_folder(folder)
    names = ["model_index.json", "README.md", "training.json", "curves.jsonl", "curves.png", "config.json"]
    names += ["preprocessor_config.json", "accuracy.json"]
    for file in (*path.glob("validation-*.png"), *path.glob("*.safetensors"), *(path / name for name in names)):
        file.unlink(missing_ok=True)


def _parts(path: Path) -> list[str]:
    """Folders of the pipeline that an earlier run wrote; none if its index is damaged."""
    try:
        index = read_json(path / "model_index.json")
    except (OSError, ValueError):
        return []
    names = index if isinstance(index, dict) else {}
    return [name for name in names if name and not name.startswith(("_", ".")) and Path(name).name == name]
