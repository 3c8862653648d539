"""From videos to shards that training reads fast: encoded sound, a JPEG frame, labels."""

import hashlib
import itertools
import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from tqdm import tqdm

from ..files import finished, remove_partial, write_bytes, write_text
from .annotations import read_best_moments
from .layouts.clip import DEFAULT_SPLIT, PICTURES, Clip, Layout, Part, make_example
from .layouts.files import PREPARED
from .report import DUPLICATE, SkipReport
from .shards import FORMATS
from .text_files import read_json
from .video import SkipClipError


# A part's number, which is in the names of its shards, and the part.
Unit = tuple[int, Part]
ENGINES = ("local", "ray")
# In a prepared folder: what was skipped.
REPORT = "report.jsonl"
# Of what `done/` holds: folders of another one are not gone on with.
VERSION = 2
# A run that was killed a moment ago may still hold the folder.
LOCK_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class PrepareSettings:
    """
    What decides the contents of the shards.

    Attributes:
        format (`str`): `"parquet"` or `"webdataset"`.
        clips_per_shard (`int`): Annotated clips that go into a shard, skipped ones included.
        sampling_rate (`int`): Of the sound, in Hz.
        image_size (`int`): Longest side of the frame, in pixels.
        min_duration_s (`float`): Shorter sounds are skipped.
        pictures (`str`): Of `PICTURES`: whether still pictures are of use, or none is asked for.
    """

    format: str = "parquet"
    clips_per_shard: int = 512
    sampling_rate: int = 16000
    image_size: int = 256
    min_duration_s: float = 1.0
    pictures: str = "film"


