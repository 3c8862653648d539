"""Plans of mixtures: all that one is made from, in a line of text; a manifest is a file of them."""

import json
import math
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..files import write_text


PLACEMENTS = ("crop", "repeat", "once")


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
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
            sources = [SourcePlan(**source) for source in values.pop("sources")]
            plans.append(MixturePlan(sources=sources, **values))
            _check_types(plans[-1])
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path}, line {number}: not a mixture ({error}).") from None
    return plans


def _check_types(plan: MixturePlan) -> None:
    """Raises `TypeError` or `ValueError` for what JSON lets pass and a mixture can't be made from."""
    for part in (plan, *plan.sources):
        for name in ("duration_s", "gain_db", "start_s", "offset_s", "seed", "scene_seed"):
            value = getattr(part, name, 0)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise TypeError(f"{name} is {value!r}")
    if plan.duration_s <= 0:
        raise ValueError(f"duration_s is {plan.duration_s}")
    for source in plan.sources:
        if source.placement not in PLACEMENTS:
            raise ValueError(f"placement is {source.placement!r}")
