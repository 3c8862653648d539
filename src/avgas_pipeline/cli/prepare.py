"""`avgas prepare`: clips of any layout as shards for training and evaluation."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from ..data.annotations import read_vggsound
from .checks import bad_input_exits, check_data, check_files, check_writable
from .models import asking_hub
from .options import Columns, DataLayout


# Of its folder.
VGGSOUND, TABLE = "vggsound", "vggsound.csv"


class Format(str, Enum):
    """Kinds of shards."""

    parquet = "parquet"
    webdataset = "webdataset"


class Engine(str, Enum):
    """What shares the work out."""

    local = "local"
    ray = "ray"


def prepare(
    data: Annotated[str, typer.Argument(help="Folder of clips, or Hub repository; see docs/data.md.")],
    out: Annotated[Path, typer.Option(help="Folder for the shards.")],
    layout: DataLayout = None,
    columns: Columns = None,
    csv: Annotated[
        Path | None, typer.Option(help="VGGSound's annotations; vggsound.csv in the folder if not given.")
    ] = None,
    moments: Annotated[Path | None, typer.Option(help="Best moments (top1_boxes_top10_moments.json).")] = None,
    format: Annotated[Format, typer.Option(help="Kind of the shards.")] = Format.parquet,
    clips_per_shard: Annotated[int, typer.Option(min=1, help="Clips that go into a shard.")] = 512,
    sampling_rate: Annotated[int, typer.Option(min=1, help="Of the sound, in Hz.")] = 16000,
    image_size: Annotated[int, typer.Option(min=1, help="Longest side of the frame, in pixels.")] = 256,
    engine: Annotated[Engine, typer.Option(help="This machine, or Ray for a cluster.")] = Engine.local,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; all cores if not given.")] = None,
) -> None:
    """Turn clips into shards. They hold sound, a picture and labels. Run again after an interruption."""
    with bad_input_exits():
        check_data(data)
        check_files(csv, moments)
        if csv is not None and layout not in (None, VGGSOUND):
            raise ValueError(f"--csv is for --layout {VGGSOUND}.")
        if csv is None and layout in (None, VGGSOUND) and (Path(data) / TABLE).is_file():
            csv = Path(data) / TABLE
        if csv is not None and columns is not None:
            raise ValueError(f"--columns is not for --layout {VGGSOUND}.")
        # Before the libraries are imported, which takes seconds.
        entries = None if csv is None else read_vggsound(csv)

        from ..data.layouts.columns import ColumnMap
        from ..data.layouts.detect import find_layout, read_layout
        from ..data.layouts.vggsound import vggsound_layout
        from ..data.prepare import PrepareSettings
        from ..data.prepare import prepare as run

        if entries is not None:
            clips = vggsound_layout(data, entries, part_size=clips_per_shard)
        else:
            with asking_hub(data):
                layout = layout or find_layout(data)
            if layout == "table" and Path(data).is_dir() and out.resolve().is_relative_to(Path(data).resolve()):
                raise ValueError(f"{out}: lies in the data, all of whose folders are read; choose another --out.")
            with asking_hub(data):
                clips = read_layout(data, layout, ColumnMap.parse(columns), clips_per_shard)
        check_writable(out)
        settings = PrepareSettings(format.value, clips_per_shard, sampling_rate, image_size)
        report = run(clips, settings, out, moments, engine.value, workers)
    typer.echo(f"{out}: {report}" + (f", named in {out / 'report.jsonl'}" if report.counts else ""))
