"""Soundscapes with known sources: plans that fit in a line of text, and what they sound and look like."""

import io
import json
import math
import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from ..audio.loading import load_audio
from ..audio.windows import cut_quieter_end
from .augment import augment
from .loudness import active_moments, active_rms
from .scenes import collage, compose_scene


# Active RMS of a source with a gain of 0 dB: -26 dB of full scale.
REFERENCE_LEVEL = 10.0 ** (-26.0 / 20)
# Fade at the ends of a placed piece, so that cuts do not click.
FADE_S = 0.005
# Where in the window the moment of a long clip lies that a piece is cut around.
MOMENT_SHARE = (0.1, 0.9)
# Decoded clips that a sampler keeps; data sets need not fit in memory.
MOST_CACHED_BYTES = 2**30
# Clips shorter than this share of the window are repeated, with this probability.
REPEATED_SHARE = 0.6
REPEAT_PROBABILITY = 0.6
# Gaps between repetitions: so many times the sound's own length, and so many seconds more. Never regular.
GAP_LENGTHS = (0.3, 1.5)
GAP_S = (0.05, 0.4)
TARGETS = ("compose", "collage", "single")
BALANCES = ("label", "source_group")
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


@dataclass
class Mixture:
    """
    A soundscape with known sources.

    Attributes:
        plan (`MixturePlan`): What it was made from.
        waveform (`np.ndarray` of shape `(T,)`): float32 in [-1, 1]; exactly the sum of the stems.
        stems (`np.ndarray` of shape `(N, T)`): Each source as it sounds in the mixture.
        sampling_rate (`int`): In Hz.
        labels (`list[str]`): Of the sources.
        scale_db (`float`): What all stems were turned down by so that nothing clips, 0 or negative: a stem's level
            is that of its `gain_db` plus this.
        pictures (`list[PIL.Image.Image]`): Of the sources, as the data set has them; empty without pictures or target.
        image (`PIL.Image.Image`, *optional*): The target picture, RGB; `None` without pictures or target.
    """

    plan: MixturePlan
    waveform: np.ndarray
    stems: np.ndarray
    sampling_rate: int
    labels: list[str]
    scale_db: float
    pictures: list[PIL.Image.Image]
    image: PIL.Image.Image | None


