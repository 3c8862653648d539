"""VGGSound and its family as a `datasets` dataset, from a folder of videos or from tar shards as a stream."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
from datasets import Features, SplitGenerator, Value
from datasets import Sequence as SequenceFeature

from ..loaders.sounds import VGGSOUND_LABELS
from .annotations import ClipEntry, merge_labels, read_best_moments, read_vggsound
from .archives import VIDEO_SUFFIXES, clip_of, is_video, read_shard
from .report import SkipReport
from .video import SkipClipError, VideoExample, read_video_clip


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

    Clips that are broken, too large, silent, too short, without sound or picture, or a still picture are skipped,
    counted in `builder.skipped` (of this process) and named in `report`. A damaged shard ends that shard alone.
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
        entries = merge_labels(entries)
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
        parts: list[list[tuple[ClipEntry, list[str]]]] | None = None,
    ) -> Iterator[tuple[Any, dict[str, Any]]]:
        wanted = {entry.id: entry for entry in entries}
        streams = [read_shard(shard, wanted, self.skipped) for shard in shards or []]
        clips = [((wanted[clip], [video]) for clip, video in stream) for stream in streams]
        for part_number, part in enumerate([*clips, *(parts or [])]):
            for number, (entry, videos) in enumerate(part):
                try:
                    example = make_example(
                        entry,
                        videos,
                        moments.get(entry.id, ()),
                        self.config.sampling_rate,
                        self.config.image_size,
                        self.config.min_duration_s,
                    )
                except SkipClipError as error:
                    self.skipped.add(entry.id, error.reason, str(error))
                else:
                    yield (part_number, number), example

    def _parts(self, entries: Sequence[ClipEntry]) -> list[list[tuple[ClipEntry, list[str]]]]:
        """Clips with their files, in up to 128 parts of neighbours."""
        if self.config.data_dir is None:
            raise ValueError("VGGSound needs `data_dir` (a folder of videos or tar shards) or `shards`.")
        files = find_videos(self.config.data_dir)
        pairs = [(entry, files.get(entry.id, [])) for entry in entries]
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
    videos: Iterable[str | bytes],
    moments: Sequence[float] = (),
    sampling_rate: int = 16000,
    image_size: int = 256,
    min_duration_s: float = 1.0,
) -> dict[str, Any]:
    """
    One row of the dataset from a clip's files or their bytes: the first of them that is of use.

    Raises:
        SkipClipError: If there is none; it says what is wrong with the first.
    """
    clip = _first_of_use(videos, moments, sampling_rate, image_size, min_duration_s)
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


def _first_of_use(videos: Iterable[str | bytes], *how: Any) -> VideoExample:
    failure = None
    for video in videos:
        try:
            return read_video_clip(video, *how)
        except SkipClipError as error:
            failure = failure or error
    try:
        raise failure or SkipClipError("missing")
    finally:
        # An error held by a frame of its own traceback would keep the film's frames for the garbage collector.
        failure = None


def find_videos(folder: str | os.PathLike) -> dict[str, list[str]]:
    """
    The video files in and below a folder, sorted, by the id of the clip they hold; others are left out.

    Raises:
        FileNotFoundError: If there is no such folder, or no video in it.
        ValueError: If no video is named as a clip.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder.")
    # Pipes, which could be waited for without end, and folders can have such names, too.
    videos = [path for path in sorted(folder.rglob("*")) if is_video(path.name) and path.is_file()]
    if not videos:
        raise FileNotFoundError(f"{folder}: holds no videos ({', '.join(VIDEO_SUFFIXES)}).")
    found: dict[str, list[str]] = {}
    for path in videos:
        clip = clip_of(path.name)
        if clip is not None:
            found.setdefault(clip, []).append(str(path))
    if not found:
        raise ValueError(f"{folder}: holds {len(videos)} videos, none named <id>_<start>.")
    return found


def find_shards(folder: str | os.PathLike) -> list[str]:
    """The tar archives in a folder."""
    return sorted(
        str(path)
        for path in Path(folder).iterdir()
        if path.name.endswith((".tar", ".tar.gz", ".tgz")) and path.is_file()
    )


_LABEL_INDEX = {label: index for index, label in enumerate(VGGSOUND_LABELS)}
