"""Systems compared on soundscapes: what `avgas evaluate` and `avgas benchmark` do alike."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..loaders.folders import lora_of_run
from ..notices import quieten
from ..printable import printable
from .models import asking_hub, check_device


if TYPE_CHECKING:
    from accelerate import PartialState

    from ..evaluation import DrawingSettings, ImageFolderSystem, PipelineSystem
    from ..evaluation.soundscapes import EvaluationSet
    from ..metrics import Judge as LoadedJudge


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
        top_k (`int`, *optional*): K of R@K*; each soundscape's own number of labels if not given.
    """

    steps: int | None
    guidance: float | None
    presence_threshold: float | None
    seed: int
    draw: bool
    closed_set: bool = False
    batch_size: int = 4
    top_k: int | None = None


@dataclass
class Known:
    """
    What those who take part know, by what to call them.

    Attributes:
        labels (`Mapping`): The labels that each knows, the judge too.
        recordings (`Mapping`): What each was trained on, by where it comes from; `None` where it does not say.
    """

    labels: Mapping[str, Collection[str]]
    recordings: Mapping[str, Mapping[str, Collection[str]] | None]


def compare(
    load: "Callable[[], EvaluationSet]",
    systems: Systems,
    how: Drawn,
    judge: str | None,
    out: Path,
    device: str | None,
) -> None:
    """
    Load the soundscapes, then what draws and judges them, evaluate, and print the report.

    Args:
        load (`Callable`): Gives the soundscapes. Of several processes the first one loads alone, which may write.
        systems ([`Systems`]): Which are compared.
        how ([`Drawn`]): How they draw.
        judge (`str`, *optional*): Of pictures.
        out (`Path`): The report's folder.
        device (`str`, *optional*): Where all of it runs.

    Raises:
        ValueError: If anything that was given does not fit.
    """
    state, target = _begin(device)
    dataset = _loaded(load, state)
    referee = _load_judge(judge, dataset.labels, dataset.occurring_labels, target)
    settings = _settings(how, tuple(dataset.occurring_labels) if how.closed_set else None)
    built = _build(systems, how, settings, target, len(dataset), dataset.has_stems)
    _evaluate(built, dataset, referee, out, settings, how, state)


def compare_on_recordings(
    load: "Callable[[Known], EvaluationSet]",
    labels: Sequence[str],
    systems: Systems,
    how: Drawn,
    judge: str | None,
    out: Path,
    device: str | None,
) -> None:
    """
    As [`compare`], but what draws and judges is loaded before the recordings, which may take hours to decode.

    Args:
        load (`Callable`): Gives the soundscapes. It is told what systems and judge know.
        labels (`Sequence[str]`): The recordings' vocabulary.
        systems, how, judge, out, device: As of [`compare`].

    Raises:
        ValueError: If anything that was given does not fit.
    """
    state, target = _begin(device)

    from ..evaluation import known_labels, known_recordings

    referee = _load_judge(judge, labels, (), target)
    settings = _settings(how)
    built = _build(systems, how, settings, target)
    with asking_hub(str(systems.model)):
        known = Known(known_labels(built, referee), known_recordings(built))
    dataset = _loaded(lambda: load(known), state)
    _evaluate(built, dataset, referee, out, settings, how, state)


def _begin(device: str | None) -> "tuple[PartialState, str]":
    """The processes, and where this one computes."""
    quieten()

    import torch

    from ..evaluation.processes import shared_state

    if device is not None:
        check_device(device)
    # Several processes without an accelerator are found only if asked for.
    state = shared_state(cpu=device == "cpu" or not torch.accelerator.is_available())
    if state.num_processes > 1 and state.is_main_process:
        typer.echo(f"avgas: {state.num_processes} processes share the drawing.", err=True)
    return state, device or str(state.device)


def _loaded(load: "Callable[[], EvaluationSet]", state: "PartialState") -> "EvaluationSet":
    from ..evaluation.processes import first_process_alone

    loaded: list[EvaluationSet] = []
    first_process_alone(state, lambda: loaded.append(load()))
    return loaded[0] if loaded else load()


def _load_judge(judge: str | None, labels: Sequence[str], needed: Sequence[str], device: str) -> "LoadedJudge | None":
    from ..metrics import load_judge

    if judge is None:
        return None
    with asking_hub(judge):
        return load_judge(judge, labels, device, needed)


def _settings(how: Drawn, closed_set: tuple[str, ...] | None = None) -> "DrawingSettings":
    from ..evaluation import DrawingSettings

    return DrawingSettings(how.steps, how.guidance, how.presence_threshold, how.seed, how.draw, closed_set)


def _build(
    systems: Systems,
    how: Drawn,
    settings: "DrawingSettings",
    device: str,
    num_soundscapes: int = 0,
    has_stems: bool = False,
) -> "list[PipelineSystem | ImageFolderSystem]":
    from ..evaluation import build_systems

    given = {"num_inference_steps": how.steps, "guidance_scale": how.guidance}
    return build_systems(
        systems.model,
        systems.baseline,
        systems.ablate,
        systems.images,
        settings,
        device,
        num_soundscapes,
        has_stems,
        systems.lora or (None if systems.model is None else lora_of_run(systems.model)),
        {name: value for name, value in given.items() if value is not None},
    )


def _evaluate(
    built: "list[PipelineSystem | ImageFolderSystem]",
    dataset: "EvaluationSet",
    judge: "LoadedJudge | None",
    out: Path,
    settings: "DrawingSettings",
    how: Drawn,
    state: "PartialState",
) -> None:
    from ..evaluation import evaluate
    from ..evaluation.columns import table_columns
    from ..evaluation.report import short_table

    report = evaluate(built, dataset, judge, out, settings, how.batch_size, how.top_k)
    if state.is_main_process:
        for line in short_table(report, table_columns(report["settings"]["top_k"])):
            typer.echo(printable(line))
        typer.echo(printable(f"-> {out / 'report.md'}, which has all of it, with intervals"))
