"""The command line: `avgas generate`, `info`, `export-remote-code`, `prepare`, `evaluate`, `study`."""

import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer


if TYPE_CHECKING:
    from ..pipeline_avgas import AVGASPipeline
    from ..pipeline_output import SoundSource


app = typer.Typer(
    name="avgas",
    help="See what a soundscape sounds like.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

# What bad input raises; anything else is a fault of ours and shows its traceback.
_BAD_INPUT = (ValueError, OSError)
# Which extra brings a library that not everybody needs.
_EXTRAS = {"datasets": "eval", "gradio": "demo", "ray": "ray", "torchmetrics": "eval"}


# Pictures of one call count on from it, in 64 bits.
_MOST_SEED = 2**62

_STEPS_HELP = "Denoising steps; as many as the checkpoint says if not given."
_GUIDANCE_HELP = "Weight of classifier-free guidance; what the checkpoint says if not given."


class DType(str, Enum):
    """Data types a model can be loaded as."""

    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


@app.command()
def generate(
    audio: Annotated[list[Path], typer.Argument(help="Audio or video files.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for the results; several files get a folder each.")],
    model: Annotated[str, typer.Option(help="Checkpoint: a folder or a Hub repository.")] = "avgas-mini",
    lora: Annotated[str | None, typer.Option(help="LoRA weights to add: a folder, file or Hub repository.")] = None,
    separate: Annotated[bool, typer.Option("--separate", help="Draw each source alone, too.")] = False,
    steps: Annotated[int | None, typer.Option(min=1, help=_STEPS_HELP)] = None,
    guidance: Annotated[float | None, typer.Option(help=_GUIDANCE_HELP)] = None,
    seed: Annotated[int, typer.Option(min=0, max=_MOST_SEED, help="Same seed, same pictures.")] = 0,
    num_images: Annotated[int, typer.Option(min=1, help="Pictures of each kind.")] = 1,
    num_sources: Annotated[
        int | None, typer.Option(min=1, help="How many sources to draw; as many as are present if not given.")
    ] = None,
    weight: Annotated[
        list[str] | None, typer.Option(metavar="LABEL=W", help="How strongly a source shows; 0 leaves it out.")
    ] = None,
    negative_audio: Annotated[Path | None, typer.Option(help="Sound to lead away from.")] = None,
    prompt: Annotated[str | None, typer.Option(help="Text to add, if the model has a text encoder.")] = None,
    max_duration: Annotated[float, typer.Option(help="Longest recording accepted, in seconds.")] = 3600.0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; the best there is if not given.")] = None,
    dtype: Annotated[DType, typer.Option(help="Data type of the models.")] = DType.float32,
) -> None:
    """Draw recordings: a mixed picture, and with --separate one for each source, with its sound."""
    with _bad_input_exits(), _new_folder(out):
        weights = _parse_weights(weight or [])
        if negative_audio is not None and not negative_audio.exists():
            raise FileNotFoundError(f"{negative_audio}: no such file.")
        pipe = _load(model, device, dtype)
        steps = pipe.config.default_num_inference_steps if steps is None else steps
        guidance = pipe.config.default_guidance_scale if guidance is None else guidance
        if lora is not None:
            pipe.load_lora_weights(lora)

        failures: list[str] = []
        for path, folder in zip(audio, _folders(audio, out), strict=True):
            try:
                sources = _generate_one(
                    pipe,
                    path,
                    folder,
                    # Names need not be UTF-8.
                    title=typer.format_filename(path, shorten=True),
                    seed=seed,
                    settings={"model": model, "lora": lora, "seed": seed, "steps": steps, "guidance": guidance},
                    separate=separate,
                    num_inference_steps=steps,
                    guidance_scale=guidance,
                    num_images_per_prompt=num_images,
                    num_sources=num_sources,
                    source_weights=weights,
                    negative_audio=negative_audio,
                    prompt=prompt,
                    max_duration_s=max_duration,
                )
            except _BAD_INPUT as error:
                if len(audio) == 1:
                    raise
                failures.append(_one_line(error))
                typer.echo(f"avgas: skipped: {failures[-1]}", err=True)
                continue
            heard = ", ".join(f"{source.label} {source.score:.2f}" for source in sources)
            typer.echo(f"{typer.format_filename(path)}: {heard} -> {typer.format_filename(folder / 'overview.png')}")
        if failures:
            typer.echo(f"avgas: {len(failures)} of {len(audio)} files failed:", err=True)
            for failure in failures:
                typer.echo(f"  {failure}", err=True)
            raise typer.Exit(2)


@app.command()
def info(model: Annotated[str, typer.Argument(help="Checkpoint: a folder or a Hub repository.")]) -> None:
    """Print what a checkpoint is made of."""
    with _bad_input_exits():
        pipe = _load(model, "cpu", None)
    separator = pipe.separator
    height, width = pipe.default_size or ("?", "?")
    typer.echo(f"model       {model}")
    for name, part in sorted(pipe.components.items()):
        size = f" {part.num_parameters() / 1e6:8.2f} M parameters" if hasattr(part, "num_parameters") else ""
        typer.echo(f"  {name:<24}{type(part).__name__ if part is not None else '-':<28}{size}".rstrip())
    typer.echo(f"images      {width} x {height} pixels")
    config = pipe.config
    typer.echo(f"sampling    {config.default_num_inference_steps} steps, guidance {config.default_guidance_scale:g}")
    typer.echo(f"audio       {pipe.sampling_rate} Hz, windows of {pipe.window_s:.2f} s")
    if config.speed_variation:
        typer.echo(f"heard       as it is, and {100 * config.speed_variation:g} % slower and faster")
    typer.echo(f"sources     up to {separator.config.num_slots} at once")
    typer.echo(f"labels      {len(separator.id2label)}: {'; '.join(separator.id2label.values())}")


@app.command()
def export_remote_code(
    model: Annotated[str, typer.Argument(help="Checkpoint: a folder or a Hub repository.")],
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
) -> None:
    """Copy a checkpoint with the pipeline's code inside, for people who do not install this package."""
    from ..loaders.remote_code import export_remote_code as export

    with _bad_input_exits():
        export(model, out)
    typer.echo(f"{out}: load it with DiffusionPipeline.from_pretrained(..., trust_remote_code=True)")


@app.command()
def prepare(
    data: Annotated[Path, typer.Argument(help="Folder of videos, or of tar archives of videos.")],
    out: Annotated[Path, typer.Option(help="Folder for the shards.")],
    csv: Annotated[Path | None, typer.Option(help="Annotations; vggsound.csv in the folder if not given.")] = None,
    moments: Annotated[Path | None, typer.Option(help="Best moments (top1_boxes_top10_moments.json).")] = None,
    format: Annotated[str, typer.Option(help="parquet or webdataset.")] = "parquet",
    clips_per_shard: Annotated[int, typer.Option(min=1, help="Clips that go into a shard.")] = 512,
    sampling_rate: Annotated[int, typer.Option(min=1, help="Of the sound, in Hz.")] = 16000,
    image_size: Annotated[int, typer.Option(min=1, help="Longest side of the frame, in pixels.")] = 256,
    engine: Annotated[str, typer.Option(help="local, or ray for a cluster.")] = "local",
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; all cores if not given.")] = None,
) -> None:
    """Turn VGGSound's videos into shards of sound, frame and labels. Run again to go on after an interruption."""
    with _bad_input_exits():
        from ..data.annotations import read_vggsound
        from ..data.prepare import PrepareSettings
        from ..data.prepare import prepare as run

        _check_writable(out)
        settings = PrepareSettings(str(data), format, clips_per_shard, sampling_rate, image_size)
        report = run(read_vggsound(csv or data / "vggsound.csv"), settings, out, moments, engine, workers)
    typer.echo(f"{out}: {report}" + (f", named in {out / 'report.jsonl'}" if report.counts else ""))


@app.command()
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
        typer.Option(metavar="NAME[=MODEL]", help="oracle, single-embedding or paper. Can be given again."),
    ] = None,
    ablate: Annotated[
        list[str] | None, typer.Option(metavar="NAME[=MODEL]", help="no-masks, no-a2a or no-a2v. Can be given again.")
    ] = None,
    manifest: Annotated[Path | None, typer.Option(help="Mixtures to evaluate on; drawn if not given.")] = None,
    split: Annotated[str, typer.Option(help="Of the dataset.")] = "test",
    num_mixtures: Annotated[int, typer.Option(min=1, help="How many mixtures to draw without a manifest.")] = 500,
    num_sources: Annotated[int, typer.Option(min=1, help="Sources in each of them.")] = 2,
    steps: Annotated[int | None, typer.Option(min=1, help=_STEPS_HELP)] = None,
    guidance: Annotated[float | None, typer.Option(help=_GUIDANCE_HELP)] = None,
    presence_threshold: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help="From which probability on a source is present; the expected number if not given."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=_MOST_SEED, help="Of the mixtures and of the pictures.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Soundscapes drawn at a time.")] = 4,
    image_size: Annotated[int, typer.Option(min=8, help="Side of the real pictures to compare with.")] = 128,
    top_k: Annotated[int | None, typer.Option(min=1, help="K of R@K*; the most sources if not given.")] = None,
    draw: Annotated[bool, typer.Option("--draw/--no-draw", help="Whether to draw, or only to hear.")] = True,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps; the best there is if not given.")] = None,
) -> None:
    """Compare systems on the same soundscapes: CRS, R@K*, separation and more, with intervals."""
    with _bad_input_exits():
        import torch
        from accelerate import PartialState

        from ..evaluation import DrawingSettings, build_lineup, load_evaluation_set
        from ..evaluation import evaluate as run
        from ..metrics import load_judge

        _quieten()
        if judge is None and (draw or images):
            raise ValueError("pictures need a --judge; use --no-draw to evaluate only what is heard.")
        _check_writable(out)
        if device is not None:
            _check_device(device)
        # Several processes without an accelerator are found only if asked for.
        state = PartialState(cpu=device == "cpu" or not torch.accelerator.is_available())
        target = device or str(state.device)
        if state.num_processes > 1 and state.is_main_process:
            typer.echo(f"avgas: {state.num_processes} processes share the drawing.", err=True)
        dataset = load_evaluation_set(data, out, manifest, split, num_mixtures, num_sources, seed, image_size)
        referee = None if judge is None else load_judge(judge, dataset.labels, target)
        steps, guidance = _sampling(model, steps, guidance)
        settings = DrawingSettings(steps, guidance, presence_threshold, seed, draw)
        systems = build_lineup(model, baseline or [], ablate or [], images or [], dataset, settings, target, lora)
        run(systems, dataset, referee, out, settings, batch_size, top_k)
        if state.is_main_process:
            typer.echo((out / "report.md").read_text(encoding="utf-8"))
            typer.echo(f"-> {out / 'report.md'}")


