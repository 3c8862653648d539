"""Reading the JSON files of a checkpoint, which may hold anything; imports no torch."""

import json
import math
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any


# A configuration with labels for 20,000 classes is a quarter as large, and nests five levels.
_MAX_BYTES = 2**22
_MAX_DEPTH = 32
# What diffusers writes of its DPM solvers.
_INFINITE = (("lambda_min_clipped", -math.inf),)


def read_json(
    path: Path, largest: float | None = None, largest_of: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """
    The object in a JSON file.

    Args:
        path (`Path`): The file.
        largest (`float`, *optional*): The largest number that may stand in it.
        largest_of (`Mapping[str, float]`, *optional*): The largest under a name, in place of that.

    Raises:
        ValueError: If it is not a JSON object, larger than 4 MiB or nested too deep, or holds NaN, infinity, text
            that can't be written, or a number that is too large.
    """
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"{path}: is larger than {_MAX_BYTES // 2**20} MiB, too large for JSON of a checkpoint.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError(f"{path}: not valid JSON (nested too deep).") from None
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON ({error}).") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: has to hold a JSON object.")
    _check_values(path, content, largest, largest_of or {})
    return content


def _check_values(path: Path, content: dict[str, Any], largest: float | None, largest_of: Mapping[str, float]) -> None:
    # Not recursive, so that depth is an error here and not in the interpreter.
    waiting: list[tuple[str, Any, int]] = [("", content, 0)]
    while waiting:
        name, value, depth = waiting.pop()
        if depth > _MAX_DEPTH:
            raise ValueError(f"{path}: nested more than {_MAX_DEPTH} levels deep.")
        if isinstance(value, dict):
            waiting += [(key, key, depth) for key in value]
            waiting += [(key, each, depth + 1) for key, each in value.items()]
        elif isinstance(value, list):
            waiting += [(name, each, depth + 1) for each in value]
        elif isinstance(value, str):
            try:
                value.encode("utf-8")
            except UnicodeEncodeError:
                raise ValueError(f"{path}: holds half a character (a lone surrogate): {value[:40]!a}.") from None
        elif isinstance(value, Real):
            if isinstance(value, float) and not math.isfinite(value) and (name, value) not in _INFINITE:
                raise ValueError(f"{path}: not valid JSON ({value} is no number of JSON).")
            most = largest_of.get(name, largest)
            if most is not None and value > most:
                raise ValueError(f"{path}: `{name}` is too large a number; {most} is the most that is accepted.")
