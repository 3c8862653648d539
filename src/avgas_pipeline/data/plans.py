"""Plans of mixtures: all that one is made from, in a line of text; a manifest is a file of them."""

import json
import os
import reprlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

from ..files import write_text
from .text_files import read_json_lines


PLACEMENTS = ("crop", "repeat", "once")
# What the values of a plan may be; longer than an hour is no recording that is read.
_TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("id", "clip", "label"), str),
    **dict.fromkeys(("duration_s", "gain_db", "start_s", "offset_s"), (int, float)),
    **dict.fromkeys(("seed", "scene_seed"), int),
    "picture": (str, type(None)),
    "augment": bool,
}
_RANGES = {
    "duration_s": (0.01, 3600.0),
    "gain_db": (-200.0, 200.0),
    **dict.fromkeys(("start_s", "offset_s"), (0.0, 3600.0)),
    **dict.fromkeys(("seed", "scene_seed"), (0, 2**64)),
}


@dataclass(frozen=True)
class SourcePlan:
    """
    One source of a mixture.

    Attributes:
        clip (`str`): Id of its clip.
        label (`str`): Its label.
        picture (`str`, *optional*): Id of its picture.
        gain_db (`float`): Its level, in dB around equal loudness by RMS over active frames.
        placement (`str`): `"crop"` (a piece that fills the window), `"repeat"` (again and again with gaps) or
            `"once"`.
        start_s (`float`): Where the piece begins in the clip, for `"crop"`.
        offset_s (`float`): Where it first sounds in the mixture.
        seed (`int`): Of its gaps and its augmentation.
    """

    clip: str
    label: str
    picture: str | None
    gain_db: float
    placement: str
    start_s: float
    offset_s: float
    seed: int


@dataclass(frozen=True)
class MixturePlan:
    """
    All that a mixture is made from: the same plan and clips give the same bytes.

    Attributes:
        id (`str`): Its name.
        duration_s (`float`): Its length.
        sources (`list[SourcePlan]`): Its sources, of distinct labels.
        scene_seed (`int`): Of the target picture.
        augment (`bool`): Whether the clips are varied.
    """

    id: str
    duration_s: float
    sources: list[SourcePlan] = field(default_factory=list)
    scene_seed: int = 0
    augment: bool = False


def write_manifest(plans: Iterable[MixturePlan], path: str | os.PathLike) -> None:
    """Write plans as JSON lines: an evaluation set in a file."""
    lines = [json.dumps(asdict(plan), ensure_ascii=False) for plan in plans]
    write_text(path, "\n".join(lines) + "\n")


def read_manifest(path: str | os.PathLike) -> list[MixturePlan]:
    """
    Read plans that [`write_manifest`] wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a line is not a plan; it names the line.
    """
    plans = []
    for where, values in read_json_lines(path):
        try:
            if not _has_sources(values):
                raise TypeError("it needs a list of `sources`")
            sources = [SourcePlan(**source) for source in values.pop("sources")]
            plans.append(MixturePlan(sources=sources, **values))
            _check_plan(plans[-1])
        except (ValueError, TypeError) as error:
            raise ValueError(f"{where}: not a mixture ({error}).") from None
    return plans


def _has_sources(values: object) -> bool:
    sources = values.get("sources") if isinstance(values, dict) else None
    return isinstance(sources, list) and all(isinstance(source, dict) for source in sources)


def _check_plan(plan: MixturePlan) -> None:
    """Raises `TypeError` or `ValueError` for what JSON lets pass and a mixture can't be made from."""
    for part in (plan, *plan.sources):
        for name, value in vars(part).items():
            if not isinstance(value, _TYPES.get(name, object)) or (isinstance(value, bool) and name in _RANGES):
                raise TypeError(f"{name} is {reprlib.repr(value)}")
            lowest, highest = _RANGES.get(name, (None, None))
            # NaN is in no range.
            if lowest is not None and not lowest <= value <= highest:
                raise ValueError(f"{name} is {reprlib.repr(value)}, not from {lowest:g} to {highest:g}")
    for source in plan.sources:
        if source.placement not in PLACEMENTS:
            raise ValueError(f"placement is {reprlib.repr(source.placement)}")
