"""`avgas generate`: recordings drawn, and what was drawn written to a folder each."""

import math
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..loaders.folders import DEFAULT_CHECKPOINT, locate, lora_of_run
from ..loaders.phrases import DEFAULT_STYLE
from ..printable import printable
from .checks import (
    BAD_INPUT,
    bad_input_exits,
    check_files,
    check_number,
    check_painter,
    check_sources,
    new_folder,
    one_line,
)
from .models import asking_hub, load_pipeline, load_text_to_image
from .options import (
    MAX_GUIDANCE,
    MAX_WEIGHT,
    SIZE,
    AudioTrack,
    Device,
    DType,
    Guidance,
    MaxDuration,
    Painter,
    Seed,
    Steps,
    Style,
)
from .recordings import RecordingArgument, recording_arguments, result_folders


# How the pipeline's messages call a recording that is alone, and its name of what it does not know.
ONLY_SOUNDSCAPE, UNKNOWN_SOUND = "Soundscape 0", "unknown sound"

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from ..pipeline_avgas import AVGASPipeline
    from ..pipeline_output import SoundSource


def generate(
    audio: Annotated[
        list[str],
        typer.Argument(help="Audio or video files, or folders of them; - for standard input.", show_default=False),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the results; several files get a folder each.")
    ] = Path("out"),
    model: Annotated[str, typer.Option(help="Checkpoint: a folder or a Hub repository.")] = DEFAULT_CHECKPOINT,
    lora: Annotated[str | None, typer.Option(help="LoRA weights to add: a folder, file or Hub repository.")] = None,
    separate: Annotated[bool, typer.Option("--separate", help="Draw each source alone, too.")] = False,
    steps: Steps = None,
    guidance: Guidance = None,
    height: Annotated[int | None, typer.Option(min=8, max=8192, help=SIZE)] = None,
    width: Annotated[int | None, typer.Option(min=8, max=8192, help=SIZE)] = None,
    seed: Seed = 0,
    num_images: Annotated[int, typer.Option(min=1, max=1000, help="Pictures of each kind.")] = 1,
    num_sources: Annotated[
        int | None, typer.Option(min=1, help="How many sources to draw; as many as are present if not given.")
    ] = None,
    draw_unknown: Annotated[
        bool, typer.Option("--draw-unknown", help="Draw unknown sounds, too, as what they are most like.")
    ] = False,
    weight: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL=W", help="How large a source is: dog-barking=0.5; 0 leaves it out."),
    ] = None,
    negative_audio: Annotated[str | None, typer.Option(help="Recording of what pictures should not show.")] = None,
    prompt: Annotated[str | None, typer.Option(help="Text to add, if the model has a text encoder.")] = None,
    painter: Painter = None,
    style: Style = None,
    offload: Annotated[
        bool, typer.Option("--offload", help="Keep on the accelerator only what is at work, to save its memory.")
    ] = False,
    model_rate: Annotated[
        bool, typer.Option("--model-rate", help="Write separated audio as the model hears: mono, at its rate.")
    ] = False,
    max_batch_rows: Annotated[
        int | None, typer.Option(min=1, help="Most pictures to draw at a time, to save memory; all if not given.")
    ] = None,
    audio_track: AudioTrack = None,
    max_duration: MaxDuration = 3600.0,
    device: Device = None,
    dtype: Annotated[DType, typer.Option(help="Data type of the models.")] = DType.float32,
) -> None:
    """Draw recordings. Each has a mixed picture, and with --separate one for each source, with its sound."""
    with bad_input_exits(), new_folder(out):
        weights = _parse_weights(weight or [])
        check_number("--guidance", guidance, 0.0, MAX_GUIDANCE)
        check_number("--max-duration", max_duration, 1e-3, math.inf)
        recordings = recording_arguments(audio)
        check_files(negative_audio)
        check_sources(lora)
        locate(model)
        check_painter(painter, style)
        if painter is not None:
            refused = {"--prompt": prompt, "--negative-audio": negative_audio, "--lora": lora}
            for option, value in refused.items():
                if value is not None:
                    raise ValueError(f"{option} does not go with --painter, which is told what is heard in words.")
        typer.echo(printable(f"avgas: loading {model}"), err=True)
        pipe = load_pipeline(model, device, dtype, offload, with_own_lora=lora is None)
        weights = _by_label(weights, pipe.separator.id2label.values())
        if lora is not None:
            with asking_hub(lora):
                pipe.load_lora_weights(lora)
        call = {
            "separate": separate,
            "num_images_per_prompt": num_images,
            "num_sources": num_sources,
            "draw_unknown": draw_unknown,
            "source_weights": weights,
            "audio_track": audio_track,
            "model_rate": model_rate,
            "max_batch_rows": max_batch_rows,
        }
        if painter is None:
            steps = pipe.config.default_num_inference_steps if steps is None else steps
            guidance = pipe.config.default_guidance_scale if guidance is None else guidance
            call |= {"negative_audio": negative_audio, "prompt": prompt}
        else:
            call |= {"painter": load_text_to_image(painter, device, dtype, offload), "style": style or DEFAULT_STYLE}
        sampling = {"num_inference_steps": steps, "guidance_scale": guidance, "height": height, "width": width}
        # What is not given is as the painter has it.
        call |= {name: value for name, value in sampling.items() if value is not None}
        settings = {"model": model, "lora": lora or lora_of_run(model), "seed": seed}
        settings |= {"steps": steps, "guidance": guidance}
        settings["weights"] = weights or {}
        if painter is not None:
            settings |= {"painter": painter, "style": call["style"]}

        failures: list[str] = []
        for recording, folder in zip(recordings, result_folders(recordings, out), strict=True):
            try:
                sources = _generate_one(pipe, recording, folder, seed, settings, max_duration, **call)
            except BAD_INPUT as error:
                if len(recordings) == 1:
                    raise
                failures.append(one_line(error))
                typer.echo(f"avgas: skipped: {failures[-1]}", err=True)
                continue
            found = ", ".join(
                f"{'perhaps ' * source.is_doubtful}{source.name} {source.certainty:.2f}" for source in sources
            )
            typer.echo(printable(f"{recording.name}: {found} -> {folder / 'overview.png'}"))
        if failures:
            typer.echo(f"avgas: {len(failures)} of {len(recordings)} files failed:", err=True)
            for failure in failures:
                typer.echo(f"  {failure}", err=True)
            raise typer.Exit(2)


