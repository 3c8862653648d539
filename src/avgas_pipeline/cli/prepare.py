"""`avgas prepare`: VGGSound's videos as shards for training and evaluation."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from ..data.annotations import read_vggsound
from .checks import bad_input_exits, check_files, check_is_folder, check_writable


class Format(str, Enum):
    """Kinds of shards."""

    parquet = "parquet"
    webdataset = "webdataset"


class Engine(str, Enum):
    """What shares the work out."""

    local = "local"
    ray = "ray"


def prepare(
    data: Annotated[Path, typer.Argument(help="Folder of videos, or of tar archives of videos.")],
    out: Annotated[Path, typer.Option(help="Folder for the shards.")],
    csv: Annotated[Path | None, typer.Option(help="Annotations; vggsound.csv in the folder if not given.")] = None,
    moments: Annotated[Path | None, typer.Option(help="Best moments (top1_boxes_top10_moments.json).")] = None,
    format: Annotated[Format, typer.Option(help="Kind of the shards.")] = Format.parquet,
    clips_per_shard: Annotated[int, typer.Option(min=1, help="Clips that go into a shard.")] = 512,
    sampling_rate: Annotated[int, typer.Option(min=1, help="Of the sound, in Hz.")] = 16000,
    image_size: Annotated[int, typer.Option(min=1, help="Longest side of the frame, in pixels.")] = 256,
    engine: Annotated[Engine, typer.Option(help="This machine, or Ray for a cluster.")] = Engine.local,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; all cores if not given.")] = None,
) -> None:
    """Turn VGGSound's videos into shards. They hold sound, frame and labels. Run again after an interruption."""
    with bad_input_exits():
        check_is_folder(data)
        csv = csv or data / "vggsound.csv"
        check_files(csv, moments)
        entries = read_vggsound(csv)
        check_writable(out)

        from ..data.prepare import PrepareSettings
        from ..data.prepare import prepare as run

        settings = PrepareSettings(str(data), format.value, clips_per_shard, sampling_rate, image_size)
        report = run(entries, settings, out, moments, engine.value, workers)
    typer.echo(f"{out}: {report}" + (f", named in {out / 'report.jsonl'}" if report.counts else ""))
