"""Options that several commands have."""

from enum import Enum
from typing import Annotated

import typer


# The pictures of one call have seeds that count on from this one, in 64 bits.
MAX_SEED = 2**62
# Above these nothing gets better, and in float32 something overflows.
MAX_GUIDANCE = 1000.0
MAX_WEIGHT = 1000.0

ModelArgument = Annotated[str, typer.Argument(help="Checkpoint: a folder or a Hub repository.")]
Steps = Annotated[
    int | None, typer.Option(min=1, max=10000, help="Denoising steps; as many as the checkpoint says if not given.")
]
Guidance = Annotated[
    float | None, typer.Option(help="Weight of classifier-free guidance; what the checkpoint says if not given.")
]
Painter = Annotated[
    str | None,
    typer.Option(help="Text-to-image pipeline of diffusers that draws instead: a folder or a Hub repository."),
]
Style = Annotated[str | None, typer.Option(help="With --painter: what kind of picture, {} for what it shows.")]
SIZE = "Of pictures, in pixels; the checkpoint's own size, which it has learnt to draw, if not given."
Seed = Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Same seed, same pictures.")]
AudioTrack = Annotated[int | None, typer.Option(min=0, help="Which of a file's audio tracks to take, counted from 0.")]
MaxDuration = Annotated[float, typer.Option(help="Longest recording accepted, in seconds.")]
Judge = Annotated[
    str | None, typer.Option(help="Image classifier or CLIP: a folder or a Hub repository. Needed for pictures.")
]
Baselines = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME[=MODEL]", help="oracle, prompts, single-embedding or paper. Can be given again."),
]
PresenceThreshold = Annotated[
    float | None,
    typer.Option(
        min=0.0, max=1.0, help="From which probability on a source is present; the expected number if not given."
    ),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Soundscapes drawn at a time.")]
ImageSize = Annotated[int, typer.Option(min=8, max=4096, help="Side of the real pictures to compare with.")]
TopK = Annotated[
    int | None, typer.Option(min=1, help="K of R@K*; each soundscape's own number of labels if not given.")
]
Draw = Annotated[bool, typer.Option("--draw/--no-draw", help="Whether to draw, or only to find the sources.")]
DataLayout = Annotated[
    str | None,
    typer.Option(
        "--layout",
        help="How the data lies: vggsound, metadata, class-folders, table, esc50 or fsd50k; found by its files if not"
        " given.",
    ),
]
Columns = Annotated[
    str | None,
    typer.Option(metavar="ROLE=COLUMN,…", help="Of a table, as labels=category,id=clip; or a YAML file of the same."),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; the best there is if not given.")]


class DType(str, Enum):
    """Data types a model can be loaded as."""

    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"
