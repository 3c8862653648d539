"""How a run ends: a pipeline's folder with a card of the run's settings, numbers, curves and pictures; its upload."""

import json
from dataclasses import asdict, fields
from pathlib import Path

from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from huggingface_hub import HfApi

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.files import write_text
from avgas_pipeline.loaders.model_card import create_model_card

from .curves import draw_curves
from .run import Run
from .settings import default_of


CURVES = "curves.png"
# Of a run's folder, what only going on needs.
PRIVATE = ["checkpoint-*", ".partial-*", "cache/*", "logs/*"]


def create_repo(run: Run) -> str | None:
    """
    The Hub repository that the result will be published to, if the run's settings say so; `None` in other processes.
    Asked for before the first step, or missing rights would be found out after the last one.
    """
    settings = run.settings
    if not settings.push_to_hub or not run.accelerator.is_main_process:
        return None
    name = settings.hub_model_id or Path(settings.output_dir).name
    return HfApi().create_repo(name, exist_ok=True).repo_id


def finish(run: Run, pipe: AVGASPipeline, script: str, repo_id: str | None, drawn: str = "") -> None:
    """
    Write the card of a run's result, and publish the result with its card, its LoRA layers and its pictures, and
    without its checkpoints.

    Args:
        run ([`Run`]): That ends.
        pipe ([`AVGASPipeline`]): Its result.
        script (`str`): Name of the training script.
        repo_id (`str`, *optional*): Of [`create_repo`]; without it nothing is published.
        drawn (`str`, *optional*): What the pictures drawn in training show, as a sentence.
    """
    out = Path(run.settings.output_dir)
    write_card(run, pipe, script, repo_id or out.name, drawn)
    if repo_id is not None:
        HfApi().upload_folder(
            repo_id=repo_id, folder_path=out, ignore_patterns=PRIVATE, commit_message="Training result"
        )


def write_card(run: Run, pipe: AVGASPipeline, script: str, name: str, drawn: str = "") -> None:
    """
    The model card of a run's result: how it was trained, what was measured last, curves, and the last grid of pictures
    if there is one. The settings and the last measurements are also written to `training.json`.
    """
    out = Path(run.settings.output_dir)
    curves = run.curves.read()
    if curves:
        draw_curves(curves, out / CURVES)
    values = {key: list(points.values())[-1] for key, points in curves.items() if key != "lr"}
    write_text(out / "training.json", json.dumps({"settings": asdict(run.settings), "last": values}, indent=2))
    text = training_section(run, script, values, bool(curves), drawn)
    create_model_card(pipe, name, training=text).save(out / "README.md")


def training_section(run: Run, script: str, values: dict[str, float], has_curves: bool, drawn: str) -> str:
    """What the card says of the run, as Markdown."""
    settings, fixed = run.settings, run.fixed_settings
    changed = {
        field.name: fixed[field.name]
        for field in fields(settings)
        if field.name in fixed and fixed[field.name] != default_of(field)
    }
    device = run.accelerator.device.type
    lines = [
        f"Trained with `training/{script}` on `{settings.dataset}`: {settings.max_train_steps} steps of"
        f" {run.examples_per_step} examples, in {run.accelerator.num_processes} process(es) on {device}.",
        "",
        "Settings other than the script's defaults: "
        + ("; ".join(f"`{name}` {json.dumps(value)}" for name, value in changed.items()) or "none")
        + ".",
        "",
    ]
    if values:
        lines += ["| at the end | value |", "|---|---|"]
        lines += [f"| {name} | {value:.4f} |" for name, value in values.items()] + [""]
    if has_curves:
        lines += [f"![Curves of the training]({CURVES})", ""]
    grids = sorted(Path(settings.output_dir).glob("validation-*.png"), key=lambda path: int(path.stem.split("-")[1]))
    if grids:
        lines += [
            drawn,
            "",
            f"![Pictures drawn in training]({grids[-1].name})",
            "",
        ]
    with_lora = (Path(settings.output_dir) / LORA_WEIGHT_NAME_SAFE).exists()
    lines.append(
        "Draw with `avgas generate recording.wav --model FOLDER`, and evaluate with `avgas evaluate --model FOLDER`."
        + (" Both load the LoRA that lies in the folder." if with_lora else "")
    )
    return "\n".join(lines)
