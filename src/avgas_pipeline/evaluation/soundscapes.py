"""What systems are evaluated on: soundscapes whose sources are known, from a manifest that others can use too."""

import hashlib
import json
import os
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import PIL.Image

from ..audio.loading import load_audio
from ..data.clips import load_clips
from ..data.mixtures import MixtureSampler
from ..data.plans import MixturePlan, read_manifest, write_manifest
from ..data.scenes import collage, open_picture
from ..data.text_files import read_json_lines
from ..data.vocabulary import nearest_labels
from ..loaders.sounds import VGGSOUND_LABELS


# A report's copy of its manifest.
MANIFEST = "manifest.jsonl"


@dataclass
class Soundscape:
    """
    One soundscape to encode and draw.

    Attributes:
        id (`str`): Its name.
        waveform (`np.ndarray` of shape `(T,)`): Mono.
        sampling_rate (`int`): In Hz.
        labels (`list[str]`): Of its sources, distinct.
        stems (`np.ndarray` of shape `(n, T)`, *optional*): The sources alone; `None` for recordings.
        also_heard (`list[str]`): Labels of what else is heard: they count neither for nor against who finds them.
    """

    id: str
    waveform: np.ndarray
    sampling_rate: int
    labels: list[str]
    stems: np.ndarray | None = None
    also_heard: list[str] = field(default_factory=list)


class EvaluationSet(Protocol):
    """
    Attributes:
        labels (`list[str]`): The vocabulary.
        occurring_labels (`list[str]`): Those of them that the data have.
        has_stems (`bool`): Whether soundscapes have stems.
        has_pictures (`bool`): Whether they have pictures.
        image_size (`int`): Side of their real pictures, in pixels.
    """

    labels: list[str]
    occurring_labels: list[str]
    has_stems: bool
    has_pictures: bool
    image_size: int

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> Soundscape: ...

    def true_labels(self, number: int) -> list[str]:
        """A soundscape's labels, without making its sound."""

    def also_heard(self, number: int) -> list[str]:
        """Labels of what else is heard in it, as of [`Soundscape`]."""

    def groups(self, number: int) -> list[str]:
        """Source group of each of its sources."""

    def image(self, number: int) -> PIL.Image.Image:
        """A real picture of the whole, if there is one."""

    def describe(self) -> dict[str, Any]:
        """What a report has to say of the data; what decides the soundscapes is under `sha256`."""


class MixtureSet:
    """
    Mixtures of a clip dataset, as a manifest plans them.

    Args:
        sampler ([`MixtureSampler`]): Over the clips.
        plans (`Sequence[MixturePlan]`): The mixtures; all are checked.
        source (`str`): Where the clips come from, for the report.
        split (`str`): Of the clips, for the report.
        manifest (`str`): Where the plans come from, for the report and errors.
    """

    has_stems = True

    def __init__(
        self, sampler: MixtureSampler, plans: Sequence[MixturePlan], source: str, split: str, manifest: str
    ) -> None:
        if not plans:
            raise ValueError(f"{manifest}: holds no mixture.")
        for plan in plans:
            try:
                sampler.check(plan)
            except ValueError as error:
                raise ValueError(f"{manifest}: {error}") from None
        self.sampler = sampler
        self.plans = list(plans)
        self.labels = self.occurring_labels = sampler.labels
        self.image_size = sampler.image_size
        self.has_pictures = all(item.picture is not None for plan in plans for item in plan.sources)
        self._source = source
        self._split = split
        self._manifest = manifest

    def __len__(self) -> int:
        return len(self.plans)

    def __getitem__(self, number: int) -> Soundscape:
        mixture = self.sampler.render(self.plans[number])
        return Soundscape(
            id=mixture.plan.id,
            waveform=mixture.waveform,
            sampling_rate=mixture.sampling_rate,
            labels=mixture.labels,
            stems=mixture.stems,
        )

    def image(self, number: int) -> PIL.Image.Image:
        """A mixture's real picture, without making its sound."""
        return self.sampler.render_image(self.plans[number])

    def pictures(self, number: int) -> list[PIL.Image.Image]:
        """Its sources' real pictures."""
        return self.sampler.render_pictures(self.plans[number])

    def true_labels(self, number: int) -> list[str]:
        """A mixture's labels, without making its sound."""
        return [source.label for source in self.plans[number].sources]

    def also_heard(self, number: int) -> list[str]:
        """Nothing: all of a mixture is known."""
        return []

    def groups(self, number: int) -> list[str]:
        """Source group of each of its sources."""
        return [self.sampler.clip_table.source_group(source.clip) for source in self.plans[number].sources]

    def describe(self) -> dict[str, Any]:
        """What a report has to say of the data."""
        return {
            "data": self._source,
            "split": self._split,
            "manifest": self._manifest,
            "sha256": self._digest(),
            "num_soundscapes": len(self),
            "num_labels": len(self.labels),
            "image_size": self.image_size,
        }

    def write_manifest(self, path: Path) -> None:
        """Write the plans, for others to use and for `avgas study`."""
        write_manifest(self.plans, path)

    def _digest(self) -> str:
        """Of the plans, the clips in them and the pictures' size."""
        used = sorted({source.clip for plan in self.plans for source in plan.sources})
        return _digest(f"{self.image_size} {self.plans}", [self.sampler.clip_table.encoded(clip) for clip in used])