@app.command()
def study(
    report: Annotated[Path, typer.Argument(help="Folder that `avgas evaluate` wrote, with two systems or more.")],
    against: Annotated[
        str | None, typer.Option(help="System to compare the first one with; the second if not given.")
    ] = None,
    pairs: Annotated[int, typer.Option(min=1, help="Pairs shown to each rater.")] = 40,
    data: Annotated[str | None, typer.Option(help="The dataset, if it is not where it was.")] = None,
    host: Annotated[str, typer.Option(help="Address to serve on; 0.0.0.0 for the whole network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to serve on.")] = 7860,
    results: Annotated[bool, typer.Option("--results", help="Only print the preference so far.")] = False,
) -> None:
    """Have people compare two systems' pictures of what they hear, blind, on a local page."""
    with _bad_input_exits():
        from ..evaluation.ratings import RATINGS, Comparison, RatingFile, preference

        _quieten()
        compared = Comparison.of_report(report, against)
        if not results:
            from ..evaluation.study import Study, build_page

            page = build_page(Study(report, against, pairs, data))
            try:
                _, url, _ = page.launch(
                    server_name=host, server_port=port, prevent_thread_lock=True, quiet=True, footer_links=[]
                )
                typer.echo(f"{url} compares {compared.ours} with {compared.theirs}; Ctrl-C ends it.")
                threading.Event().wait()
            except KeyboardInterrupt:
                typer.echo("")
            finally:
                page.close()
        ratings = compared.relevant(RatingFile(report / RATINGS).read())
        outcome = preference(ratings, compared.ours, compared.theirs)
        typer.echo(f"{compared.ours} against {compared.theirs}: {outcome}")


