"""Clips of any layout as a `datasets` dataset; VGGSound among them."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
from datasets import Features, SplitGenerator, Value
from datasets import Sequence as SequenceFeature

from .annotations import ClipEntry, read_best_moments, read_vggsound
from .layouts.clip import DEFAULT_SPLIT, Layout, Part, make_example
from .layouts.columns import ColumnMap
from .layouts.detect import read_layout
from .layouts.vggsound import vggsound_layout
from .report import DUPLICATE, SkipReport, read_report
from .video import SkipClipError


# Clips of a part: workers and nodes share parts.
PART_SIZE = 64

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
# Of what `datasets` caches: which clips were skipped.
_SKIPPED = "skipped.jsonl"


@dataclass
class ClipDatasetConfig(datasets.BuilderConfig):
    """
    Where the data is and how to read it; all of these are keyword arguments of [`ClipDataset`].

    Attributes:
        data_dir (`str`): Folder or Hub repository.
        layout (`str`, *optional*): One of [`avgas_pipeline.data.layouts.detect.LAYOUTS`]; found by the files if not
            given.
        columns ([`ColumnMap`], `dict` or `str`, *optional*): Which column says what, of tables and metadata, as of
            [`ColumnMap.parse`].
        moments (`str`, *optional*): `top1_boxes_top10_moments.json`.
        sampling_rate (`int`, defaults to 16000): Of the sound, in Hz.
        image_size (`int`, defaults to 256): Longest side of the picture, in pixels.
        min_duration_s (`float`, defaults to 1.0): Shorter sounds are skipped.
        report (`str`, *optional*): File to name every skipped clip in.
    """

    layout: str | None = None
    columns: ColumnMap | Mapping[str, str] | str | None = None
    moments: str | None = None
    sampling_rate: int = 16000
    image_size: int = 256
    min_duration_s: float = 1.0
    report: str | None = None
    version: datasets.Version = field(default_factory=lambda: datasets.Version("1.1.0"))


class ClipDataset(datasets.GeneratorBasedBuilder):
    r"""
    Clips with labels as they lie in a folder or on the Hub, decoded by our own loader. Call it directly:

    ```py
    ClipDataset(data_dir="ESC-50-master").as_streaming_dataset("train")
    ```

    or `builder.download_and_prepare()` and `builder.as_dataset("train")`. Every example has `id`, `label` (the first),
    `labels`, `label_index` (among VGGSound's 309 sorted labels; -1 for others), `split`, `audio` (FLAC bytes),
    `duration` (s), `image` (JPEG bytes; `None` for sound alone) and `frame_s`.

    Clips that are broken, too large, silent, too short, without sound or picture, a still picture, or named as one
    before are skipped, counted in `builder.skipped` (of this process) and named in `report`. A damaged archive ends
    that archive alone.
    """

    BUILDER_CONFIG_CLASS = ClipDatasetConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.skipped = SkipReport(self.config.report)
        self._is_preparing = False

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(description="Clips with sound, a picture and labels.", features=FEATURES)

    def skipped_of_all(self) -> SkipReport:
        """What was skipped of a data set that is prepared, now or by an earlier process, if there is no `report`."""
        found = SkipReport()
        for entry in read_report(Path(self.cache_dir, _SKIPPED)):
            found.add(**entry)
        return found

    def _tell(self) -> None:
        if self.skipped.counts:
            warnings.warn(f"{self.config.data_dir}: {self.skipped}.", stacklevel=2)

    def _download_and_prepare(self, *args: Any, **kwargs: Any) -> None:
        self._is_preparing = True
        super()._download_and_prepare(*args, **kwargs)
        self._is_preparing = False
        self._tell()
        # Beside the clips, so that who loads them from the cache is told, too.
        self._fs.pipe_file(f"{self._output_dir}/{_SKIPPED}", self.skipped.lines().encode())

    def _layout(self) -> Layout:
        if self.config.data_dir is None:
            raise ValueError(f"{type(self).__name__} needs `data_dir`, a folder or a Hub repository.")
        columns = ColumnMap.parse(self.config.columns)
        return read_layout(self.config.data_dir, self.config.layout, columns, PART_SIZE)

    def _split_generators(self, dl_manager: Any) -> list[SplitGenerator]:
        layout = self._layout()
        moments = {} if self.config.moments is None else read_best_moments(self.config.moments)
        known = [entry.split for entry in layout.entries or ()] or [part.split for part in layout.parts]
        return [
            SplitGenerator(
                name=split,
                # Lists are what `datasets` divides among workers.
                gen_kwargs={
                    "parts": [part for part in layout.parts if part.split in (None, split)],
                    "split": split,
                    "moments": moments,
                },
            )
            for split in sorted({split or DEFAULT_SPLIT for split in known})
        ]

    def _generate_examples(
        self, parts: list[Part], split: str, moments: dict[str, list[float]]
    ) -> Iterator[tuple[Any, dict[str, Any]]]:
        how = (self.config.sampling_rate, self.config.image_size, self.config.min_duration_s)
        seen: set[str] = set()
        for part_number, part in enumerate(parts):
            for number, clip in enumerate(part.read(self.skipped)):
                if (clip.entry.split or DEFAULT_SPLIT) != split:
                    continue
                if clip.entry.id in seen:
                    self.skipped.add(clip.entry.id, DUPLICATE)
                    continue
                try:
                    example = make_example(clip, moments.get(clip.entry.id, ()), *how)
                except SkipClipError as error:
                    self.skipped.add(clip.entry.id, error.reason, str(error))
                else:
                    seen.add(clip.entry.id)
                    yield (part_number, number), example
        if not self._is_preparing:
            self._tell()


@dataclass
class VGGSoundConfig(ClipDatasetConfig):
    """
    Further keyword arguments of [`VGGSound`].

    Attributes:
        csv (`str`, *optional*): `vggsound.csv`; by default the one in `data_dir`.
        entries (`list[ClipEntry]`, *optional*): Annotations instead of `csv`, as the readers in
            [`avgas_pipeline.data.annotations`] give them: VGGSounder, LLP, AudioSet strong.
        shards (`list[str]`, *optional*): Tar archives (also .tar.gz) of videos: paths or URLs, read as streams. By
            default those in `data_dir`; without any, the videos in and below `data_dir` are read.
    """

    csv: str | None = None
    entries: Sequence[ClipEntry] | None = None
    shards: list[str] | None = None


class VGGSound(ClipDataset):
    r"""
    VGGSound (Chen et al., ICASSP 2020), CC BY 4.0, from local videos or the Hub copy's tar shards:

    ```py
    VGGSound(data_dir="VGGSound").as_streaming_dataset("train")
    ```
    """

    BUILDER_CONFIG_CLASS = VGGSoundConfig

    def _layout(self) -> Layout:
        config = self.config
        if config.data_dir is None and (config.shards is None or (config.csv is None and config.entries is None)):
            raise ValueError(
                "VGGSound needs `data_dir` (a folder of videos or tar shards with vggsound.csv) or `shards` and `csv`."
            )
        entries = config.entries
        if entries is None and config.csv is not None:
            entries = read_vggsound(config.csv)
        return vggsound_layout(config.data_dir, entries, config.shards, PART_SIZE)
