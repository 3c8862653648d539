"""`avgas film`: a recording as a film with its own sound, and captions."""

import math
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..errors import NoSourceError, SilentRecordingError
from ..files import finished, leftover_indexes
from ..loaders.folders import DEFAULT_CHECKPOINT, locate
from ..printable import printable
from .checks import bad_input_exits, check_number, new_folder
from .models import load_pipeline
from .options import MAX_GUIDANCE, AudioTrack, Device, DType, Guidance, MaxDuration, Seed, Steps
from .recordings import RecordingArgument, recording_arguments


FILM_SUFFIX = ".mp4"


def film(
    audio: Annotated[str, typer.Argument(help="Audio or video file.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The film, an .mp4 file; captions.vtt and captions.srt go beside it.")],
    model: Annotated[str, typer.Option(help="Checkpoint: a folder or a Hub repository.")] = DEFAULT_CHECKPOINT,
    storyboard: Annotated[
        bool, typer.Option("--storyboard", help="Write all scenes on one sheet, storyboard.png, too.")
    ] = False,
    steps: Steps = None,
    guidance: Guidance = None,
    seed: Seed = 0,
    audio_track: AudioTrack = None,
    max_duration: MaxDuration = 3600.0,
    device: Device = None,
    dtype: Annotated[DType, typer.Option(help="Data type of the models.")] = DType.float32,
) -> None:
    """Make a film of a recording: whenever other sources are heard, another picture, with captions."""
    with bad_input_exits(), new_folder(out.parent):
        if out.suffix.lower() != FILM_SUFFIX:
            raise ValueError(f"--out {out}: has to end with {FILM_SUFFIX}.")
        check_number("--guidance", guidance, 0.0, MAX_GUIDANCE)
        check_number("--max-duration", max_duration, 1e-3, math.inf)
        if Path(audio).is_dir():
            raise ValueError(f"{audio}: is a folder; a film is made of one file.")
        (recording,) = recording_arguments([audio])
        check_is_file(recording)
        check_out(recording.path, out, storyboard)
        locate(model)
        typer.echo(printable(f"avgas: loading {model}"), err=True)
        pipe = load_pipeline(model, device, dtype)
        pipe.set_progress_bar_config(file=sys.stderr)
        from ..film.make import plan_film, save_film

        call = {"num_inference_steps": steps, "guidance_scale": guidance}
        where = {"max_duration_s": max_duration, "name": recording.name, "audio_track": audio_track}
        try:
            planned = plan_film(pipe, audio, seed, **where, **call)
        except SilentRecordingError:
            raise ValueError(f"{recording.name}: is silent.") from None
        except NoSourceError:
            raise ValueError(f"{recording.name}: nothing is heard in it that the model is sure enough of.") from None
        save_film(planned, audio, out, storyboard, **where)
        names = ", ".join(dict.fromkeys(source.name for source in planned.sources))
        count = f"{len(planned.scenes)} scene{'s' * (len(planned.scenes) != 1)}"
        typer.echo(printable(f"{recording.name}: {count} of {names} -> {out}"))


def check_is_file(recording: RecordingArgument) -> None:
    """
    Raises:
        ValueError: If it is standard input: the film's sound is read once more.
    """
    if recording.is_standard_input:
        raise ValueError("standard input: a film needs a file, which is read twice.")


def check_out(recording: Path, out: Path, with_storyboard: bool = False) -> None:
    """
    Raises:
        ValueError: If the film would take the place of its recording, or its other files that of any which an earlier
            film at `out` did not write.
    """
    from ..film.beside import SRT, STORYBOARD, VTT, listed_beside, not_of

    if out.exists() and recording.exists() and out.samefile(recording):
        raise ValueError(f"--out {out}: is the recording itself.")
    own = [out, *leftover_indexes(out.parent, out.name)]
    foreign = not_of(own, out.parent, [VTT, SRT, *[STORYBOARD] * with_storyboard])
    if not foreign:
        return
    for path in finished(out.parent, f"*{FILM_SUFFIX}"):
        if path.name != out.name and not {*foreign} - {*listed_beside(path)}:
            raise ValueError(f"--out {out}: the captions of {path.name} are in this folder; choose another one.")
    raise ValueError(f"--out {out}: {foreign[0]} in this folder is of no film of that name; choose another one.")
