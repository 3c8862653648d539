"""Bad input: found before the libraries are imported, which takes seconds, and told in one line."""

import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import typer

from ..loaders.folders import may_be_repository
from ..loaders.phrases import DEFAULT_STYLE, check_style
from ..printable import printable


# Warnings that say what was done with a recording or a data set, or that an option had no effect.
_SHOWN = (
    "(?s).*(damaged or truncated|is not present|audio tracks|in its time stamps|cancel each other out|has no room for"
    "|has no effect|safety checker|the mixed picture shows|\\d skipped: |have no picture, so)"
)
# Options by the pipeline's arguments, as its messages write these.
_OPTIONS = {
    "audio_track": "--audio-track",
    "draw_unknown": "--draw-unknown",
    "guidance_scale": "--guidance",
    "max_batch_rows": "--max-batch-rows",
    "max_duration_s": "--max-duration",
    "negative_audio": "--negative-audio",
    "num_images_per_prompt": "--num-images",
    "num_inference_steps": "--steps",
    "num_sources": "--num-sources",
    "source_weights": "--weight",
    "split": "--split",
}
_ARGUMENT = re.compile(rf"`({'|'.join(_OPTIONS)})(?:=True)?`( = )?")
# What bad input raises; anything else is a fault of ours and shows its traceback.
BAD_INPUT = (ValueError, OSError)
# Which extra brings a library that not everybody needs.
_EXTRAS = {"datasets": "eval", "gradio": "demo", "ray": "ray", "torchmetrics": "eval"}


@contextmanager
def bad_input_exits() -> Iterator[None]:
    """Bad input ends with one line and exit code 2; warnings become one line each."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: typer.echo(
            f"avgas: warning: {printable(as_options(str(message)))}", err=True
        )
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", message=_SHOWN)
        try:
            yield
        except BAD_INPUT as error:
            typer.echo(f"avgas: error: {one_line(error)}", err=True)
            raise typer.Exit(2) from None
        except ModuleNotFoundError as error:
            if error.name not in _EXTRAS:
                raise
            extra = _EXTRAS[error.name]
            typer.echo(
                f"avgas: error: needs {error.name}: pip install '.[{extra}]' in a checkout of avgas-pipeline", err=True
            )
            raise typer.Exit(2) from None


def one_line(error: BaseException) -> str:
    """What an error says, without line breaks and control characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.strerror and error.filename:
        text = f"{error.filename}: {error.strerror}"
    return printable(as_options(text))


def as_options(text: str) -> str:
    """A message about the pipeline's arguments as one about the command's options."""
    return _ARGUMENT.sub(lambda match: _OPTIONS[match[1]] + (" " if match[2] else ""), text)


def check_files(*paths: str | Path | None) -> None:
    """
    Raises:
        FileNotFoundError: If any that is given does not exist.
    """
    missing = [str(path) for path in paths if path is not None and not os.path.exists(path)]
    if missing:
        _check_no_address(*missing)
        raise FileNotFoundError(f"{', '.join(missing)}: no such file.")


def check_is_folder(path: Path) -> None:
    """
    Raises:
        FileNotFoundError: If it does not exist or is something else.
    """
    if not path.is_dir():
        _check_no_address(str(path))
        raise FileNotFoundError(f"{path}: no such folder.")


def check_data(data: str) -> None:
    """
    Raises:
        FileNotFoundError: If it neither exists nor can be the name of a Hub repository.
        ValueError: If it is a file.
    """
    if "/" not in data and not os.path.exists(data):
        # Datasets on the Hub have their owner's name before a slash.
        raise FileNotFoundError(f"{data}: no such folder.")
    check_sources(data)
    if os.path.exists(data) and not os.path.isdir(data):
        raise ValueError(f"{data}: is not a folder.")


def check_painter(painter: str | None, style: str | None) -> None:
    """
    Raises:
        ValueError: If there is a style without a painter, or one without a place for what it shows.
        FileNotFoundError: If there is no such painter.
    """
    if painter is None:
        if style is not None:
            raise ValueError("--style is for --painter; avgas models draw in the style that they learnt.")
        return
    check_sources(painter)
    check_style(style or DEFAULT_STYLE)


def check_sources(*names: str | None) -> None:
    """
    Raises:
        FileNotFoundError: If one that is given neither exists nor can be the name of a Hub repository.
    """
    for name in names:
        if name is not None and not os.path.exists(name) and not may_be_repository(name):
            _check_no_address(name)
            raise FileNotFoundError(f"{name}: no such file or folder.")


def _check_no_address(*names: str) -> None:
    for name in names:
        # A path keeps one of the two slashes.
        if re.match(r"[a-z][a-z0-9+.-]+:/", name, re.IGNORECASE):
            raise FileNotFoundError(f"{name}: is an address, which is not fetched; download it first.")


def check_number(name: str, value: float | None, low: float, high: float) -> None:
    """
    Raises:
        ValueError: If a number that is given is not from `low` to `high`, or not a number.
    """
    if value is not None and not low <= value <= high:
        raise ValueError(f"{name} has to be a number from {low:g} to {high:g} but is {value}.")


def check_writable(folder: Path) -> None:
    """
    Makes a folder for results, and fails now rather than after the pictures are drawn.

    Raises:
        OSError: If nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise type(error)(f"{folder}: can't write there ({error.strerror}).") from None


@contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """A folder for results. If there are none, it goes again, as far as it is new."""
    new = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        check_writable(folder)
        yield
    except BaseException:
        # Only empty folders can be removed so.
        with suppress(OSError):
            for each in new:
                each.rmdir()
        raise
