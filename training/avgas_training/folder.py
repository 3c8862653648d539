"""The folder of a run."""

import json
import os
import shutil
from pathlib import Path

from avgas_pipeline.files import remove_partial


def claim_output_dir(output_dir: str | os.PathLike, overwrite: bool, resume_from_checkpoint: str | None) -> Path:
    """
    Make a run's folder.

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
    path.mkdir(parents=True, exist_ok=True)
    return path


def _remove_results(path: Path) -> None:
    """Remove what an earlier run wrote, and nothing else; cached examples stay."""
    parts = []
    if (path / "model_index.json").exists():
        index = json.loads((path / "model_index.json").read_text(encoding="utf-8"))
        parts = [name for name in index if name[0] != "_"]
    for folder in (*path.glob("checkpoint-*"), path / "logs", *(path / name for name in parts)):
        shutil.rmtree(folder, ignore_errors=True)
    names = ["model_index.json", "README.md", "training.json", "curves.jsonl", "curves.png", "config.json"]
    names += ["preprocessor_config.json", "accuracy.json"]
    for file in (*path.glob("validation-*.png"), *path.glob("*.safetensors"), *(path / name for name in names)):
        file.unlink(missing_ok=True)