class MixtureSampler:
    r"""
    Soundscapes of 1 to N clips with distinct labels, drawn at random from any clip dataset.

    `sampler.plan(index, epoch)` depends on `(seed, epoch, index)` alone, so mixtures are the same whatever the number
    of workers or processes; `sampler.render(plan)` makes it sound. Clips are drawn by label, then source group, so
    that a class or a recording with many clips does not crowd out the others.

    Args:
        clips (`Sequence[Mapping]`):
            Rows with `id`, `label`, `audio` (whatever [`~avgas_pipeline.audio.load_audio`] reads) and, if there is
            one, `source_group` and `image`: a `datasets.Dataset` or a list.
        pictures (`Sequence[Mapping]`, *optional*):
            Rows with `id`, `label` and `image`, drawn by label, where clips have no picture of their own.
        seed (`int`, defaults to 0): Of the whole sequence.
        num_sources (`tuple[int, int]` or `int`, defaults to `(1, 3)`): Fewest and most sources.
        duration_s (`float`, defaults to 5.0): Length of a mixture.
        sampling_rate (`int`, defaults to 16000): In Hz.
        gain_range_db (`float`, defaults to 6.0): Gains are drawn from plus or minus this.
        augment (`bool` or `float`, defaults to `False`):
            Vary the clips, of all mixtures or of this fraction of them; for training, never for test.
        balance (`str`, defaults to `"label"`):
            What is drawn evenly: labels, then their source groups (`"label"`), or source groups (`"source_group"`).
        target (`str`, *optional*, defaults to `"compose"`): `"compose"` (objects with transparency in one scene),
            `"collage"` (side by side, in the order of their labels), or `"single"` (the loudest source's picture);
            with `None` pictures are planned, but not read.
        image_size (`int`, defaults to 128): Side of the target picture, in pixels.
        cache_clips (`bool`, defaults to `True`):
            Keep decoded clips in memory, 4 bytes per sample, up to 1 GiB in every worker: those that were used last.

    Raises:
        ValueError: If clips and pictures do not go together, there are fewer labels than sources, or `augment` is not
            from 0 to 1.
    """

    def __init__(
        self,
        clips: Sequence[Mapping[str, Any]],
        pictures: Sequence[Mapping[str, Any]] | None = None,
        seed: int = 0,
        num_sources: tuple[int, int] | int = (1, 3),
        duration_s: float = 5.0,
        sampling_rate: int = 16000,
        gain_range_db: float = 6.0,
        augment: bool | float = False,
        balance: str = "label",
        target: str | None = "compose",
        image_size: int = 128,
        cache_clips: bool = True,
    ) -> None:
        if target not in (*TARGETS, None):
            raise ValueError(f"`target` has to be one of {TARGETS} but is {target!r}.")
        if balance not in BALANCES:
            raise ValueError(f"`balance` has to be one of {BALANCES} but is {balance!r}.")
        self.clips = clips
        self.pictures = pictures
        self.seed = seed
        self.num_sources = (num_sources, num_sources) if isinstance(num_sources, int) else num_sources
        self.duration_s = duration_s
        self.sampling_rate = sampling_rate
        self.gain_range_db = gain_range_db
        self.augment = augment
        self.balance = balance
        self.target = target
        self.image_size = image_size

        self._clip_rows = {clip_id: row for row, clip_id in enumerate(_column(clips, "id"))}
        self._groups = _group_by_label(clips)
        self._labels = sorted(self._groups)
        self._own_pictures = "image" in _names(clips)
        self._picture_rows, self._label_pictures = {}, {}
        if pictures is not None:
            self._picture_rows = {picture_id: row for row, picture_id in enumerate(_column(pictures, "id"))}
            for picture_id, label in zip(_column(pictures, "id"), _column(pictures, "label"), strict=True):
                self._label_pictures.setdefault(label, []).append(picture_id)
            missing = [label for label in self._labels if label not in self._label_pictures]
            if missing:
                raise ValueError(f"There is no picture for {missing[0]!r} (and {len(missing) - 1} more labels).")
        if not 0 <= self.augment <= 1:
            raise ValueError(f"`augment` has to be from 0 to 1 but is {augment}.")
        if not 1 <= self.num_sources[0] <= self.num_sources[1] <= len(self._labels):
            raise ValueError(
                f"`num_sources` has to be from 1 to the number of labels, {len(self._labels)}, but is {num_sources}."
            )
        self._cache: OrderedDict[str, np.ndarray] = OrderedDict()
        self._cache_room = MOST_CACHED_BYTES if cache_clips else 0

    @property
    def labels(self) -> list[str]:
        """All labels, sorted."""
        return self._labels

    @property
    def groups(self) -> dict[str, list[list[str]]]:
        """Ids of the clips of every label, source group by source group."""
        return self._groups

    @property
    def label_weights(self) -> list[int]:
        """How likely the labels are to be drawn, in their order."""
        return [1 if self.balance == "label" else len(self._groups[label]) for label in self._labels]

    def plan(self, index: int, epoch: int = 0, num_sources: int | None = None) -> MixturePlan:
        """The mixture at `index` of an epoch, with a given number of sources or a random one."""
        rng = np.random.default_rng([self.seed, epoch, index])
        count = num_sources or int(rng.integers(self.num_sources[0], self.num_sources[1] + 1))
        weights = self.label_weights
        labels = rng.choice(len(weights), size=count, replace=False, p=np.array(weights) / sum(weights))
        sources = [self._plan_source(self._labels[number], rng) for number in labels]
        return MixturePlan(
            id=f"mixture-{self.seed}-{epoch}-{index}",
            duration_s=self.duration_s,
            sources=sources,
            scene_seed=int(rng.integers(2**31)),
            augment=bool(rng.random() < self.augment),
        )

    def sample(self, index: int, epoch: int = 0) -> Mixture:
        """Plan and render."""
        return self.render(self.plan(index, epoch))

    def render(self, plan: MixturePlan) -> Mixture:
        """
        Make a planned mixture.

        Raises:
            ValueError: If the plan names a clip or picture that this data set does not have, or a clip is silent.
        """
        length = round(plan.duration_s * self.sampling_rate)
        stems = np.stack([self._render_stem(source, length, plan.augment) for source in plan.sources])
        peak = max(float(np.abs(stems.sum(axis=0)).max()), float(np.abs(stems).max()))
        scale = min(0.99 / peak, 1.0)
        stems *= np.float32(scale)
        pictures = self.render_pictures(plan) if self.target else []
        return Mixture(
            plan=plan,
            waveform=stems.sum(axis=0),
            stems=stems,
            sampling_rate=self.sampling_rate,
            labels=[source.label for source in plan.sources],
            scale_db=20 * math.log10(scale),
            pictures=pictures,
            image=self._target_image(plan, pictures) if pictures else None,
        )

    def check(self, plan: MixturePlan) -> None:
        """
        See that a plan can be made, without making it.

        Raises:
            ValueError: If it has no source, or two of one label, or names a clip, or a picture of that label, that
                this data set does not have.
            FileNotFoundError: If a clip is a path, and there is no such file.
        """
        labels = [source.label for source in plan.sources]
        if not labels or len(set(labels)) < len(labels):
            raise ValueError(f"Mixture {plan.id!r} needs sources, of distinct labels, but has {labels}.")
        for source in plan.sources:
            if source.clip not in self._clip_rows:
                raise ValueError(f"Mixture {plan.id!r}: there is no clip {source.clip!r} in this data set.")
            row = self.clips[self._clip_rows[source.clip]]
            if row["label"] != source.label:
                raise ValueError(
                    f"Mixture {plan.id!r}: clip {source.clip!r} is labelled {row['label']!r}, not {source.label!r}."
                )
            path = row["audio"]
            if isinstance(path, Mapping) and path.get("bytes") is None:
                path = path.get("path")
            if isinstance(path, (str, os.PathLike)) and not os.path.exists(path):
                raise FileNotFoundError(f"{os.fspath(path)}: no such file (clip {source.clip!r}).")
            if self._has_pictures and source.picture not in (
                self._clip_rows if self._own_pictures else self._label_pictures.get(source.label, ())
            ):
                raise ValueError(
                    f"Mixture {plan.id!r}: this data set has no picture {source.picture!r} of {source.label!r}."
                )

    def encoded_clip(self, clip: str) -> bytes | Path:
        """A clip's bytes as the data set has them, or the path of its file."""
        value = self.clips[self._clip_rows[clip]]["audio"]
        if isinstance(value, Mapping):
            value = next((value[key] for key in ("bytes", "path", "array") if value.get(key) is not None), b"")
        if isinstance(value, (str, os.PathLike)):
            return Path(value)
        return value if isinstance(value, bytes) else np.asarray(value).tobytes()

    def source_group(self, clip: str) -> str:
        """The group of clips from one recording that a clip belongs to; its own id if it has none."""
        if "source_group" not in _names(self.clips):
            return clip
        return self.clips[self._clip_rows[clip]]["source_group"] or clip

    def picture_candidates(self, clip: str, label: str) -> list[str]:
        """The pictures that a source of a clip and its label may have: the clip's own, or all of the label's."""
        if self._own_pictures:
            return [clip]
        return self._label_pictures.get(label, [])

    def render_pictures(self, plan: MixturePlan) -> list[PIL.Image.Image]:
        """The pictures of a plan's sources, as the data set has them; none without pictures."""
        return [self._picture(source) for source in plan.sources] if self._has_pictures else []

    def render_image(self, plan: MixturePlan) -> PIL.Image.Image:
        """
        A plan's target picture alone, RGB.

        Raises:
            ValueError: If the sampler has no target.
        """
        if self.target is None:
            raise ValueError("A sampler with `target=None` draws no pictures.")
        return self._target_image(plan, self.render_pictures(plan))

    @property
    def _has_pictures(self) -> bool:
        return self._own_pictures or self.pictures is not None

    def plan_single(self, clip: str) -> MixturePlan:
        """One clip alone, at equal loudness; the same every time."""
        row = self._clip_rows[clip]
        rng = np.random.default_rng([self.seed, row])
        source = self._place(clip, self.clips[row]["label"], rng)
        return MixturePlan(
            id=f"single-{clip}",
            duration_s=self.duration_s,
            sources=[replace(source, gain_db=0.0)],
            scene_seed=int(rng.integers(2**31)),
        )

    def _plan_source(self, label: str, rng: np.random.Generator) -> SourcePlan:
        groups = self._groups[label]
        group = groups[int(rng.integers(len(groups)))]
        return self._place(group[int(rng.integers(len(group)))], label, rng)

    def _place(self, clip: str, label: str, rng: np.random.Generator) -> SourcePlan:
        waveform = self.clip_waveform(clip)
        length_s = len(waveform) / self.sampling_rate
        candidates = self.picture_candidates(clip, label)
        picture = candidates[0] if candidates else None
        if not self._own_pictures and candidates:
            picture = candidates[int(rng.integers(len(candidates)))]

        start_s = offset_s = 0.0
        if length_s >= self.duration_s:
            placement = "crop"
            # Around a moment in which the clip sounds: long clips have long pauses.
            moments = active_moments(waveform, self.sampling_rate)
            moment = moments[int(rng.integers(len(moments)))] if len(moments) else 0.0
            earliest = min(max(moment - MOMENT_SHARE[1] * self.duration_s, 0.0), length_s - self.duration_s)
            latest = min(max(moment - MOMENT_SHARE[0] * self.duration_s, 0.0), length_s - self.duration_s)
            start_s = rng.uniform(earliest, latest)
        else:
            is_short = length_s < REPEATED_SHARE * self.duration_s
            placement = "repeat" if is_short and rng.random() < REPEAT_PROBABILITY else "once"
            # A repeated sound begins early, so that there is time for more.
            latest = self.duration_s - length_s
            offset_s = rng.uniform(0, min(latest, length_s) if placement == "repeat" else latest)
        return SourcePlan(
            clip=clip,
            label=label,
            picture=picture,
            gain_db=round(float(rng.uniform(-self.gain_range_db, self.gain_range_db)), 3),
            placement=placement,
            start_s=round(float(start_s), 4),
            offset_s=round(float(offset_s), 4),
            seed=int(rng.integers(2**31)),
        )

    def _render_stem(self, source: SourcePlan, length: int, augmented: bool) -> np.ndarray:
        clip = self.clip_waveform(source.clip)
        rng = np.random.default_rng(source.seed)
        if source.placement == "crop":
            start = min(round(source.start_s * self.sampling_rate), max(len(clip) - length, 0))
            clip = clip[start : start + length]
        position = round(source.offset_s * self.sampling_rate)
        if augmented:
            # Slower, it may have its only sound where the window is over.
            clip = cut_quieter_end(augment(clip, self.sampling_rate, rng), length)
            position = min(position, length - len(clip))
        clip = _fade(clip[:length], round(FADE_S * self.sampling_rate))

        stem = np.zeros(length, dtype=np.float32)
        while position < length:
            piece = clip[: length - position]
            stem[position : position + len(piece)] += piece
            if source.placement != "repeat":
                break
            position += len(clip) + round(
                len(clip) * rng.uniform(*GAP_LENGTHS) + rng.uniform(*GAP_S) * self.sampling_rate
            )
        level = active_rms(stem, self.sampling_rate)
        if level == 0.0:
            raise ValueError(f"Clip {source.clip!r} is silent where it is used.")
        return stem * np.float32(REFERENCE_LEVEL * 10.0 ** (source.gain_db / 20) / level)

    def clip_waveform(self, clip: str) -> np.ndarray:
        """A clip's samples `(T,)`, float32, at the sampler's rate."""
        if clip in self._cache:
            self._cache.move_to_end(clip)
            return self._cache[clip]
        if clip not in self._clip_rows:
            raise ValueError(f"There is no clip {clip!r} in this data set.")
        row = self.clips[self._clip_rows[clip]]
        waveform = load_audio(row["audio"], target_sampling_rate=self.sampling_rate, name=clip)
        self._cache[clip] = waveform
        self._cache_room -= waveform.nbytes
        while self._cache_room < 0:
            self._cache_room += self._cache.popitem(last=False)[1].nbytes
        return waveform

    def _picture(self, source: SourcePlan) -> PIL.Image.Image:
        rows, table = (self._clip_rows, self.clips) if self._own_pictures else (self._picture_rows, self.pictures)
        if source.picture not in rows:
            raise ValueError(f"There is no picture {source.picture!r} in this data set.")
        return open_picture(table[rows[source.picture]]["image"])

    def _target_image(self, plan: MixturePlan, pictures: list[PIL.Image.Image]) -> PIL.Image.Image:
        if self.target == "compose":
            return compose_scene(pictures, self.image_size, np.random.default_rng(plan.scene_seed))[0]
        if self.target == "collage":
            # A generator is given sources without an order; in that of the labels it can know each one's place.
            order = sorted(range(len(pictures)), key=lambda number: plan.sources[number].label)
            return collage([pictures[number] for number in order], self.image_size)
        loudest = max(range(len(pictures)), key=lambda number: plan.sources[number].gain_db)
        return collage([pictures[loudest]], self.image_size)


