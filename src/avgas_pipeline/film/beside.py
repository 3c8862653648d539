"""The files beside a film: it knows which of them were written with it, so that those of others stay."""

import hashlib
import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import av

from .captions import CAPTIONS


STORYBOARD = "storyboard.png"
VTT, SRT = f"{CAPTIONS}.vtt", f"{CAPTIONS}.srt"
BESIDE = (VTT, SRT, STORYBOARD)
# Of the film's metadata, where they are listed.
_TAG, _KEY = "comment", "avgas film"


def list_beside(folder: Path) -> dict[str, str]:
    """The metadata of a film whose other files are in a folder."""
    digests = {name: _digest(folder / name) for name in BESIDE if (folder / name).exists()}
    return {_TAG: json.dumps({_KEY: digests})}


def listed_beside(film: Path) -> dict[str, str]:
    """Names of the files that were written with a film, and their digests; none if it is another video, or none."""
    try:
        # PyAV would take a name with a colon for an address.
        with film.open("rb") as file, av.open(file) as container:
            listed = json.loads(container.metadata.get(_TAG, ""))[_KEY]
        return {name: listed[name] for name in BESIDE if name in listed}
    except (OSError, av.error.FFmpegError, ValueError, KeyError, TypeError, RecursionError):
        return {}


def not_of(films: Sequence[Path], folder: Path, names: Sequence[str]) -> list[str]:
    """Those of the names, and of what the films list, that are in a folder and as no film has written them."""
    listed = [listed_beside(film) for film in films]
    found = {name: _digest(folder / name) for name in dict.fromkeys(chain(names, *listed)) if (folder / name).exists()}
    return [name for name, digest in found.items() if all(digest != each.get(name) for each in listed)]


def _digest(path: Path) -> str:
    """Of a file's bytes; empty for a folder."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