def _generate_one(
    pipe: "AVGASPipeline",
    path: Path,
    folder: Path,
    title: str,
    seed: int,
    settings: dict[str, Any],
    max_duration_s: float,
    **call: Any,
) -> "list[SoundSource]":
    import torch

    from ..audio.loading import load_audio
    from .outputs import save_results

    waveform = load_audio(path, target_sampling_rate=pipe.sampling_rate, max_duration_s=max_duration_s)
    # Generators on the CPU give the same noise on every device.
    generators = [torch.Generator().manual_seed(seed + number) for number in range(call["num_images_per_prompt"])]
    pipe.set_progress_bar_config(desc=title, file=sys.stderr)
    audio = {"array": waveform, "sampling_rate": pipe.sampling_rate, "path": str(path)}
    try:
        output = pipe(audio, max_duration_s=max_duration_s, generator=generators, **call)
    except torch.OutOfMemoryError:
        raise ValueError(f"{path}: not enough memory on {pipe.device}.") from None
    save_results(output, waveform, pipe.sampling_rate, folder, title=title, settings={"audio": str(path), **settings})
    return output.sources[0]


def _load(model: str, device: str | None, dtype: DType | None) -> "AVGASPipeline":
    import torch

    from ..pipeline_avgas import AVGASPipeline

    _quieten()
    if device is None:
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        device = "cpu" if accelerator is None else accelerator.type
    _check_device(device)
    options = {} if dtype is None else {"dtype": getattr(torch, dtype.value)}
    return AVGASPipeline.from_pretrained(model, **options).to(device)


