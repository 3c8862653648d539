"""From videos to shards that training reads fast: encoded sound, a JPEG frame, labels."""

import io
import json
import multiprocessing
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from .annotations import ClipEntry, read_best_moments
from .report import SkipReport, read_report
from .vggsound import FEATURES, find_shards, find_videos, make_example, read_shard
from .video import SkipClipError


FORMATS = ("parquet", "webdataset")
ENGINES = ("local", "ray")


@dataclass(frozen=True)
class PrepareSettings:
    """
    What decides the contents of the shards.

    Attributes:
        data_dir (`str`): Folder of videos, or of tar archives of videos.
        format (`str`): `"parquet"` or `"webdataset"`.
        clips_per_shard (`int`): Annotated clips that go into a shard, skipped ones included.
        sampling_rate (`int`): Of the sound, in Hz.
        image_size (`int`): Longest side of the frame, in pixels.
        min_duration_s (`float`): Shorter sounds are skipped.
    """

    data_dir: str
    format: str = "parquet"
    clips_per_shard: int = 512
    sampling_rate: int = 16000
    image_size: int = 256
    min_duration_s: float = 1.0


@dataclass(frozen=True)
class Unit:
    """
    Work for one process: a run of clips with their files, or a whole archive.

    Attributes:
        number (`int`): Its place, which is in the names of its shards.
        clips (`tuple`): Clips with their files; for an archive, all clips that may be in it.
        archive (`str`, *optional*): Path of the archive.
    """

    number: int
    clips: tuple[tuple[ClipEntry, str | None], ...]
    archive: str | None = None


def prepare(
    entries: Iterable[ClipEntry],
    settings: PrepareSettings,
    output_dir: str | os.PathLike,
    moments: str | os.PathLike | None = None,
    engine: str = "local",
    num_workers: int | None = None,
) -> SkipReport:
    """
    Write the shards of a dataset, `<split>-<unit>-<part>.parquet` or `.tar`.

    A shard is written under a temporary name and renamed; a file in `done/` says that it is finished and names what
    was skipped. Started again after a crash, finished shards are left alone, and the rest comes out byte for byte as
    without one. `report.jsonl` names every skipped clip.

    Args:
        entries (`Iterable[ClipEntry]`): The annotated clips.
        settings (`PrepareSettings`): What the shards hold.
        output_dir (`str` or `os.PathLike`): Folder to write to; on a cluster one that all nodes see.
        moments (`str` or `os.PathLike`, *optional*): Best moments, which choose the frames.
        engine (`str`, defaults to `"local"`): `"local"` (all cores of this machine) or `"ray"` (Ray Data; several
            machines if Ray's own address says so).
        num_workers (`int`, *optional*): Processes of the local engine. Defaults to the number of cores.

    Returns:
        [`SkipReport`]: What was skipped.

    Raises:
        FileNotFoundError: If the data is not there.
        ValueError: If the folder holds shards made with other settings, or an argument does not fit.
    """
    if settings.format not in FORMATS or engine not in ENGINES:
        raise ValueError(f"`format` has to be one of {FORMATS} and `engine` one of {ENGINES}.")
    output_dir = Path(output_dir)
    best_moments = {} if moments is None else read_best_moments(moments)
    units = _units(list(entries), settings)
    if not units:
        raise ValueError("There is not one annotated clip.")
    _claim(output_dir, settings)
    work = _Worker(settings, output_dir, best_moments)
    total = sum(len(unit.clips) for unit in units if unit.archive is None) or len(units[0].clips)
    with tqdm(total=total, unit="clip", smoothing=0.05) as progress:
        for seen in (_run_ray if engine == "ray" else _run_local)(work, units, num_workers):
            progress.update(seen)
        progress.total = progress.n
    return _finish(output_dir, settings.format)


class _Worker:
    """Writes the shards of one unit; returns how many clips it went through."""

    def __init__(self, settings: PrepareSettings, output_dir: Path, moments: Mapping[str, list[float]]) -> None:
        self.settings = settings
        self.output_dir = output_dir
        self.moments = moments

    def __call__(self, unit: Unit) -> int:
        damage = SkipReport()
        clips: Iterator[tuple[ClipEntry, Any]] = iter(unit.clips)
        if unit.archive is not None:
            clips = read_shard(unit.archive, {entry.id: entry for entry, _ in unit.clips}, damage)
        seen, part = 0, 0
        while batch := _take(clips, self.settings.clips_per_shard):
            self._write_part(f"{unit.number:05d}-{part:05d}", batch)
            seen, part = seen + len(batch), part + 1
        if damage.entries:
            _write_atomically(self.output_dir / "done" / f"{unit.number:05d}-damage.jsonl", damage.lines().encode())
        return seen

    def _write_part(self, name: str, batch: list[tuple[ClipEntry, Any]]) -> None:
        done = self.output_dir / "done" / f"{name}.jsonl"
        if done.exists():
            return
        skipped = SkipReport()
        examples: dict[str, list[dict[str, Any]]] = {}
        for entry, video in batch:
            try:
                example = make_example(
                    entry,
                    video,
                    self.moments.get(entry.id, ()),
                    self.settings.sampling_rate,
                    self.settings.image_size,
                    self.settings.min_duration_s,
                )
            except SkipClipError as error:
                skipped.add(entry.id, error.reason, str(error))
            else:
                examples.setdefault(entry.split or "train", []).append(example)
        for split, rows in examples.items():
            encode, suffix = _ENCODERS[self.settings.format]
            _write_atomically(self.output_dir / f"{split}-{name}.{suffix}", encode(rows))
        _write_atomically(done, skipped.lines().encode())


