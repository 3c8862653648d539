"""How a run ends: a pipeline's folder with a card of the run's settings, numbers, curves and pictures; its upload."""

import json
from dataclasses import asdict, fields
from pathlib import Path

from config import default_of
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from huggingface_hub import HfApi
from matplotlib.figure import Figure
from run import Run

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.loaders.model_card import create_model_card


CURVES = "curves.png"
# Of a run's folder, what only going on needs.
PRIVATE = ["checkpoint-*", ".checkpoint-*", "cache/*", "logs/*"]


def write_card(run: Run, pipe: AVGASPipeline, script: str) -> None:
    """
    The model card of a run's result: how it was trained, what was measured last, curves, and the last grid of pictures
    if there is one.

    Args:
        run ([`Run`]): That ends.
        pipe ([`AVGASPipeline`]): Its result.
        script (`str`): Name of the training script.
    """
    out = Path(run.config.output_dir)
    curves = run.read_curves()
    if curves:
        draw_curves(curves, out / CURVES)
    values = {name: list(points.values())[-1] for name, points in curves.items() if name != "lr"}
    (out / "training.json").write_text(json.dumps({"settings": asdict(run.config), "last": values}, indent=2))
    text = training_section(run, script, values, bool(curves))
    create_model_card(pipe, run.repo_id or out.name, training=text).save(out / "README.md")


def training_section(run: Run, script: str, values: dict[str, float], has_curves: bool) -> str:
    """What the card says of the run, as Markdown."""
    config = run.config
    changed = {
        field.name: getattr(config, field.name)
        for field in fields(config)
        if field.name in run.settings and getattr(config, field.name) != default_of(field)
    }
    device = run.accelerator.device.type
    lines = [
        f"Trained with `training/{script}` on `{config.dataset}`: {config.max_train_steps} steps of"
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
    grids = sorted(Path(config.output_dir).glob("validation-*.png"), key=lambda path: int(path.stem.split("-")[1]))
    if grids:
        lines += [
            "Real picture, mixed image and separated images of mixtures of known clips, drawn with fixed seeds:",
            "",
            f"![Pictures drawn in training]({grids[-1].name})",
            "",
        ]
    options = "--model FOLDER"
    if (Path(config.output_dir) / LORA_WEIGHT_NAME_SAFE).exists():
        options += " --lora FOLDER"
    return "\n".join([*lines, f"Evaluate it with `avgas evaluate {options}`."])


def draw_curves(curves: dict[str, dict[int, float]], path: Path) -> None:
    """One small plot per name."""
    columns = min(len(curves), 4)
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(3 * columns, 2.2 * rows), layout="constrained")
    for axes, (name, points) in zip(figure.subplots(rows, columns, squeeze=False).flat, curves.items(), strict=False):
        axes.plot(list(points), list(points.values()), linewidth=0.8)
        axes.set_title(name, fontsize=8)
        axes.tick_params(labelsize=7)
    for axes in figure.axes[len(curves) :]:
        axes.remove()
    figure.savefig(path, dpi=100)


def publish(run: Run) -> None:
    """Upload a run's result with its card, its LoRA layers and its pictures, and without its checkpoints."""
    out = Path(run.config.output_dir)
    HfApi().upload_folder(
        repo_id=run.repo_id, folder_path=out, ignore_patterns=PRIVATE, commit_message="Training result"
    )


def finish(run: Run, pipe: AVGASPipeline, script: str) -> None:
    """Write the card, and publish the result if the run's settings say so."""
    write_card(run, pipe, script)
    if run.config.push_to_hub:
        publish(run)