def _generate_one(
    pipe: "AVGASPipeline",
    recording: RecordingArgument,
    folder: Path,
    seed: int,
    settings: dict[str, Any],
    max_duration_s: float,
    audio_track: int | None,
    model_rate: bool,
    painter: "DiffusionPipeline | None" = None,
    **call: Any,
) -> "list[SoundSource]":
    import torch
    from accelerate.utils.memory import should_reduce_batch_size

    from ..audio.loading import Recording, load_audio
    from ..audio.original import plain_track
    from ..results.outputs import INDEX, save_results

    waveform = load_audio(
        recording.source(),
        target_sampling_rate=pipe.sampling_rate,
        max_duration_s=max_duration_s,
        name=recording.name,
        audio_track=audio_track,
    )
    # Generators on the CPU give the same noise on every device.
    generators = [torch.Generator().manual_seed(seed + number) for number in range(call["num_images_per_prompt"])]
    title = printable(recording.path.name)
    (painter or pipe).set_progress_bar_config(desc=title, file=sys.stderr)
    audio = Recording(recording.name, waveform, pipe.sampling_rate)
    if (folder / INDEX).exists():
        typer.echo(printable(f"avgas: {folder}: replaces what was drawn there before."), err=True)
    try:
        call |= {"max_duration_s": max_duration_s, "generator": generators}
        with _named(recording.name):
            output = pipe(audio, **call) if painter is None else pipe.paint(audio, painter, **call)
    except (RuntimeError, MemoryError) as error:
        is_memory = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or should_reduce_batch_size(error)
        if not is_memory:
            raise
        raise ValueError(f"{recording.name}: not enough memory on {pipe.device}.") from None
    settings = {"audio": str(recording.path), **settings}
    if output.prompts is not None:
        settings["prompt"] = output.prompts[0]
    given = call["source_weights"] or {}
    weights = [given.get(source.name, 1.0) for source in output.sources[0]]
    id2label = pipe.separator.id2label
    track = None
    if not model_rate and not recording.is_standard_input:
        track = plain_track(recording.argument, audio_track, len(waveform) / pipe.sampling_rate)
    save_results(output, waveform, pipe.sampling_rate, folder, title, settings, id2label, weights, track)
    return output.sources[0]


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Errors and warnings name the recording, where the pipeline counts its soundscapes."""
    with warnings.catch_warnings(record=True) as caught:
        try:
            yield
        except ValueError as error:
            raise ValueError(str(error).replace(ONLY_SOUNDSCAPE, name)) from None
    for warning in caught:
        warnings.warn(str(warning.message).replace(ONLY_SOUNDSCAPE, name), stacklevel=2)


def _by_label(weights: dict[str, float] | None, labels: Iterable[str]) -> dict[str, float] | None:
    """Weights by labels as the model has them, where files spell them otherwise."""
    if weights is None:
        return None

    from ..data.vocabulary import nearest_labels
    from ..results.outputs import slug

    labels = [*labels, UNKNOWN_SOUND]
    spelt = {slug(label): label for label in labels} | {label: label for label in labels}
    found = {}
    for label, value in weights.items():
        name = spelt.get(label, spelt.get(slug(label)))
        if name is None:
            raise ValueError(f"--weight {label}: the model has no such label{nearest_labels(label, labels)}.")
        found[name] = value
    return found


def _parse_weights(pairs: list[str]) -> dict[str, float] | None:
    weights = {}
    for pair in pairs:
        label, separator, number = pair.rpartition("=")
        try:
            weights[label.strip()] = float(number)
        except ValueError:
            separator = ""
        if not separator or not label.strip():
            raise ValueError(f"--weight {pair!r}: has to be LABEL=NUMBER, such as 'raining=0.5'.")
        if not 0 <= weights[label.strip()] <= MAX_WEIGHT:
            raise ValueError(f"--weight {pair!r}: the weight has to be finite, from 0 to {MAX_WEIGHT:g}.")
    return weights or None
