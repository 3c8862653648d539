"""Settings of a training run: a dataclass, filled from a YAML file and the command line."""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml
from transformers import HfArgumentParser


Config = TypeVar("Config")


def setting(default: Any, text: str) -> Any:
    """A field of a run's settings, with its help; lists get a fresh copy of their default."""
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata={"help": text})
    return dataclasses.field(default=default, metadata={"help": text})


def default_of(field: dataclasses.Field) -> Any:
    """A setting's default."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def parse_config(config_class: type[Config], description: str, argv: Sequence[str] | None = None) -> Config:
    """
    Read a run's settings: the dataclass's defaults, over them those of `--config FILE`, over them those of the command
    line, where every field is an argument of its name.

    Args:
        config_class (`type`): A dataclass; its fields' metadata has their help.
        description (`str`): Of the script.
        argv (`Sequence[str]`, *optional*): The command line; that of the process if not given.

    Raises:
        SystemExit: With code 2 and one line, for an unknown key, a value of the wrong type or a missing file.
    """
    parser = HfArgumentParser(
        config_class,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file of settings; the command line overrides it")
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config")
    path = first.parse_known_args(argv)[0].config
    if path is not None:
        parser.set_defaults(**_read(parser, config_class, path))
    values = vars(parser.parse_args(argv))
    values.pop("config")
    return config_class(**values)


def run_script(main: Callable[[], None]) -> None:
    """Run a training script: bad settings and bad data end it with one line and exit code 2."""
    try:
        main()
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


def _read(parser: argparse.ArgumentParser, config_class: type, path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            values = yaml.safe_load(file) or {}
    except (OSError, yaml.YAMLError) as error:
        parser.error(f"{path}: {' '.join(str(error).split())}")
    if not isinstance(values, dict):
        parser.error(f"{path}: has to hold settings as `name: value`.")
    types = get_type_hints(config_class)
    known = {field.name for field in dataclasses.fields(config_class)}
    for key, value in values.items():
        if key not in known:
            parser.error(f"{path}: there is no setting {key!r}.")
        try:
            values[key] = _convert(value, types[key])
        except (TypeError, ValueError):
            parser.error(f"{path}: {key} can't be {value!r}.")
    return values


def _convert(value: Any, wanted: Any) -> Any:
    """A YAML value as the field's type; YAML takes `1e-4` for text."""
    options = [kind for kind in get_args(wanted) if kind is not type(None)]
    if get_origin(wanted) is list:
        if not isinstance(value, list):
            raise TypeError
        return [_convert(item, options[0]) for item in value]
    if options:
        return None if value is None else _convert(value, options[0])
    if isinstance(value, bool) != (wanted is bool) or isinstance(value, (list, dict)) or value is None:
        raise TypeError
    if wanted is int and float(value) != int(float(value)):
        raise ValueError
    return wanted(value)
