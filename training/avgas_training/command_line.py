"""From YAML files and the command line to settings, and from errors to one line."""

import argparse
import dataclasses
import multiprocessing
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import ArgumentError, ArgumentParser, DefaultHelpFormatter

from avgas_pipeline.cli.signals import end_on_signals
from avgas_pipeline.cli.terminal import guard_streams
from avgas_pipeline.notices import quieten
from avgas_pipeline.printable import printable

from .settings import RunSettings, default_of


Settings = TypeVar("Settings", bound=RunSettings)
LISTS = "Lists are written with spaces between their items, as in --num_sources 1 3; in a YAML file as [1, 3]."
# What PyYAML raises of its own, and what its conversions of values let through.
_YAML_ERRORS = (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


class _HelpFormatter(argparse.RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Types and defaults, below a description with its own line breaks."""


def parse_settings(settings_class: type[Settings], description: str, argv: Sequence[str] | None = None) -> Settings:
    """
    Read a run's settings: the dataclass's defaults, over them those of `--config FILE`, over them those of the command
    line, where every field is an option of its name. The order of the options does not matter, but of several
    `--config` a later one overrides those before it.

    Args:
        settings_class (`type`): A dataclass of `settings.py`.
        description (`str`): Of the script.
        argv (`Sequence[str]`, *optional*): The command line; that of the process if not given.

    Raises:
        ValueError: For an unknown setting or a value that it can't have; the message names the setting, and the file
            if it comes from one.
        FileNotFoundError: If a file is missing.
    """
    parser = _build_parser(settings_class, description, for_files=False)
    # Files first: what they say is where the command line's values are missing.
    files = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    files.add_argument("--config", action="append", default=[])
    try:
        for path in files.parse_known_args(argv)[0].config:
            parser.set_defaults(read_recipe(path, settings_class))
        values = vars(parser.parse_args(argv))
    except (ArgumentError, argparse.ArgumentError) as error:
        raise ValueError(_explain(error, get_type_hints(settings_class))) from None
    return settings_class(**{field.name: values[field.name] for field in dataclasses.fields(settings_class)})


def read_recipe(path: str | Path, settings_class: type[RunSettings]) -> dict[str, Any]:
    """
    The settings of a YAML file, by name. Its `base`, a file or a list of files beside it, has settings that it
    overrides; of several bases a later one overrides those before it.

    Raises:
        ValueError: If it is no such file, or has an unknown setting or a value that can't be; the message names both.
        FileNotFoundError: If it or a base is missing.
    """
    return _read(Path(path), settings_class, _build_parser(settings_class, "", for_files=True), ())


def run_script(main: Callable[[], None]) -> None:
    """
    Run a training script: bad settings and bad data end it with one line and exit code 2. Signals and Ctrl-C end it
    with 128 + their number, unless it is a run that saves and ends itself.
    """
    guard_streams()
    end_on_signals()
    quieten()
    try:
        main()
    except BaseException as error:
        _end_workers()
        if isinstance(error, KeyboardInterrupt):
            sys.exit(128 + signal.SIGINT)
        if not isinstance(error, (ValueError, OSError)):
            raise
        print(f"error: {printable(_reason(error))}", file=sys.stderr)
        sys.exit(2)


def _end_workers() -> None:
    """Loaders' processes ignore the signal by which they would be ended, and would be waited for without end."""
    # PyTorch takes the end of one for a fault; Windows has no such signal.
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for worker in multiprocessing.active_children():
        worker.kill()


def _reason(error: Exception) -> str:
    """In one line; of what PyTorch says of a loader's process, the process's own words."""
    text = str(error).strip()
    if text.startswith("Caught ") and "Original Traceback" in text:
        text = re.sub(r"^\w+(\.\w+)*: ", "", text.splitlines()[-1])
    return " ".join(text.split())


def _read(
    path: Path, settings_class: type[RunSettings], parser: ArgumentParser, above: tuple[Path, ...]
) -> dict[str, Any]:
    """`above` are the files whose base this is."""
    if path.resolve() in above:
        raise ValueError(f"{path}: is its own base.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file.") from None
    except OSError as error:
        raise ValueError(f"{path}: can't be read ({error.strerror}).") from None
    except _YAML_ERRORS as error:
        raise ValueError(f"{path}: not YAML ({error}).") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: has to hold settings as `name: value`.")
    bases = values.pop("base", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ValueError(f"{path}: base has to be a file or a list of files.")
    inherited: dict[str, Any] = {}
    for base in bases:
        inherited |= _read(path.parent / base, settings_class, parser, (*above, path.resolve()))

    types = get_type_hints(settings_class)
    for name, value in values.items():
        if name not in {field.name for field in dataclasses.fields(settings_class)}:
            raise ValueError(f"{path}: there is no setting {name!r}.")
        # jsonargparse takes null for "not given".
        if value is None and NoneType not in get_args(types[name]):
            raise ValueError(f"{path}: {name} has to be {_kind(types[name])} but is null.")
    try:
        parsed = vars(parser.parse_object(values))
    except (ArgumentError, RecursionError) as error:
        raise ValueError(f"{path}: {_explain(error, types)}") from None
    return inherited | {name: parsed[name] for name in values}


def _build_parser(settings_class: type[RunSettings], description: str, for_files: bool) -> ArgumentParser:
    """With an option for every field; items of lists are words of the command line, and lists in files."""
    parser = ArgumentParser(
        description=description,
        epilog=LISTS,
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
        exit_on_error=False,
    )
    if not for_files:
        parser.add_argument(
            "--config", action="append", metavar="FILE", help="YAML file of settings; other options override it"
        )
    types = get_type_hints(settings_class)
    for field in dataclasses.fields(settings_class):
        wanted, options = types[field.name], {}
        if wanted is bool:
            options = {"nargs": "?", "const": True}
        elif get_origin(wanted) is list and not for_files:
            wanted, options = get_args(wanted)[0], {"nargs": "*"}
        parser.add_argument(
            f"--{field.name}", type=wanted, default=default_of(field), help=field.metadata["help"], **options
        )
    return parser


def _explain(error: Exception, types: Mapping[str, Any]) -> str:
    """What jsonargparse says of a wrong value, in plain English."""
    found = re.search(r'Parser key "(\w+)".*(?:Got|Given) value: (.*)', str(error), re.DOTALL)
    if not found:
        return f"{' '.join(str(error).split())}."
    name, value = found.groups()
    return f"{name} has to be {_kind(types[name])} but is {value}."


def _kind(wanted: Any) -> str:
    """What a setting of some type has to be, in words."""
    if get_origin(wanted) is Literal:
        return f"one of {', '.join(get_args(wanted))}"
    if get_origin(wanted) is list:
        return f"a list, each item {_kind(get_args(wanted)[0])}"
    options = [_kind(option) for option in get_args(wanted) if option is not NoneType]
    return f"{options[0]} or null" if options else KINDS[wanted]
