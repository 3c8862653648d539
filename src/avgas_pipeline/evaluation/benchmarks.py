"""Natural recordings with several labels, by the annotations that others have published."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import PIL.Image

from ..audio.loading import load_audio
from ..data.annotations import ClipEntry, llp_tells_events, read_audioset_strong, read_llp, read_vggsounder
from ..data.clips import load_clips
from ..data.label_names import vggsound_labels
from ..data.layouts.clip import Layout
from ..data.layouts.corpora import ESC50_TABLE, esc50_layout
from ..data.layouts.parts import ListedPart
from ..data.layouts.vggsound import vggsound_layout
from ..data.prepare import REPORT, PrepareSettings, prepare
from ..data.report import SkipReport, read_report
from ..data.scenes import collage, open_picture
from ..files import write_text
from ..loaders.sounds import VGGSOUND_LABELS
from .soundscapes import Soundscape


# All clips of a benchmark are of one split here.
SPLIT = "test"
CLIPS_PER_SHARD = 64
# In the report's folder.
CLIPS = "clips"
LEFT_OUT = "left_out.jsonl"


@dataclass(frozen=True)
class Selection:
    """
    Which clips of a benchmark count.

    Attributes:
        min_labels (`int`, *optional*): Clips with fewer labels are left out; what the benchmark is for if not given.
        modalities (`tuple[str, ...]`, *optional*): Of VGGSounder's labels: `A` audible, `V` visible, `AV` both; these
            if not given.
        background_music, static_image, voice_over (`bool`): Whether VGGSounder's clips with these flags count.
        names (`str`, *optional*): Of AudioSet strong: table of machine ids and display names.
    """

    min_labels: int | None = None
    modalities: tuple[str, ...] | None = None
    background_music: bool = False
    static_image: bool = False
    voice_over: bool = False
    names: str | None = None


@dataclass(frozen=True)
class Benchmark:
    """
    One set of annotations.

    Attributes:
        tables (`tuple[str, ...]`): Where its file lies in the folder of recordings, if it is not given; the first
            that is there.
        vocabulary (`str`): Of its labels.
        min_labels (`int`): Fewest labels of a clip, by default.
        read (`Callable`): Clips from file and selection; notes in a report what it leaves out.
        group (`Callable`): What a clip's id says of its origin: clips of one origin count together.
        origin (`str`, *optional*): What numbers those of [`group`] are, as models say of what they were trained on.
        selects (`tuple[str, ...]`): What of a selection its annotations can tell, beside the number of labels.
        note (`str`, *optional*): What a report has to say of its labels.
        doubt (`Callable`): What may be wrong with those of a file, if anything.
    """

    tables: tuple[str, ...]
    vocabulary: str
    min_labels: int
    read: Callable[[Path, Selection, SkipReport], list[ClipEntry]]
    group: Callable[[str], str] = field(default=lambda clip: clip[:11])
    origin: str | None = None
    selects: tuple[str, ...] = ()
    note: str | None = None
    doubt: Callable[[Path], str | None] = field(default=lambda path: None)


FLAGS = ("background_music", "static_image", "voice_over")
BOTH = ("AV",)
# Of the command line, where they are called otherwise.
_OPTIONS = {"modalities": "modality"}
_NOT_TOLD_APART = "These annotations do not say which of the labels are seen and which are only heard."


def _vggsounder(path: Path, selection: Selection, left_out: SkipReport) -> list[ClipEntry]:
    flags = {name: getattr(selection, name) for name in FLAGS}
    min_labels = _fewest_labels("vggsounder", selection)
    return read_vggsounder(path, selection.modalities or BOTH, min_labels, **flags, left_out=left_out)


def _llp(path: Path, selection: Selection, left_out: SkipReport) -> list[ClipEntry]:
    if "visual" in path.name.lower():
        raise ValueError(f"{path}: says what is seen; AVVP_eval_audio.csv says what is heard.")
    return read_llp(path, SPLIT, left_out)


def _llp_doubt(path: Path) -> str | None:
    if llp_tells_events(path):
        return None
    return "These annotations do not say which labels are heard: some may only be seen. AVVP_eval_audio.csv does."


def _audioset_strong(path: Path, selection: Selection, left_out: SkipReport) -> list[ClipEntry]:
    return read_audioset_strong(path, selection.names, SPLIT, left_out)


def _esc50(path: Path, selection: Selection, left_out: SkipReport) -> list[ClipEntry]:
    return list(esc50_layout(path.parent.parent).entries)


BENCHMARKS = {
    "vggsounder": Benchmark(
        ("vggsounder.csv",),
        "vggsound",
        2,
        _vggsounder,
        selects=("modalities", *FLAGS),
        note="Labels that are heard, but not selected, count neither for nor against the sources that are found.",
    ),
    "llp": Benchmark(("AVVP_eval_audio.csv", "AVVP_test_pd.csv"), "llp", 2, _llp, doubt=_llp_doubt),
    "audioset-strong": Benchmark(
        ("audioset_eval_strong.tsv",), "audioset", 2, _audioset_strong, selects=("names",), note=_NOT_TOLD_APART
    ),
    # The number of the recording on Freesound is the second part of a clip's name.
    "esc50": Benchmark(
        (ESC50_TABLE,), "esc50", 1, _esc50, lambda clip: clip.split("-")[1] if "-" in clip else clip, "freesound"
    ),
}


def check_selection(name: str, selection: Selection) -> None:
    """
    Raises:
        ValueError: If a benchmark's annotations do not tell what a selection asks for.
    """
    for part in fields(Selection):
        applies = part.name == "min_labels" or part.name in BENCHMARKS[name].selects
        if not applies and getattr(selection, part.name) != part.default:
            option = _OPTIONS.get(part.name, part.name.replace("_", "-"))
            raise ValueError(f"--{option} is not for {name}; leave it out.")


@dataclass(frozen=True)
class LeftOut:
    """
    A clip that does not count.

    Attributes:
        id (`str`): Its name.
        reason (`str`): Why; the same for all of a kind.
        labels (`tuple[str, ...]`): As they are annotated.
    """

    id: str
    reason: str
    labels: tuple[str, ...]


@dataclass
class Chosen:
    """
    The clips of a benchmark that count.

    Attributes:
        layout ([`Layout`]): Where they lie.
        annotated (`dict[str, tuple[str, ...]]`): Those clips' labels as they are annotated.
        left_out (`list[LeftOut]`): Annotated clips that do not count.
        unmapped (`dict[str, int]`): Names without a label of VGGSound, and how many clips have them.
        silent (`tuple[str, ...]`): Models that do not say whether they were trained on any.
        doubt (`str`, *optional*): What may be wrong with the labels.
    """

    layout: Layout
    annotated: dict[str, tuple[str, ...]]
    left_out: list[LeftOut]
    unmapped: dict[str, int]
    silent: tuple[str, ...] = ()
    doubt: str | None = None


def choose_clips(
    name: str,
    recordings: Path,
    annotations: Path | None = None,
    selection: Selection = Selection(),
    known: Mapping[str, Collection[str]] | None = None,
    trained_on: Mapping[str, Mapping[str, Collection[str]] | None] | None = None,
) -> Chosen:
    """
    The clips of a benchmark in a folder, with VGGSound's labels. Left out are clips with a label that VGGSound has no
    word for, or that one of those who take part does not know: what is rightly heard or drawn would count as false,
    or never be found; and of ESC-50 those of recordings that a model was trained on.

    Args:
        name (`str`): One of `BENCHMARKS`.
        recordings (`Path`): Folder of videos or tar archives of videos; of ESC-50 as it is given out.
        annotations (`Path`, *optional*): Its file; where it usually lies in that folder if not given.
        selection ([`Selection`], *optional*): Which clips count.
        known (`Mapping[str, Collection[str]]`, *optional*): Labels that models and judge know, by what to call them.
        trained_on (`Mapping`, *optional*): What models say that they were trained on, likewise.

    Raises:
        FileNotFoundError: If the folder, or a file, is missing.
        ValueError: If a file is something else, the selection does not fit, no clip counts, or none of those is in
            the folder.
    """
    benchmark = BENCHMARKS[name]
    check_selection(name, selection)
    path = _annotations(name, recordings, annotations)
    noted = SkipReport()
    annotated = benchmark.read(path, selection, noted)
    if not annotated and not noted.counts:
        raise ValueError(f"{path}: has not one clip that counts.")
    min_labels = _fewest_labels(name, selection)
    models = {} if benchmark.origin is None else trained_on or {}
    trained = {who: (its or {}).get(benchmark.origin) for who, its in models.items()}
    left_out = [LeftOut(each["clip"], each["reason"], tuple(each.get("labels", ()))) for each in noted.entries]
    unmapped, entries = Counter(), []
    for entry in annotated:
        labels, foreign = vggsound_labels(entry.labels, benchmark.vocabulary)
        unmapped.update(foreign)
        reason = "a label that VGGSound has no word for" if foreign else None
        reason = reason or _why_not(labels, min_labels, benchmark.group(entry.id), known or {}, trained)
        if reason is not None:
            left_out.append(LeftOut(entry.id, reason, entry.labels))
            continue
        also_heard, _ = vggsound_labels(entry.also_heard, benchmark.vocabulary)
        entries.append(replace(entry, labels=labels, split=SPLIT, also_heard=also_heard))
    if not entries:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in _counts(left_out).items())
        raise ValueError(f"{path}: no clip counts ({reasons}).")
    return Chosen(
        layout=_esc50_layout(recordings, entries) if name == "esc50" else vggsound_layout(recordings, entries),
        annotated={entry.id: entry.labels for entry in annotated},
        left_out=left_out,
        unmapped=dict(unmapped.most_common()),
        silent=tuple(who for who, its in trained.items() if its is None),
        doubt=benchmark.doubt(path),
    )


def _annotations(name: str, recordings: Path, given: Path | None) -> Path:
    """The file of annotations: what is given, or where it usually lies."""
    if not recordings.is_dir():
        raise FileNotFoundError(f"{recordings}: no such folder.")
    if name == "esc50" and given is not None:
        raise ValueError(f"{given}: ESC-50's annotations lie in its own folder, {ESC50_TABLE}.")
    usual = [recordings / table for table in BENCHMARKS[name].tables]
    path = given or next((table for table in usual if table.is_file()), usual[0])
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; it has {name}'s annotations.")
    return path


def _why_not(
    labels: Collection[str],
    min_labels: int,
    recording: str,
    known: Mapping[str, Collection[str]],
    trained: Mapping[str, Collection[str] | None],
) -> str | None:
    """Why a clip of some labels and of some recording does not count; `None` if it does."""
    if len(labels) < min_labels:
        return f"fewer than {min_labels} labels"
    for who, its in known.items():
        if any(label not in its for label in labels):
            return f"a label that {who} does not know"
    for who, its in trained.items():
        if its is not None and recording in its:
            return f"{who} was trained on it"
    return None


def _counts(left_out: Iterable[LeftOut]) -> dict[str, int]:
    return dict(Counter(each.reason for each in left_out))


def _fewest_labels(name: str, selection: Selection) -> int:
    return BENCHMARKS[name].min_labels if selection.min_labels is None else selection.min_labels


def decode_clips(
    recordings: Path,
    out: Path,
    chosen: Chosen,
    image_size: int = 128,
    num_workers: int | None = None,
    pictures: bool = True,
) -> None:
    """
    Decode a benchmark's clips, once, into `clips` in the report's folder; of several processes, one does. Which still
    pictures count the selection has said.

    Args:
        recordings (`Path`): Folder of the recordings.
        out (`Path`): The report's folder.
        chosen ([`Chosen`]): Of [`choose_clips`].
        image_size (`int`, defaults to 128): Side of the real pictures, in pixels.
        num_workers (`int`, *optional*): Processes that decode; all cores if not given.
        pictures (`bool`, defaults to `True`): Whether clips need pictures; of sound alone those without count, too.

    Raises:
        ValueError: If no clip is of use.
    """
    kind = "any" if pictures else "none"
    settings = PrepareSettings(clips_per_shard=CLIPS_PER_SHARD, image_size=max(image_size, 256), pictures=kind)
    skipped = prepare(chosen.layout, settings, out / CLIPS, num_workers=num_workers)
    if not list((out / CLIPS).glob(f"{SPLIT}-*.parquet")):
        raise ValueError(f"{recordings}: not one clip is of use ({skipped}).")


def _esc50_layout(folder: Path, entries: list[ClipEntry]) -> Layout:
    by_id = {entry.id: entry for entry in entries}
    parts = esc50_layout(folder, CLIPS_PER_SHARD).parts
    chosen = [
        ListedPart(
            tuple(replace(clip, entry=by_id[clip.entry.id]) for clip in part.clips if clip.entry.id in by_id), SPLIT
        )
        for part in parts
    ]
    return Layout(tuple(part for part in chosen if part.clips), tuple(entries))


class LabelledClips:
    """
    A benchmark's clips as soundscapes to evaluate on, after [`decode_clips`].

    Args:
        name (`str`): The benchmark's.
        recordings (`Path`): Folder of the recordings.
        out (`Path`): The report's folder.
        chosen ([`Chosen`]): Of [`choose_clips`].
        selection ([`Selection`]): As there, for the report.
        image_size (`int`, defaults to 128): Side of the real pictures, in pixels.

    Attributes:
        skipped ([`SkipReport`]): What can't be used, each clip once.
    """

    has_stems = False

    def __init__(
        self,
        name: str,
        recordings: Path,
        out: Path,
        chosen: Chosen,
        selection: Selection,
        image_size: int = 128,
    ) -> None:
        self.name = name
        self.labels = list(VGGSOUND_LABELS)
        self.image_size = image_size
        self._recordings, self._chosen, self._selection = recordings, chosen, selection
        self.clips, _ = load_clips(out / CLIPS, SPLIT)
        self._labels = [list(labels) for labels in self.clips["labels"]]
        self.occurring_labels = sorted({label for labels in self._labels for label in labels})
        self._ids = list(self.clips["id"])
        heard = {entry.id: list(entry.also_heard) for entry in chosen.layout.entries}
        self._also_heard = [heard[clip] for clip in self._ids]
        self.has_pictures = "image" in self.clips.column_names
        # A clip can be in several archives, and broken in some of them.
        reasons = {entry["clip"]: entry for entry in read_report(out / CLIPS / REPORT)}
        self.skipped, used = SkipReport(), set(self._ids)
        for clip, entry in reasons.items():
            if clip not in used:
                self.skipped.add(**entry)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, number: int) -> Soundscape:
        row = self.clips[number]
        waveform = load_audio(row["audio"], target_sampling_rate=16000, name=row["id"])
        return Soundscape(row["id"], waveform, 16000, self._labels[number], also_heard=self._also_heard[number])

    def true_labels(self, number: int) -> list[str]:
        """A clip's labels."""
        return self._labels[number]

    def also_heard(self, number: int) -> list[str]:
        """What its annotations say is heard beside these."""
        return self._also_heard[number]

    def groups(self, number: int) -> list[str]:
        """Clips of one video count together."""
        return [BENCHMARKS[self.name].group(self._ids[number])] * len(self._labels[number])

    def image(self, number: int) -> PIL.Image.Image:
        """A clip's frame, cut to a square."""
        return collage([open_picture(self.clips[number]["image"]).convert("RGB")], self.image_size)

    def describe(self) -> dict[str, Any]:
        """What a report has to say of the data."""
        text = f"{self.image_size} {self._ids} {self._labels} {self._also_heard}"
        benchmark = BENCHMARKS[self.name]
        selection = {name: getattr(self._selection, name) for name in benchmark.selects}
        if "modalities" in selection:
            selection["modalities"] = list(self._selection.modalities or BOTH)
        return {
            "data": f"{self.name}: {self._recordings}",
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
            "num_soundscapes": len(self),
            "num_labels": len(self.occurring_labels),
            "image_size": self.image_size,
            "selection": {"min_labels": _fewest_labels(self.name, self._selection), **selection},
            "note": self._chosen.doubt or benchmark.note,
            "left_out": _counts(self.left_out()),
            "unmapped": self._chosen.unmapped,
            "silent": list(self._chosen.silent),
        }

    def left_out(self) -> list[LeftOut]:
        """All that do not count: those that were not chosen, and those that can't be used."""
        annotated = self._chosen.annotated
        unusable = [
            LeftOut(each["clip"], each["reason"], annotated.get(each["clip"], ())) for each in self.skipped.entries
        ]
        return [*self._chosen.left_out, *unusable]

    def write_left_out(self, folder: Path) -> None:
        """Write `left_out.jsonl` into the report's folder: `id`, `reason` and `labels`, as annotated, of each."""
        lines = [json.dumps(asdict(each), ensure_ascii=False) + "\n" for each in self.left_out()]
        write_text(folder / LEFT_OUT, "".join(lines))

    def write_manifest(self, path: Path) -> None:
        """Nothing: the clips are their own manifest."""
