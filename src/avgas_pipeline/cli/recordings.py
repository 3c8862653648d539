"""Recordings as the command line names them: files, or `-` for standard input."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..data.suffixes import AUDIO_SUFFIXES, VIDEO_SUFFIXES
from .checks import check_files


_STANDARD_INPUT = "-"
# Of what is taken from a folder.
SUFFIXES = AUDIO_SUFFIXES + VIDEO_SUFFIXES
# Of a folder's name, in bytes: file systems allow 255, and a number may follow.
_LONGEST_NAME = 240


@dataclass(frozen=True)
class RecordingArgument:
    """
    A recording that is to be drawn.

    Attributes:
        argument (`str`): As it was given.
    """

    argument: str

    @property
    def is_standard_input(self) -> bool:
        """Whether it is to be read from there."""
        return self.argument == _STANDARD_INPUT

    @property
    def name(self) -> str:
        """What messages call it."""
        return "standard input" if self.is_standard_input else self.argument

    @property
    def path(self) -> Path:
        """What results are named after."""
        return Path("stdin" if self.is_standard_input else self.argument)

    def source(self) -> str | BinaryIO:
        """
        What to load.

        Raises:
            ValueError: If it is standard input, which is closed.
        """
        if not self.is_standard_input:
            return self.argument
        if sys.stdin is None:
            raise ValueError(f"{self.name}: is closed.")
        return sys.stdin.buffer


def recording_arguments(arguments: list[str]) -> list[RecordingArgument]:
    """
    Recordings as they were given; of a folder, the sound and video files in it, not those in folders below.

    Raises:
        FileNotFoundError: If there is none of them; if some are there, the others can be skipped.
        ValueError: If standard input is among them more than once, or a folder has no such file.
    """
    recordings = [RecordingArgument(file) for argument in arguments for file in _files_of(argument)]
    if sum(recording.is_standard_input for recording in recordings) > 1:
        raise ValueError("standard input: can be read only once, so give `-` once.")
    if not any(recording.is_standard_input or os.path.exists(recording.argument) for recording in recordings):
        check_files(*arguments)
    return recordings


def _files_of(argument: str) -> list[str]:
    """The recordings in a folder, sorted; anything else is itself."""
    if argument == _STANDARD_INPUT or not os.path.isdir(argument):
        return [argument]
    files = [path for path in sorted(Path(argument).iterdir()) if _is_recording(path)]
    if not files:
        raise ValueError(f"{argument}: has no sound or video files ({', '.join(SUFFIXES)}).")
    return list(map(str, files))


def _is_recording(path: Path) -> bool:
    # Names that begin with a dot are what systems keep for themselves.
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def result_folders(recordings: list[RecordingArgument], out: Path) -> list[Path]:
    """Where each recording's results go: `out` itself for one, otherwise a folder named after each."""
    if len(recordings) == 1:
        return [out]
    folders: list[Path] = []
    for recording in recordings:
        # A file called "...wav" has the stem "..".
        stem = recording.path.stem.strip(".") or "recording"
        while len(os.fsencode(stem)) > _LONGEST_NAME:
            stem = stem[:-1]
        folder = out / stem
        number = 2
        while folder in folders:
            folder = out / f"{stem}-{number}"
            number += 1
        folders.append(folder)
    return folders