def _sampling(model: str | None, steps: int | None, guidance: float | None) -> tuple[int, float]:
    """Steps and guidance that were given, or else those of the checkpoint."""
    from ..loaders.hub import locate
    from ..pipeline_avgas import AVGASPipeline

    config = {} if model is None else AVGASPipeline.load_config(locate(model))
    if steps is None:
        steps = config.get("default_num_inference_steps", 50)
    return steps, config.get("default_guidance_scale", 7.5) if guidance is None else guidance


def _check_device(device: str) -> None:
    import torch

    try:
        torch.zeros(1, device=torch.device(device)).cpu()
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {device}: {_one_line(error)}") from None


def _quieten() -> None:
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for logging in (diffusers_logging, transformers_logging):
        logging.set_verbosity_error()
        logging.disable_progress_bar()


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
    return weights or None


def _folders(audio: list[Path], out: Path) -> list[Path]:
    """Where each file's results go: `out` itself for one file, otherwise a folder named after each."""
    if len(audio) == 1:
        return [out]
    folders: list[Path] = []
    for path in audio:
        # A file called "...wav" has the stem "..".
        stem = path.stem.strip(".") or "recording"
        folder = out / stem
        number = 2
        while folder in folders:
            folder = out / f"{stem}-{number}"
            number += 1
        folders.append(folder)
    return folders


def _check_writable(folder: Path) -> None:
    """Fails now rather than after the pictures are drawn."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise type(error)(f"{folder}: can't write there ({error.strerror}).") from None


@contextmanager
def _new_folder(folder: Path) -> Iterator[None]:
    """A folder for results. If there are none, it goes again, as far as it is new."""
    new = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        _check_writable(folder)
        yield
    except BaseException:
        # Only empty folders can be removed so.
        with suppress(OSError):
            for each in new:
                each.rmdir()
        raise


@contextmanager
def _bad_input_exits() -> Iterator[None]:
    """Bad input ends with one line and exit code 2; warnings become one line each."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: typer.echo(f"avgas: warning: {message}", err=True)
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", message=".*(damaged or truncated|is not heard)")
        try:
            yield
        except _BAD_INPUT as error:
            typer.echo(f"avgas: error: {_one_line(error)}", err=True)
            raise typer.Exit(2) from None
        except ModuleNotFoundError as error:
            if error.name not in _EXTRAS:
                raise
            extra = _EXTRAS[error.name]
            typer.echo(f"avgas: error: needs {error.name}: pip install 'avgas-pipeline[{extra}]'", err=True)
            raise typer.Exit(2) from None


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.strerror and error.filename:
        text = f"{os.fspath(error.filename)}: {error.strerror}"
    return text


if __name__ == "__main__":
    app()
