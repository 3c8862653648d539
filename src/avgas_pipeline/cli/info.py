"""`avgas info`: what a checkpoint is made of."""

import typer

from ..loaders.folders import locate, lora_of_run
from ..printable import printable
from .checks import bad_input_exits
from .models import load_pipeline
from .options import ModelArgument


def info(model: ModelArgument) -> None:
    """Print what a checkpoint is made of."""
    with bad_input_exits():
        locate(model)
        pipe = load_pipeline(model, "cpu", None, with_own_lora=False)
    separator = pipe.separator
    height, width = pipe.default_size or ("?", "?")
    typer.echo(f"model       {model}")
    for name, part in sorted(pipe.components.items()):
        size = f" {part.num_parameters() / 1e6:8.2f} M parameters" if hasattr(part, "num_parameters") else ""
        typer.echo(f"  {name:<26}{type(part).__name__ if part is not None else '-':<28}{size}".rstrip())
    typer.echo(f"images      {width} x {height} pixels")
    if (own_lora := lora_of_run(model)) is not None:
        typer.echo(f"LoRA        {own_lora}, which `avgas generate` loads")
    config = pipe.config
    typer.echo(f"sampling    {config.default_num_inference_steps} steps, guidance {config.default_guidance_scale:g}")
    typer.echo(f"audio       {pipe.sampling_rate} Hz, windows of {pipe.window_s:.2f} s")
    if config.speed_variation:
        typer.echo(f"encoded     as it is, and {100 * config.speed_variation:g} % slower and faster")
    typer.echo(f"sources     up to {separator.config.num_slots} at once")
    if separator.config.num_tags:
        tagger = "the tagger" if pipe.tagger is not None else "the audio encoder's own classifier"
        typer.echo(f"tags        {separator.config.num_tags}, of {tagger}")
    if config.label_threshold:
        typer.echo(f"unknown     sounds whose label has a probability below {config.label_threshold:g}")
    labels = [label for number, label in separator.id2label.items() if number != separator.unknown_index]
    typer.echo(f"labels      {len(labels)}: {'; '.join(map(printable, labels))}")
