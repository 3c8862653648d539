"""Where a system's drawings lie, batch by batch: interrupted, drawing goes on; several processes share it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accelerate import PartialState
from tqdm.auto import tqdm

from ..data.text_files import read_json
from ..files import atomic_folder, write_text
from .drawings import Drawing
from .image_folder import ImageFolderSystem
from .pipeline_system import PipelineSystem
from .soundscapes import EvaluationSet


RECORDS = "records.json"
# Settings that say where something lies, beside digests of what it is.
PATHS = ("checkpoint", "commit", "data", "lora", "manifest", "painter")


@dataclass(frozen=True)
class DrawingFolder:
    """
    Where one system's drawings lie, in one folder per batch, which appears when it is complete.

    Attributes:
        path (`Path`): The system's folder.
        num_soundscapes (`int`): In the evaluation set.
        batch_size (`int`): Soundscapes in a batch. The same soundscapes always share a batch, whatever was drawn
            before and by which process, so that drawings do not differ even by rounding.
    """

    path: Path
    num_soundscapes: int
    batch_size: int

    def batches(self) -> list[range]:
        """The numbers of every batch's soundscapes."""
        size = self.batch_size
        return [
            range(start, min(start + size, self.num_soundscapes)) for start in range(0, self.num_soundscapes, size)
        ]

    def batch_path(self, batch: range) -> Path:
        """The folder of a batch."""
        return self.path / f"{batch.start:05d}"

    def missing(self) -> list[range]:
        """Batches that are not drawn yet."""
        return [batch for batch in self.batches() if not (self.batch_path(batch) / RECORDS).exists()]

    def write(self, batch: range, drawings: list[Drawing]) -> None:
        """All of a batch, or nothing."""
        # A folder without its records is one that somebody has damaged.
        with atomic_folder(self.batch_path(batch), overwrite=True) as folder:
            for number, drawing in zip(batch, drawings, strict=True):
                if drawing.mixed is not None:
                    drawing.mixed.save(folder / f"{number:05d}.png")
                for place, image in enumerate(drawing.separated, start=1):
                    image.save(folder / f"{number:05d}-{place}.png")
            records = json.dumps([drawing.record() for drawing in drawings], indent=1)
            (folder / RECORDS).write_text(records, encoding="utf-8")

    def read(self, name: str) -> list[Drawing]:
        """All drawings, in order, with their images."""
        images = ImageFolderSystem(name, self.path, 0) if any(self.path.rglob("*.png")) else None
        drawings = []
        for batch in self.batches():
            path = self.batch_path(batch) / RECORDS
            records = read_json(path)
            if not isinstance(records, list) or len(records) != len(batch) or not all(map(_is_record, records)):
                raise ValueError(f"{path}: not the records of {len(batch)} drawings; remove its folder to draw again.")
            for number, record in zip(batch, records, strict=True):
                drawing = Drawing(**record)
                if images is not None:
                    found = images.drawing(number)
                    drawing = replace(drawing, mixed=found.mixed, separated=found.separated)
                drawings.append(drawing)
        return drawings


def draw_all(
    system: PipelineSystem,
    dataset: EvaluationSet,
    folder: DrawingFolder,
    missing: Sequence[range],
    state: PartialState,
) -> None:
    """Draw the batches that are missing; all processes are told the same ones, and take turns over them."""
    mine = missing[state.process_index :: state.num_processes]
    for batch in tqdm(mine, desc=system.name, unit="batch", disable=not state.is_main_process or not mine):
        soundscapes = [dataset[number] for number in batch]
        folder.write(batch, system.draw(soundscapes, list(batch)))
    system.close()
    state.wait_for_everyone()


def _is_record(record: Any) -> bool:
    """Whether something is what [`Drawing.record`] gives, but for the items of its lists."""
    empty = Drawing(labels=[], drawn_labels=[]).record()
    return (
        isinstance(record, dict)
        and record.keys() == empty.keys()
        and all(
            type(record[name]) is type(value) or (name in ("labels", "drawn_labels") and record[name] is None)
            for name, value in empty.items()
        )
    )


def _without_paths(settings: Any) -> Any:
    """Digests say what is the same; where it lies may change."""
    if not isinstance(settings, dict):
        return settings
    return {
        key: _without_paths(value) for key, value in settings.items() if key not in PATHS or isinstance(value, dict)
    }


def check_settings(path: Path, settings: dict[str, Any]) -> None:
    """
    See that what lies in a folder was made with the same settings, or note them in a new one. Paths do not count.

    Raises:
        ValueError: If it holds another evaluation, or no settings.
    """
    # Paths need not be Unicode.
    text = (json.dumps(settings, indent=2, ensure_ascii=False) + "\n").encode(errors="replace").decode()
    if path.exists():
        before, now = _without_paths(read_json(path)), _without_paths(json.loads(text))
        if not isinstance(before, dict):
            raise ValueError(f"{path}: not the settings of an evaluation.")
        differing = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
        if differing:
            raise ValueError(
                f"{path.parent}: holds another evaluation (other {', '.join(differing)}); choose another --out or"
                " remove it."
            )
        return
    write_text(path, text)
