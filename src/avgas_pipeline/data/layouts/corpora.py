"""Corpora of sounds as they are given out: ESC-50 and FSD50K."""

import os
from pathlib import Path

from ..annotations import ClipEntry
from ..text_files import read_csv_columns
from .clip import Clip, Layout
from .parts import listed, told, unique


ESC50_TABLE = "meta/esc50.csv"
FSD50K_TRUTH = "FSD50K.ground_truth"
# Its tables, their folders of sounds, and the split where the table says none.
_FSD50K = (("dev.csv", "FSD50K.dev_audio", None), ("eval.csv", "FSD50K.eval_audio", "test"))


def esc50_layout(folder: str | os.PathLike, part_size: int = 512) -> Layout:
    """
    ESC-50 (Piczak, 2015): `meta/esc50.csv` and `audio`, 2,000 clips of five seconds of 50 labels. All are in one
    split, `train`; its five folds are in the table.

    Raises:
        ValueError: If the table can't be read, or a clip has no label.
    """
    folder = Path(folder)
    clips = [
        Clip(
            ClipEntry(Path(row["filename"]).stem, _labels([row["category"]], where)),
            audio=_inside(folder / "audio", row["filename"], where),
        )
        for where, row in read_csv_columns(folder / ESC50_TABLE, "filename", "category")
    ]
    return _layout(clips, folder / ESC50_TABLE, part_size)


def fsd50k_layout(folder: str | os.PathLike, part_size: int = 512) -> Layout:
    """
    FSD50K (Fonseca et al., 2022): `FSD50K.ground_truth/dev.csv` and `eval.csv`, with clips in `FSD50K.dev_audio`
    (splits `train` and `val`) and `FSD50K.eval_audio` (`test`), one or several labels each.

    Raises:
        ValueError: If a table can't be read, or a clip has no label.
    """
    folder, clips = Path(folder), []
    for table, sounds, split in _FSD50K:
        path = folder / FSD50K_TRUTH / table
        if not path.is_file():
            continue
        columns = ("fname", "labels", *(("split",) if split is None else ()))
        for where, row in read_csv_columns(path, *columns):
            labels = _labels(row["labels"].split(","), where)
            audio = _inside(folder / sounds, f"{row['fname']}.wav", where)
            clips.append(Clip(ClipEntry(row["fname"], labels, split or row["split"]), audio=audio))
    return _layout(clips, folder / FSD50K_TRUTH, part_size)


def _labels(names: list[str], where: str) -> tuple[str, ...]:
    labels = tuple(dict.fromkeys(text for name in names if (text := name.replace("_", " ").strip())))
    if not labels:
        raise ValueError(f"{where}: needs a label.")
    return labels


def _inside(folder: Path, name: str, where: str) -> str:
    if Path(name).name != name:
        raise ValueError(f"{where}: {name!r} is no name of a file.")
    return str(folder / name)


def _layout(clips: list[Clip], table: Path, part_size: int) -> Layout:
    if not clips:
        raise ValueError(f"{table}: has no clips.")
    clips, lost = unique(clips)
    parts = (*listed(clips, part_size), *told(lost, clips[0].entry.split))
    return Layout(parts, tuple(clip.entry for clip in clips))
