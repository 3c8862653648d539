"""Systems compared on soundscapes: what `avgas evaluate` and `avgas benchmark` do alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..loaders.folders import lora_of_run
from ..notices import quieten
from ..printable import printable
from .models import asking_hub, check_device


if TYPE_CHECKING:
    from ..evaluation.soundscapes import EvaluationSet


@dataclass
class Systems:
    """
    Which systems are compared.

    Attributes:
        model, lora (`str`, *optional*): Checkpoint, and LoRA weights of it.
        baseline, ablate, images (`Sequence[str]`): Others, as `NAME=WHERE`.
    """

    model: str | None
    lora: str | None = None
    baseline: Sequence[str] = ()
    ablate: Sequence[str] = ()
    images: Sequence[str] = ()


@dataclass
class Drawn:
    """
    How they draw.

    Attributes:
        steps, guidance: What is given; the checkpoint's if not.
        presence_threshold (`float`, *optional*): From which probability on a source is present.
        seed (`int`): Of the pictures.
        draw (`bool`): Whether to draw at all.
        closed_set (`bool`): Whether models give no labels but those of the data.
        batch_size (`int`): Soundscapes at a time.
        top_k (`int`, *optional*): K of R@K*.
    """

    steps: int | None
    guidance: float | None
    presence_threshold: float | None
    seed: int
    draw: bool
    closed_set: bool = False
    batch_size: int = 4
    top_k: int | None = None


def compare(
    load: "Callable[[], EvaluationSet]",
    systems: Systems,
    how: Drawn,
    judge: str | None,
    out: Path,
    device: str | None,
) -> None:
    """
    Load the soundscapes, evaluate, and print the report. Of several processes the first one loads alone, which may
    write.

    Raises:
        ValueError: If anything that was given does not fit.
    """
    quieten()

    import torch
    from accelerate import PartialState

    from ..evaluation import DrawingSettings, build_systems, evaluate
    from ..evaluation.columns import table_columns
    from ..evaluation.processes import first_process_alone
    from ..evaluation.report import short_table
    from ..metrics import load_judge

    if device is not None:
        check_device(device)
    # Several processes without an accelerator are found only if asked for.
    state = PartialState(cpu=device == "cpu" or not torch.accelerator.is_available())
    target = device or str(state.device)
    if state.num_processes > 1 and state.is_main_process:
        typer.echo(f"avgas: {state.num_processes} processes share the drawing.", err=True)
    loaded: list[EvaluationSet] = []
    first_process_alone(state, lambda: loaded.append(load()))
    dataset = loaded[0] if loaded else load()
    referee = None
    if judge is not None:
        with asking_hub(judge):
            referee = load_judge(judge, dataset.labels, target)
    given = {"num_inference_steps": how.steps, "guidance_scale": how.guidance}
    sampling = {name: value for name, value in given.items() if value is not None}
    labels = tuple(dataset.labels) if how.closed_set else None
    settings = DrawingSettings(how.steps, how.guidance, how.presence_threshold, how.seed, how.draw, labels)
    own_lora = None if systems.model is None else lora_of_run(systems.model)
    built = build_systems(
        systems.model,
        systems.baseline,
        systems.ablate,
        systems.images,
        dataset,
        settings,
        target,
        systems.lora or own_lora,
        sampling,
    )
    report = evaluate(built, dataset, referee, out, settings, how.batch_size, how.top_k)
    if state.is_main_process:
        for line in short_table(report, table_columns(report["settings"]["top_k"])):
            typer.echo(printable(line))
        typer.echo(printable(f"-> {out / 'report.md'}, which has all of it, with intervals"))
