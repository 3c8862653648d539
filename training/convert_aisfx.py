"""
Convert the pretrained sound-effects encoder of the PyPI wheel `aisfx` 0.1.2 to a transformers model.

    pip download --no-deps aisfx==0.1.2
    python training/convert_aisfx.py aisfx-0.1.2-py2.py3-none-any.whl --output_dir runs/audio-encoder

The weights are A. B. Ma and A. Lerch's ("Representation Learning for the Automatic Indexing of Sound Effects
Libraries", ISMIR 2022), under CC BY 4.0. Only the wheel's checkpoint is read, and nothing in it is run.
"""

import argparse
import io
import zipfile
from pathlib import Path

import numpy as np
import torch

from avgas_pipeline.sound_effects_encoder import (
    SoundEffectsConfig,
    SoundEffectsEncoder,
    SoundEffectsFeatureExtractor,
)


CHECKPOINT = "aisfx/models/checkpoint.pth"
PREFIX = "embedding_net.conv_block"
README = """# Sound-effects encoder

Converted from the checkpoint in the PyPI wheel [aisfx 0.1.2](https://pypi.org/project/aisfx/0.1.2/): A. B. Ma and
A. Lerch, "Representation Learning for the Automatic Indexing of Sound Effects Libraries", ISMIR 2022. Licence of the
weights: [CC BY 4.0](https://creativecommons.org/licenses/by/4.0/). Changes: kernels are transposed, since frequency
comes before time here; classification heads are left out.
"""


def read_weights(wheel: Path) -> dict[str, torch.Tensor]:
    """
    The encoder's weights in a wheel, as tensors alone.

    Raises:
        ValueError: If it is not that wheel.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            data = io.BytesIO(archive.read(CHECKPOINT))
    except (zipfile.BadZipFile, KeyError):
        raise ValueError(f"{wheel}: not the wheel of aisfx: it has no {CHECKPOINT}.") from None
    # The checkpoint also counts its classes in NumPy scalars, by a name that NumPy has given up.
    scalar = (np._core.multiarray.scalar, "numpy.core.multiarray.scalar")
    with torch.serialization.safe_globals([scalar, np.dtype, np.dtypes.Int64DType]):
        state = torch.load(data, map_location="cpu", weights_only=True)[0]
    weights = {}
    for name, tensor in state.items():
        if not name.startswith(PREFIX):
            continue
        number, part = name.removeprefix(PREFIX).split(".", 1)
        # Theirs are (time, frequency).
        tensor = tensor.transpose(-1, -2).contiguous() if tensor.ndim == 4 else tensor
        weights[f"blocks.{int(number) - 1}.{part.replace('bn', 'norm')}"] = tensor
    return weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, help="aisfx-0.1.2-py2.py3-none-any.whl")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/audio-encoder"))
    args = parser.parse_args()
    if not args.wheel.is_file():
        parser.error(f"{args.wheel}: no such file.")
    try:
        weights = read_weights(args.wheel)
    except ValueError as error:
        parser.error(str(error))
    encoder = SoundEffectsEncoder(SoundEffectsConfig())
    encoder.load_state_dict(weights)
    encoder.save_pretrained(args.output_dir)
    SoundEffectsFeatureExtractor().save_pretrained(args.output_dir)
    (args.output_dir / "README.md").write_text(README)


if __name__ == "__main__":
    main()
