"""soundscapes-mini: 59 VGGSound classes of real sounds and pictures from free packages."""

import os
from pathlib import Path

from datasets import Dataset

from .cached import load_cached


FOLDER = Path("data", "soundscapes-mini")


def load_soundscapes_mini(
    path_or_repo: str | os.PathLike | None = None, split: str = "train"
) -> tuple[Dataset, Dataset]:
    """
    Load one split of soundscapes-mini.

    Args:
        path_or_repo (`str` or `os.PathLike`, *optional*):
            The dataset's folder or Hub repository. Not needed in a checkout of this project, where it is found.
        split (`str`, defaults to `"train"`): `"train"` or `"test"`.

    Returns:
        `tuple[Dataset, Dataset]`: sounds (`audio`: Ogg Opus bytes) and pictures (`image`: WebP bytes, RGBA), both with
        `id`, `label`, `source_group` and `license`.

    Raises:
        FileNotFoundError: If no path is given and the dataset is not found.
    """
    source = os.fspath(path_or_repo or find_soundscapes_mini())
    return load_cached(source, "audio", split), load_cached(source, "images", split)


def find_soundscapes_mini() -> Path:
    """The dataset's folder in the checkout this package is installed from, or in the current folder."""
    for root in (*Path(__file__).resolve().parents, Path.cwd()):
        if (root / FOLDER / "README.md").exists():
            return root / FOLDER
    raise FileNotFoundError(
        f"soundscapes-mini is not here: it comes with a checkout of the project, in {FOLDER}; give its path or Hub id."
    )