def open_picture(image: Any) -> PIL.Image.Image:
    """A picture from encoded bytes, a `datasets` Image value, a path, or a picture."""
    if isinstance(image, PIL.Image.Image):
        return image
    if isinstance(image, Mapping):
        image = image.get("bytes") or image["path"]
    return PIL.Image.open(io.BytesIO(image) if isinstance(image, bytes) else image)


def write_manifest(plans: Iterable[MixturePlan], path: str | os.PathLike) -> None:
    """Write plans as JSON lines, under a temporary name first: an evaluation set in a file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Processes that write the same at once must not meet in one file.
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        lines = [json.dumps(asdict(plan), ensure_ascii=False) for plan in plans]
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


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


def _fade(waveform: np.ndarray, length: int) -> np.ndarray:
    length = min(length, len(waveform) // 2)
    faded = np.array(waveform, dtype=np.float32)
    ramp = np.linspace(0, 1, length + 1, dtype=np.float32)[1:]
    faded[:length] *= ramp
    faded[len(faded) - length :] *= ramp[::-1]
    return faded


def _names(table: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(table.column_names) if hasattr(table, "column_names") else list(table[0])


def _column(table: Sequence[Mapping[str, Any]], name: str) -> list:
    """One column, without reading the others: rows may be heavy."""
    return list(table[name]) if hasattr(table, "column_names") else [row[name] for row in table]


def _group_by_label(clips: Sequence[Mapping[str, Any]]) -> dict[str, list[list[str]]]:
    """Ids of the clips of every label, source group by source group; a clip without group is one by itself."""
    ids, labels = _column(clips, "id"), _column(clips, "label")
    groups = _column(clips, "source_group") if "source_group" in _names(clips) else ids
    tree: dict[str, dict[str, list[str]]] = {}
    for clip, label, group in zip(ids, labels, groups, strict=True):
        tree.setdefault(label, {}).setdefault(clip if group is None else group, []).append(clip)
    return {label: [sorted(members) for _, members in sorted(by_group.items())] for label, by_group in tree.items()}