def prepare(
    layout: Layout,
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
    without one. Of several clips with one id in one split, the first is written. `report.jsonl` names every skipped
    clip.

    Args:
        layout ([`Layout`]): Where the clips lie, as of [`~avgas_pipeline.data.layouts.detect.read_layout`]; a part
            is one process's work.
        settings (`PrepareSettings`): What the shards hold.
        output_dir (`str` or `os.PathLike`): Folder to write to; on a cluster one that all nodes see.
        moments (`str` or `os.PathLike`, *optional*): Best moments, which choose the frames.
        engine (`str`, defaults to `"local"`): `"local"` (all cores of this machine) or `"ray"` (Ray Data; several
            machines if Ray's own address says so).
        num_workers (`int`, *optional*): Processes of the local engine. Defaults to the number of cores.

    Returns:
        [`SkipReport`]: What was skipped.

    Raises:
        ValueError: If there is no clip, the folder holds shards made with other settings or from other data, another
            run is at work there, a worker process died, or an argument does not fit.
    """
    if settings.format not in FORMATS or engine not in ENGINES:
        raise ValueError(f"`format` has to be one of {tuple(FORMATS)} and `engine` one of {ENGINES}.")
    if settings.pictures not in PICTURES:
        raise ValueError(f"`pictures` has to be one of {PICTURES}.")
    output_dir = Path(output_dir)
    best_moments = {} if moments is None else read_best_moments(moments)
    if not layout.parts or layout.entries == ():
        raise ValueError("There is not one annotated clip.")
    units = list(enumerate(layout.parts))
    with _claimed(output_dir, settings, _fingerprint(layout, best_moments)):
        work = _Worker(settings, output_dir, best_moments)
        sizes = [part.size for part in layout.parts]
        total = None if None in sizes else sum(sizes)
        if total is None and layout.entries is not None:
            total = len(layout.entries)
        with tqdm(total=total, unit="clip", smoothing=0.05) as progress:
            for seen in (_run_ray if engine == "ray" else _run_local)(work, units, num_workers):
                progress.update(seen)
            progress.total = progress.n
        return _finish(output_dir, settings.format, layout)


class _Worker:
    """Writes the shards of one part; returns how many clips it went through."""

    def __init__(self, settings: PrepareSettings, output_dir: Path, moments: Mapping[str, list[float]]) -> None:
        self.settings = settings
        self.output_dir = output_dir
        self.moments = moments

    def __call__(self, unit: Unit) -> int:
        (number, source), damage = unit, SkipReport()
        clips = source.read(damage)
        seen = 0
        ids: set[tuple[str, str]] = set()
        for part in itertools.count():
            in_part = self._write_part(f"{number:05d}-{part:05d}", clips, ids)
            seen += in_part
            if in_part < self.settings.clips_per_shard:
                break
        if damage.entries:
            done = {"written": {}, "skipped": damage.entries}
            write_text(self.output_dir / "done" / f"{number:05d}-damage.json", json.dumps(done))
        return seen

    def _write_part(self, name: str, clips: Iterator[Clip], ids: set[tuple[str, str]]) -> int:
        """
        Takes a shard's share of clips, one after the other, and writes it unless that is done; tells how many. Those
        that are written join `ids`, by split.
        """
        batch = itertools.islice(clips, self.settings.clips_per_shard)
        done = self.output_dir / "done" / f"{name}.json"
        if done.exists():
            ids.update((split, clip) for split, names in read_json(done)["written"].items() for clip in names)
            return sum(1 for _ in batch)
        skipped = SkipReport()
        examples: dict[str, list[dict[str, Any]]] = {}
        seen = 0
        settings = self.settings
        how = (settings.sampling_rate, settings.image_size, settings.min_duration_s, settings.pictures)
        for clip in batch:
            seen += 1
            split = clip.entry.split or DEFAULT_SPLIT
            if (split, clip.entry.id) in ids:
                skipped.add(clip.entry.id, DUPLICATE)
                continue
            try:
                example = make_example(clip, self.moments.get(clip.entry.id, ()), *how)
            except SkipClipError as error:
                skipped.add(clip.entry.id, error.reason, str(error))
            else:
                ids.add((split, clip.entry.id))
                examples.setdefault(split, []).append(example)
        if seen == 0:
            return 0
        for split, rows in examples.items():
            kind = FORMATS[self.settings.format]
            write_bytes(self.output_dir / f"{split}-{name}.{kind.suffix}", kind.encode(rows))
        written = {split: [row["id"] for row in rows] for split, rows in examples.items()}
        write_text(done, json.dumps({"written": written, "skipped": skipped.entries}))
        return seen


def _fingerprint(layout: Layout, moments: Mapping[str, list[float]]) -> str:
    """Of all that decides which clips go into which shard, and with what; not of where the data lies."""
    annotations = [[entry.id, entry.labels, entry.split] for entry in layout.entries or ()]
    parts = [part.fingerprint() for part in layout.parts]
    content = json.dumps([VERSION, annotations, dict(moments), parts], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


@contextmanager
def _claimed(output_dir: Path, settings: PrepareSettings, fingerprint: str) -> Iterator[None]:
    """Begins a folder, or checks that an earlier run had the same settings and data; keeps other runs out."""
    wanted = {**asdict(settings), "inputs": fingerprint}
    (output_dir / "done").mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(output_dir / ".lock").acquire(timeout=LOCK_TIMEOUT_S)
    except Timeout:
        raise ValueError(f"{output_dir}: another run is at work there.") from None
    with held:
        path = output_dir / PREPARED
        if path.exists():
            found = read_json(path)
            if not isinstance(found, dict):
                raise ValueError(f"{path}: holds no settings.")
            # An older one may lack settings that there were not then.
            found = {**asdict(PrepareSettings()), **found}
            changed = sorted(key for key in wanted if found.get(key) != wanted[key])
            if changed:
                differences = ", ".join(changed)
                raise ValueError(
                    f"{output_dir}: was prepared with other settings or data ({differences}); choose a new folder."
                )
        write_text(path, json.dumps(wanted, indent=2))
        yield


_work: _Worker


def _begin(work: _Worker) -> None:
    global _work
    _work = work


def _do(unit: Unit) -> int:
    return _work(unit)


def _run_local(work: _Worker, units: list[Unit], num_workers: int | None) -> Iterator[int]:
    # Forks of this process may inherit a lock of the video library; those of a fresh server do not.
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload([__name__])
    num_workers = min(num_workers or os.cpu_count() or 1, len(units))
    with ProcessPoolExecutor(num_workers, context, initializer=_begin, initargs=(work,)) as pool:
        try:
            for future in as_completed([pool.submit(_do, unit) for unit in units]):
                yield future.result()
        except BrokenProcessPool:
            raise ValueError(
                "A worker process died (too little memory, or a video that crashes the decoder). Finished shards are"
                " kept; run it again to go on."
            ) from None
        except BaseException:
            # Ctrl-C or a signal: what has not begun never does, and the next run begins again what has.
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
                process.join()
            remove_partial(work.output_dir)
            raise


def _run_ray(work: _Worker, units: list[Unit], num_workers: int | None) -> Iterator[int]:
    try:
        import ray
    except ImportError:
        raise ValueError("The Ray engine needs Ray: pip install '.[ray]' in a checkout of avgas-pipeline.") from None
    dataset = ray.data.from_items([{"unit": number} for number, _ in units], override_num_blocks=len(units))
    for row in dataset.map(lambda row: {"seen": work(units[row["unit"]])}).iter_rows():
        yield row["seen"]


def _finish(output_dir: Path, format_name: str, layout: Layout) -> SkipReport:
    """Gathers what was skipped, writes the report and a card, and clears away what a crash left behind."""
    report = SkipReport()
    parts = _without_repeated(output_dir, format_name)
    written = {clip for part in parts for names in part["written"].values() for clip in names}
    annotated = Counter(entry.id for entry in layout.entries or ())
    for entry in (entry for part in parts for entry in part["skipped"]):
        # An annotated clip that is broken in one archive may be good in another.
        is_there = entry["clip"] in written and annotated[entry["clip"]] == 1
        if entry["reason"] == DUPLICATE or not is_there:
            report.add(**entry)
    skipped = {entry["clip"] for entry in report.entries}
    for clip in annotated:
        if clip not in written and clip not in skipped:
            report.add(clip, "missing")
    write_text(output_dir / REPORT, report.lines())
    remove_partial(output_dir)
    write_text(output_dir / "README.md", _card(output_dir, format_name))
    return report


def _without_repeated(output_dir: Path, format_name: str) -> list[dict[str, Any]]:
    """
    What `done/` holds, after clips that an earlier part has, too, are taken out of their shards: processes do not know
    of each other's.
    """
    parts = []
    ids: set[tuple[str, str]] = set()
    for path in finished(output_dir / "done", "*.json"):
        part = read_json(path)
        for split, names in part["written"].items():
            repeated = {name for name in names if (split, name) in ids}
            ids.update((split, name) for name in names)
            if not repeated:
                continue
            part["written"][split] = [name for name in names if name not in repeated]
            part["skipped"] += [{"clip": name, "reason": DUPLICATE, "detail": ""} for name in sorted(repeated)]
            _remove_rows(output_dir / f"{split}-{path.stem}.{FORMATS[format_name].suffix}", format_name, repeated)
            write_text(path, json.dumps(part))
        parts.append(part)
    return parts


def _remove_rows(shard: Path, format_name: str, clips: Collection[str]) -> None:
    """Writes a shard anew without some clips; without it if there are no others. Done before, it changes nothing."""
    if not shard.exists():
        return
    kind = FORMATS[format_name]
    rows = [row for row in kind.read(shard) if row["id"] not in clips]
    if rows:
        write_bytes(shard, kind.encode(rows))
    else:
        shard.unlink()


def _card(output_dir: Path, format_name: str) -> str:
    """Tells `load_dataset` of the splits."""
    suffix = FORMATS[format_name].suffix
    splits = sorted({path.name.split("-")[0] for path in output_dir.glob(f"*.{suffix}")})
    if not splits:
        return "No clip was of use; report.jsonl says why.\n"
    files = "".join(f"  - split: {split}\n    path: {split}-*.{suffix}\n" for split in splits)
    configs = f"configs:\n- config_name: default\n  data_files:\n{files}"
    return f"---\n{configs}{FORMATS[format_name].features}---\n\nPrepared by `avgas prepare`.\n"
