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
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; the best there is if not given.")]


class DType(str, Enum):
    """Data types a model can be loaded as."""

    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"
