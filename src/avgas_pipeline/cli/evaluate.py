"""`avgas evaluate`: systems compared on the same soundscapes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..loaders.folders import locate
from .checks import bad_input_exits, check_files, check_is_folder, check_number, check_sources, new_folder
from .comparison import Drawn, Systems, compare
from .options import (
    MAX_GUIDANCE,
    MAX_SEED,
    Baselines,
    BatchSize,
    Columns,
    DataLayout,
    Device,
    Draw,
    Guidance,
    ImageSize,
    Judge,
    PresenceThreshold,
    Steps,
    TopK,
)


if TYPE_CHECKING:
    from ..evaluation.soundscapes import EvaluationSet


def evaluate(
    data: Annotated[str, typer.Option(help="Dataset (folder or Hub repository), or .jsonl file of recordings.")],
    out: Annotated[Path, typer.Option(help="Folder for the report. Run again to go on after an interruption.")],
    judge: Judge = None,
    model: Annotated[str | None, typer.Option(help="Checkpoint: a folder or a Hub repository.")] = None,
    lora: Annotated[
        str | None, typer.Option(help="LoRA weights of the model: a folder, file or Hub repository.")
    ] = None,
    images: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FOLDER", help="Images drawn elsewhere: 00000.png, 00000-1.png …")
    ] = None,
    baseline: Baselines = None,
    ablate: Annotated[
        list[str] | None, typer.Option(metavar="NAME[=MODEL]", help="no-masks, no-a2a or no-a2v. Can be given again.")
    ] = None,
    manifest: Annotated[
        Path | None, typer.Option(help="Mixtures to evaluate on; chosen at random, by the seed, if not given.")
    ] = None,
    split: Annotated[str, typer.Option(help="Of the dataset.")] = "test",
    layout: DataLayout = None,
    columns: Columns = None,
    num_mixtures: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="How many mixtures to make without a manifest.")
    ] = 500,
    num_sources: Annotated[int, typer.Option(min=1, help="Sources in each of them.")] = 2,
    steps: Steps = None,
    guidance: Guidance = None,
    presence_threshold: PresenceThreshold = None,
    closed_set: Annotated[
        bool, typer.Option("--closed-set", help="Let models give no labels but those of the dataset.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Of the mixtures and of the pictures.")] = 0,
    batch_size: BatchSize = 4,
    image_size: ImageSize = 128,
    top_k: TopK = None,
    draw: Draw = True,
    device: Device = None,
) -> None:
    """Compare systems on the same soundscapes. Measures CRS, R@K*, separation and more, with intervals."""
    with bad_input_exits(), new_folder(out):
        if judge is None and (draw or images):
            raise ValueError("pictures need a --judge; use --no-draw to evaluate only which sources are found.")
        check_number("--guidance", guidance, 0.0, MAX_GUIDANCE)
        check_number("--presence-threshold", presence_threshold, 0.0, 1.0)
        check_sources(data, judge, lora)
        check_files(manifest)
        for folder in images or []:
            check_is_folder(Path(folder.partition("=")[2] or folder))
        if model is not None:
            locate(model)
        elif not (baseline or images or lora):
            raise ValueError("there is nothing to evaluate: give a --model, a --baseline or --images.")

        def load() -> "EvaluationSet":
            from ..evaluation import load_evaluation_set

            drawn = (split, num_mixtures, num_sources, seed, image_size)
            return load_evaluation_set(data, out, manifest, *drawn, layout, columns)

        systems = Systems(model, lora, baseline or [], ablate or [], images or [])
        how = Drawn(steps, guidance, presence_threshold, seed, draw, closed_set, batch_size, top_k)
        compare(load, systems, how, judge, out, device)
