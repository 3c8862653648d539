"""VGGSound and its family as a `datasets` dataset, from a folder of videos or from tar shards as a stream."""

import os
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import datasets
from datasets import Features, SplitGenerator, Value
from datasets import Sequence as SequenceFeature
from datasets.utils.file_utils import xopen

from ..loaders.labels import VGGSOUND_LABELS
from .annotations import ClipEntry, parse_clip_name, read_best_moments, read_vggsound
from .report import SkipReport
from .video import SkipClipError, read_video_clip


VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi")
# Parts that a folder of videos is divided into, for workers and nodes.
NUM_PARTS = 128

FEATURES = Features(
    {
        "id": Value("string"),
        "label": Value("string"),
        "labels": SequenceFeature(Value("string")),
        "label_index": Value("int32"),
        "split": Value("string"),
        "audio": Value("binary"),
        "duration": Value("float64"),
        "image": Value("binary"),
        "frame_s": Value("float64"),
    }
)


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
            features=FEATURES,
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
            shards = find_shards(self.config.data_dir)
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
        streams = [read_shard(shard, wanted, self.skipped) for shard in shards or []]
        for part_number, part in enumerate([*streams, *(parts or [])]):
            for number, (entry, video) in enumerate(part):
                try:
                    example = make_example(
                        entry,
                        video,
                        moments.get(entry.id, ()),
                        self.config.sampling_rate,
                        self.config.image_size,
                        self.config.min_duration_s,
                    )
                except SkipClipError as error:
                    self.skipped.add(entry.id, error.reason, str(error))
                else:
                    yield (part_number, number), example

    def _parts(self, entries: Sequence[ClipEntry]) -> list[list[tuple[ClipEntry, str | None]]]:
        """Clips with their files, in up to 128 parts of neighbours."""
        if self.config.data_dir is None:
            raise ValueError("VGGSound needs `data_dir` (a folder of videos or tar shards) or `shards`.")
        files = find_videos(self.config.data_dir)
        pairs = [(entry, files.get(entry.id)) for entry in entries]
        size = max(-(-len(pairs) // NUM_PARTS), 1)
        return [pairs[start : start + size] for start in range(0, len(pairs), size)]

    def _file(self, given: str | None, name: str) -> str:
        if given is not None:
            return given
        if self.config.data_dir is None:
            raise ValueError(f"VGGSound needs `{Path(name).suffix[1:]}` or a `data_dir` with {name}.")
        return os.path.join(self.config.data_dir, name)


def make_example(
    entry: ClipEntry,
    video: str | bytes | None,
    moments: Sequence[float] = (),
    sampling_rate: int = 16000,
    image_size: int = 256,
    min_duration_s: float = 1.0,
) -> dict[str, Any]:
    """
    One row of the dataset from a clip's file, bytes, or `None` if it is missing.

    Raises:
        SkipClipError: If the clip is no use.
    """
    if video is None:
        raise SkipClipError("missing")
    clip = read_video_clip(video, moments, sampling_rate, image_size, min_duration_s)
    return {
        "id": entry.id,
        "label": entry.labels[0],
        "labels": list(entry.labels),
        "label_index": _LABEL_INDEX.get(entry.labels[0], -1),
        "split": entry.split,
        "audio": clip.audio,
        "duration": clip.duration,
        "image": clip.image,
        "frame_s": clip.frame_s,
    }


def find_videos(folder: str | os.PathLike) -> dict[str, str]:
    """The video files in and below a folder by the id of the clip they hold; others are left out."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder.")
    files = {_clip_of(path.name): str(path) for path in sorted(folder.rglob("*"))}
    return {name: path for name, path in files.items() if name is not None}


def find_shards(folder: str | os.PathLike) -> list[str]:
    """The tar archives in a folder."""
    return sorted(str(path) for path in Path(folder).iterdir() if path.name.endswith((".tar", ".tar.gz", ".tgz")))


def read_shard(shard: str, wanted: Mapping[str, ClipEntry], skipped: SkipReport) -> Iterator[tuple[ClipEntry, bytes]]:
    """
    The wanted clips of a tar archive (path or URL) with their bytes, in its order, without unpacking it.

    Members with paths that leave the archive are left out, and damage ends the archive; both are noted in `skipped`.
    """
    try:
        with (
            xopen(shard, "rb") as file,
            tarfile.open(fileobj=file, mode="r|*", tarinfo=_StrictTarInfo) as archive,
        ):
            for member in archive:
                name = _clip_of(member.name)
                if not member.isfile() or name not in wanted:
                    continue
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts:
                    skipped.add(member.name, "unsafe path", f"in {shard}")
                    continue
                yield wanted[name], archive.extractfile(member).read()
                # tarfile remembers every member, which grows over a long stream.
                archive.members = []
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        skipped.add(os.path.basename(shard), "damaged shard", str(error))


class _StrictTarInfo(tarfile.TarInfo):
    """Headers that are damaged or missing end an archive with an error; tarfile takes them for its end."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> tarfile.TarInfo:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None


_LABEL_INDEX = {label: index for index, label in enumerate(VGGSOUND_LABELS)}


def _clip_of(path: str) -> str | None:
    """The clip a video file holds, by its name."""
    stem, suffix = os.path.splitext(PurePosixPath(path).name)
    return parse_clip_name(stem) if suffix.lower() in VIDEO_SUFFIXES else None
