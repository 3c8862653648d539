"""`avgas benchmark`: natural recordings with several labels, by published annotations."""

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..loaders.folders import DEFAULT_CHECKPOINT, locate
from ..loaders.sounds import VGGSOUND_LABELS
from ..printable import printable
from .checks import bad_input_exits, check_files, check_is_folder, check_number, check_sources, new_folder
from .comparison import Drawn, Known, Systems, compare_on_recordings
from .options import (
    MAX_GUIDANCE,
    Baselines,
    BatchSize,
    Device,
    Draw,
    Guidance,
    ImageSize,
    Judge,
    PresenceThreshold,
    Seed,
    Steps,
    TopK,
)


if TYPE_CHECKING:
    from ..evaluation.soundscapes import EvaluationSet


class BenchmarkName(str, Enum):
    """Published annotations."""

    vggsounder = "vggsounder"
    llp = "llp"
    audioset_strong = "audioset-strong"
    esc50 = "esc50"


class Modality(str, Enum):
    """What VGGSounder's labels are."""

    audible = "A"
    visible = "V"
    both = "AV"


def benchmark(
    name: Annotated[BenchmarkName, typer.Argument(help="Whose annotations.")],
    videos: Annotated[
        Path, typer.Option(help="Folder of videos or of tar archives of videos; of ESC-50 as it is given out.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the report. Run again to go on after an interruption.")],
    annotations: Annotated[
        Path | None, typer.Option(help="File of annotations; where it usually lies in the folder if not given.")
    ] = None,
    names: Annotated[
        Path | None, typer.Option(help="Of AudioSet strong: table of machine ids and display names.")
    ] = None,
    model: Annotated[str, typer.Option(help="Checkpoint: a folder or a Hub repository.")] = DEFAULT_CHECKPOINT,
    judge: Judge = None,
    baseline: Baselines = None,
    min_labels: Annotated[
        int | None, typer.Option(min=1, help="Clips with fewer labels are left out; 2, of ESC-50 1, if not given.")
    ] = None,
    modality: Annotated[
        list[Modality] | None, typer.Option(help="VGGSounder's labels that count; AV if not given.")
    ] = None,
    background_music: Annotated[
        bool, typer.Option("--background-music", help="Count VGGSounder's clips with music that is not seen, too.")
    ] = False,
    static_image: Annotated[
        bool, typer.Option("--static-image", help="Count VGGSounder's clips of one still picture, too.")
    ] = False,
    voice_over: Annotated[
        bool, typer.Option("--voice-over", help="Count VGGSounder's clips with a commentator, too.")
    ] = False,
    steps: Steps = None,
    guidance: Guidance = None,
    presence_threshold: PresenceThreshold = None,
    seed: Seed = 0,
    batch_size: BatchSize = 4,
    image_size: ImageSize = 128,
    top_k: TopK = None,
    draw: Draw = True,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that decode the videos; all cores if not given.")
    ] = None,
    device: Device = None,
) -> None:
    """Measure systems on natural recordings with several labels, and say what is missing."""
    with bad_input_exits(), new_folder(out):
        if judge is None and draw:
            raise ValueError("pictures need a --judge; use --no-draw to measure only which sources are found.")
        check_number("--guidance", guidance, 0.0, MAX_GUIDANCE)
        check_is_folder(videos)
        check_files(annotations, names)
        check_sources(judge)
        locate(model)

        def load(known: Known) -> "EvaluationSet":
            from accelerate import PartialState

            from ..evaluation.benchmarks import LEFT_OUT, LabelledClips, Selection, choose_clips, decode_clips

            modalities = tuple(each.value for each in modality) if modality else None
            flags = (background_music, static_image, voice_over)
            selection = Selection(min_labels, modalities, *flags, None if names is None else str(names))
            chosen = choose_clips(name.value, videos, annotations, selection, known.labels, known.recordings)
            is_first = PartialState().is_main_process
            if is_first:
                decode_clips(videos, out, chosen, image_size, workers, pictures=draw)
            clips = LabelledClips(name.value, videos, out, chosen, selection, image_size)
            counted = f"{len(clips)} clips count, {len(chosen.layout.entries) - len(clips)} can't be used"
            details = f" ({clips.skipped})" if clips.skipped.counts else ""
            if is_first:
                clips.write_left_out(out)
                named = f"; {out / LEFT_OUT} names what is left out" if clips.left_out() else ""
                typer.echo(printable(f"avgas: {name.value}: {counted}{details}{named}"), err=True)
                if chosen.doubt is not None:
                    typer.echo(printable(f"avgas: warning: {chosen.doubt}"), err=True)
            return clips

        how = Drawn(steps, guidance, presence_threshold, seed, draw, batch_size=batch_size, top_k=top_k)
        systems = Systems(model, baseline=baseline or [])
        # What nobody judges may have labels that the judge does not know.
        compare_on_recordings(load, VGGSOUND_LABELS, systems, how, judge if draw else None, out, device)