class RecordingSet:
    """
    Natural recordings with known labels: JSON lines with `id`, `audio` (a path, relative to the file), `labels` and,
    if there are any, `image` and `source_group`, by which those of one origin count together.

    Their vocabulary is VGGSound's 309 labels if all are among them, and all labels in the file if none is.

    Args:
        path (`str` or `os.PathLike`): The file.
        sampling_rate (`int`, defaults to 16000): Of the waveforms, in Hz.
        image_size (`int`, defaults to 128): Side of the pictures, in pixels.

    Raises:
        ValueError: If a line is not a recording, it names the line; or if only some labels are VGGSound's.
        FileNotFoundError: If a recording is missing.
    """

    has_stems = False

    def __init__(self, path: str | os.PathLike, sampling_rate: int = 16000, image_size: int = 128) -> None:
        self.path = Path(path)
        self.sampling_rate = sampling_rate
        self.image_size = image_size
        self.rows = [self._check_row(row, where) for where, row in read_json_lines(path)]
        if not self.rows:
            raise ValueError(f"{path}: holds no recording.")
        labels = sorted({label for row in self.rows for label in row["labels"]})
        foreign = [label for label in labels if label not in VGGSOUND_LABELS]
        if foreign and len(foreign) < len(labels):
            nearest = nearest_labels(foreign[0], VGGSOUND_LABELS)
            raise ValueError(
                f"{path}: {foreign[0]!r} is none of VGGSound's labels, unlike others in the file{nearest}."
            )
        self.labels = labels if foreign else list(VGGSOUND_LABELS)
        self.occurring_labels = labels
        self.has_pictures = all(row.get("image") for row in self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Soundscape:
        row = self.rows[number]
        return Soundscape(
            id=row["id"],
            waveform=load_audio(self.path.parent / row["audio"], target_sampling_rate=self.sampling_rate),
            sampling_rate=self.sampling_rate,
            labels=row["labels"],
        )

    def true_labels(self, number: int) -> list[str]:
        """A recording's labels."""
        return self.rows[number]["labels"]

    def also_heard(self, number: int) -> list[str]:
        """Nothing that a row could say."""
        return []

    def groups(self, number: int) -> list[str]:
        """A recording without a source group is its own."""
        row = self.rows[number]
        return [row.get("source_group", row["id"])] * len(row["labels"])

    def describe(self) -> dict[str, Any]:
        """What a report has to say of the data."""
        recordings = [self.path.parent / row["audio"] for row in self.rows]
        return {
            "data": str(self.path),
            "sha256": _digest(json.dumps(self.rows, sort_keys=True), recordings),
            "num_soundscapes": len(self),
            "num_labels": len(self.occurring_labels),
            "image_size": self.image_size,
        }

    def write_manifest(self, path: Path) -> None:
        """Nothing: recordings are their own manifest."""

    def image(self, number: int) -> PIL.Image.Image:
        """A recording's picture, cut to a square."""
        path = self.path.parent / self.rows[number]["image"]
        return collage([open_picture(path).convert("RGB")], self.image_size)

    def _check_row(self, row: Any, where: str) -> dict[str, Any]:
        if not isinstance(row, dict) or not {"audio", "labels"} <= row.keys():
            raise ValueError(f"{where}: not a recording with `audio` and `labels`.")
        labels, audio = row["labels"], row["audio"]
        for name in ("audio", "image"):
            if name in row and (not isinstance(row[name], str) or not row[name]):
                raise ValueError(f"{where}: `{name}` has to be a path, not {reprlib.repr(row[name])}.")
        if not isinstance(row.get("source_group", ""), str):
            raise ValueError(f"{where}: `source_group` has to be text, not {reprlib.repr(row['source_group'])}.")
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise ValueError(f"{where}: `labels` has to be a list of labels, not {reprlib.repr(labels)}.")
        if len(set(labels)) < len(labels):
            raise ValueError(f"{where}: `labels` has to be a list of different labels.")
        for name in ("audio", "image"):
            if row.get(name) and not os.path.isfile(self.path.parent / row[name]):
                raise FileNotFoundError(f"{where}: {self.path.parent / row[name]}: no such file.")
        return {**row, "id": str(row.get("id", audio))}


def load_evaluation_set(
    data: str | os.PathLike,
    out: Path,
    manifest: str | os.PathLike | None = None,
    split: str = "test",
    num_mixtures: int = 500,
    num_sources: int = 2,
    seed: int = 0,
    image_size: int = 128,
    layout: str | None = None,
    columns: str | None = None,
) -> MixtureSet | RecordingSet:
    """
    The soundscapes to evaluate on.

    Args:
        data (`str` or `os.PathLike`): A JSON-lines file of recordings, or what `load_clips` takes.
        out (`Path`): The report's folder: a manifest made here is written there, as `manifest.jsonl`.
        manifest (`str` or `os.PathLike`, *optional*): Mixtures, as [`write_manifest`] writes them. Without it they
            are drawn.
        split (`str`, defaults to `"test"`): Of the data.
        num_mixtures (`int`, defaults to 500): How many to draw.
        num_sources (`int`, defaults to 2): In each.
        seed (`int`, defaults to 0): Of the draw, which is even over source groups.
        image_size (`int`, defaults to 128): Side of the real pictures, in pixels.
        layout, columns (`str`, *optional*): As of `load_clips`.

    Raises:
        ValueError: If the manifest does not fit the data.
        FileNotFoundError: If data or manifest are missing.
    """
    path = Path(data)
    if path.suffix in (".jsonl", ".json") and path.is_file():
        if manifest is not None:
            raise ValueError(f"{data}: recordings are evaluated as they are; leave out the manifest.")
        return RecordingSet(path, image_size=image_size)
    if path.is_file():
        raise ValueError(f"{data}: is neither a folder nor a .jsonl file of recordings.")
    clips, pictures = load_clips(data, split, layout, columns)
    sampler = MixtureSampler(
        clips,
        pictures,
        seed=seed,
        num_sources=num_sources,
        balance="source_group",
        target="collage" if pictures is None else "compose",
        image_size=image_size,
    )
    if manifest is None:
        manifest = out / MANIFEST
        plans = [sampler.plan(index, num_sources=num_sources) for index in range(num_mixtures)]
        if not manifest.exists():
            write_manifest(plans, manifest)
        elif read_manifest(manifest) != plans:
            raise ValueError(f"{manifest}: holds other mixtures; choose another --out, or give it as the manifest.")
    return MixtureSet(sampler, read_manifest(manifest), os.fspath(data), split, os.fspath(manifest))


def _digest(text: str, contents: Sequence[bytes | Path]) -> str:
    """SHA-256 of a text and of some contents, of files by their path and size."""
    digest = hashlib.sha256(text.encode())
    for content in contents:
        if isinstance(content, Path):
            content = f"{content.name} {content.stat().st_size}".encode()
        digest.update(content)
    return digest.hexdigest()