def _units(entries: list[ClipEntry], settings: PrepareSettings) -> list[Unit]:
    if archives := find_shards(settings.data_dir):
        clips = tuple((entry, None) for entry in entries)
        return [Unit(number, clips, archive) for number, archive in enumerate(archives)]
    files = find_videos(settings.data_dir)
    # Shards of one split each, so that splits can be loaded alone.
    by_split: dict[str, list[tuple[ClipEntry, str | None]]] = {}
    for entry in entries:
        by_split.setdefault(entry.split or "train", []).append((entry, files.get(entry.id)))
    size = settings.clips_per_shard
    runs = [
        tuple(clips[start : start + size])
        for _, clips in sorted(by_split.items())
        for start in range(0, len(clips), size)
    ]
    return [Unit(number, run) for number, run in enumerate(runs)]


def _claim(output_dir: Path, settings: PrepareSettings) -> None:
    """Begins a folder, or checks that an earlier run had the same settings."""
    path = output_dir / "prepare.json"
    wanted = asdict(settings)
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found != wanted:
            changed = sorted(key for key in wanted if found.get(key) != wanted[key])
            raise ValueError(f"{output_dir}: was prepared with other settings ({', '.join(changed)}).")
    (output_dir / "done").mkdir(parents=True, exist_ok=True)
    _write_atomically(path, json.dumps(wanted, indent=2).encode())


def _run_local(work: _Worker, units: list[Unit], num_workers: int | None) -> Iterator[int]:
    # Forks of this process may inherit a lock of the video library; those of a fresh server do not.
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload([__name__])
    with context.Pool(min(num_workers or os.cpu_count() or 1, len(units))) as pool:
        yield from pool.imap_unordered(work, units)


def _run_ray(work: _Worker, units: list[Unit], num_workers: int | None) -> Iterator[int]:
    try:
        import ray
    except ImportError:
        raise ValueError("The Ray engine needs Ray: pip install 'avgas-pipeline[ray]'.") from None
    dataset = ray.data.from_items([{"unit": unit.number} for unit in units], override_num_blocks=len(units))
    for row in dataset.map(lambda row: {"seen": work(units[row["unit"]])}).iter_rows():
        yield row["seen"]


def _finish(output_dir: Path, format_name: str) -> SkipReport:
    """Gathers what was skipped, writes the report and a card, and clears away what a crash left behind."""
    report = SkipReport()
    for path in sorted((output_dir / "done").glob("*.jsonl")):
        for entry in read_report(path):
            report.add(**entry)
    _write_atomically(output_dir / "report.jsonl", report.lines().encode())
    for leftover in output_dir.rglob(".partial-*"):
        leftover.unlink(missing_ok=True)
    suffix = _ENCODERS[format_name][1]
    splits = sorted({path.name.split("-")[0] for path in output_dir.glob(f"*.{suffix}")})
    files = "".join(f"  - split: {split}\n    path: {split}-*.{suffix}\n" for split in splits)
    card = f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n\nPrepared by `avgas prepare`.\n"
    _write_atomically(output_dir / "README.md", card.encode())
    return report


def _take(clips: Iterator[tuple[ClipEntry, Any]], count: int) -> list[tuple[ClipEntry, Any]]:
    return [clip for _, clip in zip(range(count), clips, strict=False)]


def _write_atomically(path: Path, content: bytes) -> None:
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _encode_parquet(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=FEATURES.arrow_schema), buffer, compression="none")
    return buffer.getvalue()


def _encode_webdataset(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for row in rows:
            table = {key: value for key, value in row.items() if key not in ("audio", "image")}
            files = {"flac": row["audio"], "jpg": row["image"], "json": json.dumps(table).encode()}
            for suffix, content in files.items():
                # Readers leave out names that begin with `__`, as some YouTube ids do. No owner and no date: the bytes
                # are the same every time.
                member = tarfile.TarInfo(f"clip_{row['id']}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


_ENCODERS: dict[str, tuple[Callable[[list[dict[str, Any]]], bytes], str]] = {
    "parquet": (_encode_parquet, "parquet"),
    "webdataset": (_encode_webdataset, "tar"),
}
