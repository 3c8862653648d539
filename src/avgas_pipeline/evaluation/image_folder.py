"""A system whose images were drawn elsewhere, and lie in a folder."""

import hashlib
import os
import re
from pathlib import Path
from typing import Any

import PIL.Image

from .drawings import Drawing


class ImageFolderSystem:
    """
    Images drawn elsewhere: `00000.png` for the mixed image of the first soundscape of the manifest, `00000-1.png`,
    `00000-2.png` … for its separated ones, and so on; in `folder` or below.

    Args:
        name (`str`): In the report.
        folder (`str` or `os.PathLike`): Where they are.
        num_soundscapes (`int`): How many there have to be.

    Raises:
        FileNotFoundError: If the folder or an image is missing.
        ValueError: If two images have one name.
    """

    def __init__(self, name: str, folder: str | os.PathLike, num_soundscapes: int) -> None:
        self.name = name
        self.folder = Path(folder)
        self.num_soundscapes = num_soundscapes
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder.")
        self._mixed: dict[int, Path] = {}
        self._separated: dict[int, dict[int, Path]] = {}
        for path in sorted(self.folder.rglob("*.png")):
            match = re.fullmatch(r"(\d{5,})(?:-(\d+))?", path.stem)
            if match is None:
                continue
            place = int(match[2] or 0)
            found = self._separated.setdefault(int(match[1]), {}) if place else self._mixed
            if (place or int(match[1])) in found:
                raise ValueError(f"{folder}: holds two images called {path.name}: of more than one system?")
            found[place or int(match[1])] = path
        if not self._mixed and not self._separated:
            raise FileNotFoundError(f"{folder}: holds no images named 00000.png or 00000-1.png and so on.")
        for found in (self._mixed, self._separated):
            missing = next((number for number in range(num_soundscapes) if found and number not in found), None)
            if missing is not None:
                suffix = ".png" if found is self._mixed else "-1.png"
                raise FileNotFoundError(f"{self.folder / f'{missing:05d}{suffix}'}: no such file.")

    def fingerprint(self) -> dict[str, Any]:
        """The folder and its images."""
        digest = hashlib.sha256()
        for number, mixed in sorted(self._mixed.items()):
            digest.update(f"{number} ".encode() + mixed.read_bytes())
        for number, found in sorted(self._separated.items()):
            for place, path in sorted(found.items()):
                digest.update(f"{number}-{place} ".encode() + path.read_bytes())
        return {"images": str(self.folder), "images_sha256": digest.hexdigest()}

    def verify(self) -> None:
        """
        Open all images.

        Raises:
            ValueError: If one is damaged.
        """
        for path in (*self._mixed.values(), *(path for found in self._separated.values() for path in found.values())):
            _open(path)

    def drawing(self, number: int) -> Drawing:
        """The images of one soundscape."""
        separated = [path for _, path in sorted(self._separated.get(number, {}).items())]
        mixed = self._mixed.get(number)
        return Drawing(_open(mixed) if mixed else None, [_open(path) for path in separated])

    def drawings(self) -> list[Drawing]:
        """The images of all soundscapes."""
        return [self.drawing(number) for number in range(self.num_soundscapes)]

    def close(self) -> None:
        """Nothing is held."""


def _open(path: Path) -> PIL.Image.Image:
    try:
        with PIL.Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError):
        raise ValueError(f"{path}: not an image, or damaged.") from None
