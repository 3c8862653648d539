"""`avgas evaluate`: systems compared on the same soundscapes."""

from pathlib import Path
from typing import Annotated

import typer

from ..loaders.folders import locate
from ..printable import printable
from .checks import bad_input_exits, check_files, check_is_folder, check_number, check_sources, new_folder
from .models import check_device, quieten
from .options import MAX_GUIDANCE, MAX_SEED, Columns, DataLayout, Device, Guidance, Steps


def evaluate(
    data: Annotated[str, typer.Option(help="Dataset (folder or Hub repository), or .jsonl file of recordings.")],
    out: Annotated[Path, typer.Option(help="Folder for the report. Run again to go on after an interruption.")],
    judge: Annotated[
        str | None, typer.Option(help="Image classifier or CLIP: a folder or a Hub repository. Needed for pictures.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Checkpoint: a folder or a Hub repository.")] = None,
    lora: Annotated[
        str | None, typer.Option(help="LoRA weights of the model: a folder, file or Hub repository.")
    ] = None,
    images: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FOLDER", help="Images drawn elsewhere: 00000.png, 00000-1.png …")
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[=MODEL]", help="oracle, prompts, single-embedding or paper. Can be given again."),
    ] = None,
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
    presence_threshold: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help="From which probability on a source is present; the expected number if not given."
        ),
    ] = None,
    closed_set: Annotated[
        bool, typer.Option("--closed-set", help="Let models give no labels but those of the dataset.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Of the mixtures and of the pictures.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Soundscapes drawn at a time.")] = 4,
    image_size: Annotated[int, typer.Option(min=8, max=4096, help="Side of the real pictures to compare with.")] = 128,
    top_k: Annotated[int | None, typer.Option(min=1, help="K of R@K*; the most sources if not given.")] = None,
    draw: Annotated[
        bool, typer.Option("--draw/--no-draw", help="Whether to draw, or only to find the sources.")
    ] = True,
    device: Device = None,
) -> None:
    """Compare systems on the same soundscapes. Measures CRS, R@K*, separation and more, with intervals."""
    with bad_input_exits(), new_folder(out):
        if judge is None and (draw or images):
            raise ValueError("pictures need a --judge; use --no-draw to evaluate only which sources are found.")
        check_number("--guidance (guidance_scale)", guidance, 0.0, MAX_GUIDANCE)
        check_number("--presence-threshold", presence_threshold, 0.0, 1.0)
        check_sources(data, judge, lora)
        check_files(manifest)
        for folder in images or []:
            check_is_folder(Path(folder.partition("=")[2] or folder))
        if model is not None:
            locate(model)
        quieten()

        import torch
        from accelerate import PartialState

        from ..evaluation import DrawingSettings, build_systems, load_evaluation_set
        from ..evaluation import evaluate as run
        from ..metrics import load_judge

        if device is not None:
            check_device(device)
        # Several processes without an accelerator are found only if asked for.
        state = PartialState(cpu=device == "cpu" or not torch.accelerator.is_available())
        target = device or str(state.device)
        if state.num_processes > 1 and state.is_main_process:
            typer.echo(f"avgas: {state.num_processes} processes share the drawing.", err=True)
        dataset = load_evaluation_set(
            data, out, manifest, split, num_mixtures, num_sources, seed, image_size, layout, columns
        )
        referee = None if judge is None else load_judge(judge, dataset.labels, target)
        given = {"num_inference_steps": steps, "guidance_scale": guidance}
        sampling = {name: value for name, value in given.items() if value is not None}
        steps, guidance = _sampling(model, steps, guidance)
        labels = tuple(dataset.labels) if closed_set else None
        settings = DrawingSettings(steps, guidance, presence_threshold, seed, draw, labels)
        systems = build_systems(
            model, baseline or [], ablate or [], images or [], dataset, settings, target, lora, sampling
        )
        run(systems, dataset, referee, out, settings, batch_size, top_k)
        if state.is_main_process:
            for line in (out / "report.md").read_text(encoding="utf-8").split("\n"):
                typer.echo(printable(line))
            typer.echo(printable(f"-> {out / 'report.md'}"))


def _sampling(model: str | None, steps: int | None, guidance: float | None) -> tuple[int, float]:
    """Steps and guidance that were given, or else those of the checkpoint."""
    from ..pipeline_avgas import AVGASPipeline
    from ..settings import DEFAULT_SETTINGS

    config = DEFAULT_SETTINGS if model is None else {**DEFAULT_SETTINGS, **AVGASPipeline.load_config(locate(model))}
    steps = config["default_num_inference_steps"] if steps is None else steps
    return steps, config["default_guidance_scale"] if guidance is None else guidance
