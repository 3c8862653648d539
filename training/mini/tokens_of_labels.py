"""
Let labels alone decide what is drawn, after a separator was trained on without its generator.

    python training/mini/tokens_of_labels.py TRAINED DRAWN --dataset data/soundscapes-mini --output_dir runs/tokens

Condition tokens are the sum of what a slot's embedding says and of what its label says. When the separator is trained
further, embeddings move, and the U-Net no longer knows what they say. So the part of the embedding becomes, for every
label, the mean that it had over the training clips of that label in the checkpoint that the U-Net was trained with
(DRAWN), and is added to the label's part; labels that DRAWN does not know are drawn as the ones that they are like.
Until the generator is trained again, two recordings of one label get the same tokens.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm.auto import tqdm

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.data.mixtures import MixtureSampler
from avgas_pipeline.data.soundscapes_mini import load_soundscapes_mini
from avgas_pipeline.files import atomic_folder
from avgas_pipeline.loaders.sounds import drawn_like
from avgas_pipeline.models.encoder_adapters import audio_tokens, encoder_inputs


@torch.no_grad()
def mean_tokens(pipe: AVGASPipeline, mixtures: MixtureSampler) -> torch.Tensor:
    """
    What embeddings add to the condition tokens of every label, `(num_labels, tokens * width)`, on average over the
    clips of the label, each alone.

    Raises:
        ValueError: If a label has no clip.
    """
    separator = pipe.separator
    label2id = {label: index for index, label in separator.id2label.items()}
    models = pipe.audio_models()
    total = torch.zeros(len(label2id), separator.token_head[-1].out_features)
    count = torch.zeros(len(label2id), 1)
    for label, groups in tqdm(mixtures.clip_table.groups.items(), desc="Listening", unit="label"):
        for clip in (name for group in groups for name in group):
            waveform = mixtures.render(mixtures.plan_single(clip)).waveform
            windows = models.cut_windows(waveform)[:1]
            hidden, tags = audio_tokens(
                models.audio_encoder, encoder_inputs(models.feature_extractor, models.audio_encoder, windows)
            )
            output = separator(hidden, tag_logits=tags)
            index = label2id[label]
            slot = (output.class_logits[0].softmax(-1)[:, index] * output.presence_logits[0].sigmoid()).argmax()
            total[index] += separator.token_head(output.slots[0, slot])
            count[index] += 1
    if not count.all():
        missing = separator.id2label[int((count == 0).nonzero()[0, 0])]
        raise ValueError(f"{missing!r} has no clip.")
    return total / count


@torch.no_grad()
def let_labels_decide(trained: AVGASPipeline, drawn: AVGASPipeline, mean: torch.Tensor) -> None:
    """Give `trained` the label tokens of `drawn`, with the mean of the embeddings' part, and no part of its own."""
    known = {label: index for index, label in drawn.separator.id2label.items()}
    columns = drawn.separator.label_tokens.weight + mean.T
    for index, label in trained.separator.id2label.items():
        like = drawn_like(label, list(known))
        # An unknown sound is drawn as its nearest label.
        trained.separator.label_tokens.weight[:, index] = 0.0 if like is None else columns[:, known[like]]
    trained.separator.token_head[-1].weight.zero_()
    trained.separator.token_head[-1].bias.zero_()


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trained", help="pipeline whose separator was trained on")
    parser.add_argument("drawn", help="pipeline that its U-Net was trained with")
    parser.add_argument("--dataset", type=Path, default=Path("data/soundscapes-mini"), help="soundscapes-mini")
    parser.add_argument("--output_dir", type=Path, required=True, help="a new folder")
    args = parser.parse_args(argv)
    try:
        trained, drawn = (
            AVGASPipeline.from_pretrained(name, dtype=torch.float32) for name in (args.trained, args.drawn)
        )
        if trained.separator.label_tokens is None or drawn.separator.label_tokens is None:
            raise ValueError("Both separators need label tokens (`label_temperature`).")
        clips, _ = load_soundscapes_mini(args.dataset, "train")
        window = {"duration_s": drawn.window_s, "sampling_rate": drawn.sampling_rate}
        mixtures = MixtureSampler(clips, num_sources=1, target=None, **window)
        let_labels_decide(trained, drawn, mean_tokens(drawn, mixtures))
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    with atomic_folder(args.output_dir) as folder:
        trained.save_pretrained(folder)


if __name__ == "__main__":
    main()
