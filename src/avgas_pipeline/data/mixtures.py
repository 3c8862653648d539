"""Soundscapes with known sources, mixed from the clips of any data set."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import PIL.Image

from .placement import draw_placement, render_stem
from .plans import MixturePlan, SourcePlan
from .scenes import collage, compose_scene, open_picture
from .tables import ClipTable, PictureTable


TARGETS = ("compose", "collage", "single")
BALANCES = ("label", "square_root", "source_group")


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
            Rows with `id`, `label`, `audio` (whatever [`~avgas_pipeline.audio.loading.load_audio`] reads) and, if they
            have one, `source_group` and `image`: a `datasets.Dataset` or a list.
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
            What is drawn evenly: labels, then their source groups (`"label"`); source groups (`"source_group"`); or,
            between them, labels by the square root of the number of their source groups (`"square_root"`).
        target (`str`, *optional*, defaults to `"compose"`): `"compose"` (objects with transparency in one scene),
            `"collage"` (side by side, in the order of their labels), or `"single"` (the loudest source's picture);
            with `None` pictures are planned, but not read.
        image_size (`int`, defaults to 128): Side of the target picture, in pixels.

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

        self.clip_table = ClipTable(clips, sampling_rate)
        self._picture_table = PictureTable(clips, pictures)
        self._labels = sorted(self.clip_table.groups)
        if not 0 <= self.augment <= 1:
            raise ValueError(f"`augment` has to be from 0 to 1 but is {augment}.")
        if not 1 <= self.num_sources[0] <= self.num_sources[1] <= len(self._labels):
            raise ValueError(
                f"`num_sources` has to be from 1 to the number of labels, {len(self._labels)}, but is {num_sources}."
            )

    @property
    def has_pictures(self) -> bool:
        """Whether there is anything to make targets of."""
        return len(self._picture_table) > 0

    @property
    def labels(self) -> list[str]:
        """All labels, sorted."""
        return self._labels

    def plan(self, index: int, epoch: int = 0, num_sources: int | None = None) -> MixturePlan:
        """The mixture at `index` of an epoch, with a given number of sources or a random one."""
        rng = np.random.default_rng([self.seed, epoch, index])
        count = num_sources or int(rng.integers(self.num_sources[0], self.num_sources[1] + 1))
        groups = self.clip_table.groups
        exponent = {"label": 0.0, "square_root": 0.5, "source_group": 1.0}[self.balance]
        weights = [len(groups[label]) ** exponent for label in self._labels]
        labels = rng.choice(len(weights), size=count, replace=False, p=np.array(weights) / sum(weights))
        names = [self._labels[number] for number in labels]
        sources = [self._plan_source(self._draw_clip(label, rng), label, rng) for label in names]
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
        stems = np.stack(
            [
                render_stem(self.clip_table.waveform(source.clip), source, self.sampling_rate, length, plan.augment)
                for source in plan.sources
            ]
        )
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
            if source.clip not in self.clip_table:
                raise ValueError(f"Mixture {plan.id!r}: there is no clip {source.clip!r} in this data set.")
            row = self.clip_table.row(source.clip)
            if row["label"] != source.label:
                raise ValueError(
                    f"Mixture {plan.id!r}: clip {source.clip!r} is labelled {row['label']!r}, not {source.label!r}."
                )
            path = row["audio"]
            if isinstance(path, Mapping) and path.get("bytes") is None:
                path = path.get("path")
            if isinstance(path, (str, os.PathLike)) and not os.path.isfile(path):
                raise FileNotFoundError(f"{os.fspath(path)}: no such file (clip {source.clip!r}).")
            if self._picture_table and not self._picture_table.suits(source.picture, source.label):
                raise ValueError(
                    f"Mixture {plan.id!r}: this data set has no picture {source.picture!r} of {source.label!r}."
                )

    def render_pictures(self, plan: MixturePlan) -> list[PIL.Image.Image]:
        """The pictures of a plan's sources, as the data set has them; none without pictures."""
        if not self._picture_table:
            return []
        return [open_picture(self._picture_table[source.picture]) for source in plan.sources]

    def render_image(self, plan: MixturePlan) -> PIL.Image.Image:
        """
        A plan's target picture alone, RGB.

        Raises:
            ValueError: If the sampler has no target.
        """
        if self.target is None:
            raise ValueError("A sampler with `target=None` draws no pictures.")
        return self._target_image(plan, self.render_pictures(plan))

    def plan_single(self, clip: str) -> MixturePlan:
        """One clip alone, at equal loudness; the same every time."""
        row = self.clip_table.row_number(clip)
        rng = np.random.default_rng([self.seed, row])
        source = self._plan_source(clip, self.clips[row]["label"], rng)
        return MixturePlan(
            id=f"single-{clip}",
            duration_s=self.duration_s,
            sources=[replace(source, gain_db=0.0)],
            scene_seed=int(rng.integers(2**31)),
        )

    def _draw_clip(self, label: str, rng: np.random.Generator) -> str:
        groups = self.clip_table.groups[label]
        group = groups[int(rng.integers(len(groups)))]
        return group[int(rng.integers(len(group)))]

    def _plan_source(self, clip: str, label: str, rng: np.random.Generator) -> SourcePlan:
        picture = self._picture_table.draw(clip, label, rng)
        waveform = self.clip_table.waveform(clip)
        placement, start_s, offset_s = draw_placement(waveform, self.sampling_rate, self.duration_s, rng)
        return SourcePlan(
            clip=clip,
            label=label,
            picture=picture,
            gain_db=round(float(rng.uniform(-self.gain_range_db, self.gain_range_db)), 3),
            placement=placement,
            start_s=start_s,
            offset_s=offset_s,
            seed=int(rng.integers(2**31)),
        )

    def _target_image(self, plan: MixturePlan, pictures: list[PIL.Image.Image]) -> PIL.Image.Image:
        if self.target == "compose":
            return compose_scene(pictures, self.image_size, np.random.default_rng(plan.scene_seed))[0]
        if self.target == "collage":
            # A generator is given sources without an order; in that of the labels it can know each one's place.
            order = sorted(range(len(pictures)), key=lambda number: plan.sources[number].label)
            return collage([pictures[number] for number in order], self.image_size)
        loudest = max(range(len(pictures)), key=lambda number: plan.sources[number].gain_db)
        return collage([pictures[loudest]], self.image_size)
