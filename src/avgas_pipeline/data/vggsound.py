"""VGGSound and its family as a `datasets` dataset, from a folder of videos or from tar shards as a stream."""

import os
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import datasets
from datasets import Features, SplitGenerator, Value
from datasets import Sequence as SequenceFeature

from ..labels import VGGSOUND_LABELS
from .annotations import ClipEntry, parse_clip_name, read_best_moments, read_vggsound
from .report import SkipReport
from .video import SkipClipError, read_video_clip


VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi")
# Parts that a folder of videos is divided into, for workers and nodes.
NUM_PARTS = 128


@dataclass
class VGGSoundConfig(datasets.BuilderConfig):
    """
    Where the data is and how to read it; all of these are keyword arguments of [`VGGSound`].

    Attributes:
        csv (`str`, *optional*): `vggsound.csv`; by default the one in `data_dir`.
        entries (`list[ClipEntry]`, *optional*): Annotations instead of `csv`, as the readers in
            [`avgas_pipeline.data.annotations`] give them: VGGSounder, LLP, AudioSet strong.
        shards (`list[str]`, *optional*): Tar archives (also .tar.gz) of videos: paths or URLs, read as streams. By
            default those in `data_dir`; without any, the videos in and below `data_dir` are read.
        moments (`str`, *optional*): `top1_boxes_top10_moments.json`.
        sampling_rate (`int`, defaults to 16000): Of the sound, in Hz.
        image_size (`int`, defaults to 256): Longest side of the frame, in pixels.
        min_duration_s (`float`, defaults to 1.0): Shorter sounds are skipped.
        report (`str`, *optional*): File to name every skipped clip in.
    """

    csv: str | None = None
    entries: list[ClipEntry] | None = None
    shards: list[str] | None = None
    moments: str | None = None
    sampling_rate: int = 16000
    image_size: int = 256
    min_duration_s: float = 1.0
    report: str | None = None
    version: datasets.Version = field(default_factory=lambda: datasets.Version("1.0.0"))


class VGGSound(datasets.GeneratorBasedBuilder):
    r"""
    VGGSound (Chen et al., ICASSP 2020) from local videos or the Hub copy's tar shards. Call it directly:

    ```py
    VGGSound(data_dir="VGGSound").as_streaming_dataset("train")
    ```

    or `builder.download_and_prepare()` and `builder.as_dataset("train")`. Every example has `id`, `label` (the first),
    `labels`, `label_index` (among VGGSound's 309 sorted labels; -1 for others), `split`, `audio` (FLAC bytes),
    `duration` (s), `image` (JPEG bytes) and `frame_s`.

    Clips that are broken, silent, too short, without sound or picture, or a still picture are skipped, counted in
    `builder.skipped` (of this process) and named in `report`. A damaged shard ends that shard alone.
    """

    BUILDER_CONFIG_CLASS = VGGSoundConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.skipped = SkipReport(self.config.report)

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description="Ten-second clips with sound, a frame and labels.",
            features=Features(
                {
                    "id": Value("string"),
                    "label": Value("string"),
                    "labels": SequenceFeature(Value("string")),
                    "label_index": Value("int32"),
                    "split": Value("string"),
                    "audio": Value("binary"),
                    "duration": Value("float32"),
                    "image": Value("binary"),
                    "frame_s": Value("float32"),
                }
            ),
            license="CC BY 4.0",
            citation="Chen et al., VGGSound: A Large-scale Audio-Visual Dataset, ICASSP 2020",
        )

    def _split_generators(self, dl_manager: Any) -> list[SplitGenerator]:
        entries = self.config.entries
        if entries is None:
            entries = read_vggsound(self._file(self.config.csv, "vggsound.csv"))
        moments = {} if self.config.moments is None else read_best_moments(self.config.moments)
        shards = self.config.shards
        if shards is None and self.config.data_dir is not None:
            shards = sorted(str(path) for path in Path(self.config.data_dir).glob("*.tar*"))
        generators = []
        for split in sorted({entry.split or "train" for entry in entries}):
            chosen = [entry for entry in entries if (entry.split or "train") == split]
            # Lists are what `datasets` divides among workers; a tuple goes to all of them.
            kwargs = {"shards": list(shards), "entries": tuple(chosen)} if shards else {"parts": self._parts(chosen)}
            generators.append(SplitGenerator(name=split, gen_kwargs={**kwargs, "moments": moments}))
        return generators

    def _generate_examples(
        self,
        moments: dict[str, list[float]],
        shards: list[str] | None = None,
        entries: tuple[ClipEntry, ...] = (),
        parts: list[list[tuple[ClipEntry, str | None]]] | None = None,
    ) -> Iterator[tuple[Any, dict[str, Any]]]:
        wanted = {entry.id: entry for entry in entries}
        for shard_number, shard in enumerate(shards or []):
            for number, (name, video) in enumerate(self._read_shard(shard, wanted)):
                yield from self._example((shard_number, number), wanted[name], video, moments)
        for part_number, part in enumerate(parts or []):
            for number, (entry, path) in enumerate(part):
                yield from self._example((part_number, number), entry, path, moments)

    def _example(
        self, key: tuple[int, int], entry: ClipEntry, video: str | bytes | None, moments: dict[str, list[float]]
    ) -> Iterator[tuple[Any, dict[str, Any]]]:
        """The example of a clip, or none."""
        try:
            if video is None:
                raise SkipClipError("missing")
            clip = read_video_clip(
                video,
                moments.get(entry.id, ()),
                self.config.sampling_rate,
                self.config.image_size,
                self.config.min_duration_s,
            )
        except SkipClipError as error:
            self.skipped.add(entry.id, error.reason, str(error))
            return
        label = entry.labels[0]
        yield (
            key,
            {
                "id": entry.id,
                "label": label,
                "labels": list(entry.labels),
                "label_index": _LABEL_INDEX.get(label, -1),
                "split": entry.split,
                "audio": clip.audio,
                "duration": clip.duration,
                "image": clip.image,
                "frame_s": clip.frame_s,
            },
        )

    def _read_shard(self, shard: str, wanted: dict[str, ClipEntry]) -> Iterator[tuple[str, bytes]]:
        """Clips of a tar archive, in its order, without unpacking it; members with unsafe paths are left out."""
        try:
            with (
                datasets.utils.file_utils.xopen(shard, "rb") as file,
                tarfile.open(fileobj=file, mode="r|*") as archive,
            ):
                for member in archive:
                    name = _clip_of(member.name)
                    if not member.isfile() or name not in wanted:
                        continue
                    path = PurePosixPath(member.name)
                    if path.is_absolute() or ".." in path.parts:
                        self.skipped.add(member.name, "unsafe path", f"in {shard}")
                        continue
                    yield name, archive.extractfile(member).read()
                    # tarfile remembers every member, which grows over a long stream.
                    archive.members = []
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            self.skipped.add(os.path.basename(shard), "damaged shard", str(error))

    def _parts(self, entries: Sequence[ClipEntry]) -> list[list[tuple[ClipEntry, str | None]]]:
        """Clips with their files, in up to 128 parts of neighbours."""
        if self.config.data_dir is None:
            raise ValueError("VGGSound needs `data_dir` (a folder of videos or tar shards) or `shards`.")
        folder = Path(self.config.data_dir)
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder.")
        files = {
            _clip_of(path.name): str(path)
            for path in sorted(folder.rglob("*"))
            if path.suffix.lower() in VIDEO_SUFFIXES
        }
        pairs = [(entry, files.get(entry.id)) for entry in entries]
        size = max(-(-len(pairs) // NUM_PARTS), 1)
        return [pairs[start : start + size] for start in range(0, len(pairs), size)]

    def _file(self, given: str | None, name: str) -> str:
        if given is not None:
            return given
        if self.config.data_dir is None:
            raise ValueError(f"VGGSound needs `{Path(name).suffix[1:]}` or a `data_dir` with {name}.")
        return os.path.join(self.config.data_dir, name)


_LABEL_INDEX = {label: index for index, label in enumerate(VGGSOUND_LABELS)}


def _clip_of(path: str) -> str | None:
    """The clip a video file holds, by its name."""
    name = PurePosixPath(path).name
    stem, suffix = os.path.splitext(name)
    return parse_clip_name(stem) if suffix.lower() in VIDEO_SUFFIXES else None
