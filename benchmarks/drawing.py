"""
Does a model draw what it is told? It is given labels, so that hearing has no part in it, and a judge says what the
pictures show.

    python benchmarks/drawing.py --model avgas-mini --judge judges/soundscapes-mini

For checkpoints with tokens of labels. Labels are drawn at random among those that model and judge know. Per number of
objects: how often the judge's likeliest labels of the whole picture are exactly those, and, for models with a layout,
how many objects the judge names right in their boxes, and how many boxes show the label of another one. Then pairs
with a weight on the first source: how often the area that is not white in its box rises from weight to weight, and how
often both are still named.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from tqdm.auto import tqdm

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.layout import Box, place_sources
from avgas_pipeline.metrics.judges import Judge, load_judge
from avgas_pipeline.pipeline_output import SoundSource


COUNTS = (1, 2, 3, 6)
WEIGHTS = (0.25, 0.5, 1.0, 2.0)
# So large, divided by the separator's temperature, that a softmax has only this label.
CERTAIN = 1e4
BATCH_SIZE = 16
# Darker than this is part of an object, of 255.
WHITE = 245


@dataclass
class Shown:
    """What a judge says of pictures of one number of objects, as shares."""

    exactly: float
    in_boxes: float
    all_but_one_in_boxes: float
    doubled: float


class Drawer:
    """
    Draws labels.

    Args:
        pipe ([`AVGASPipeline`]): With tokens of labels.
        steps (`int`, *optional*): Of denoising; its default if not given.
        guidance_scale (`float`, *optional*): Likewise.

    Raises:
        ValueError: If it has no tokens of labels.
    """

    def __init__(self, pipe: AVGASPipeline, steps: int | None, guidance_scale: float | None) -> None:
        if pipe.separator.label_tokens is None:
            raise ValueError("this model does not draw by labels.")
        pipe.set_progress_bar_config(disable=True)
        self.pipe = pipe
        self.options = {"num_inference_steps": steps, "guidance_scale": guidance_scale}
        names = pipe.separator.id2label
        self.labels = [names[number] for number in range(len(names))]

    def __call__(
        self, labels: Sequence[Sequence[str]], seed: int, weights: Sequence[Sequence[float]] | None = None
    ) -> Iterator[PIL.Image.Image]:
        """A picture of every set of as many labels each; `seed` and its number decide its noise."""
        separator = self.pipe.separator
        for first in range(0, len(labels), BATCH_SIZE):
            chosen = labels[first : first + BATCH_SIZE]
            numbers = torch.tensor([[self.labels.index(label) for label in each] for each in chosen])
            slots = torch.zeros(*numbers.shape, separator.config.hidden_dim)
            certain = CERTAIN * torch.nn.functional.one_hot(numbers, len(self.labels)).float()
            with torch.no_grad():
                embeds = separator.condition(slots, certain)
            generators = [torch.Generator().manual_seed(seed + first + row) for row in range(len(chosen))]
            yield from self.pipe(
                audio_embeds=embeds,
                null_audio_embeds=separator.null_tokens.detach(),
                sources=[[SoundSource(label=label) for label in each] for each in chosen],
                source_weights=None if weights is None else list(weights[first : first + BATCH_SIZE]),
                generator=generators,
                **self.options,
            ).images


def cut(picture: PIL.Image.Image, box: Box) -> PIL.Image.Image:
    """What is in a box, in the middle of a white square."""
    edges = [round(edge * side) for edge, side in zip(box, (*picture.size, *picture.size), strict=True)]
    part = picture.crop(tuple(edges))
    square = PIL.Image.new("RGB", (max(part.size),) * 2, "white")
    square.paste(part, ((square.width - part.width) // 2, (square.height - part.height) // 2))
    return square


def names_of(judge: Judge, known: Sequence[str], pictures: Sequence[PIL.Image.Image], count: int) -> list[list[str]]:
    """The judge's likeliest labels of every picture, of those known to the model."""
    columns = [judge.labels.index(label) for label in known]
    found = []
    for first in range(0, len(pictures), 64):
        scores = judge(pictures[first : first + 64]).scores[:, columns]
        found += [[known[number] for number in row] for row in scores.topk(count, dim=1).indices.tolist()]
    return found


def measure(drawer: Drawer, judge: Judge, known: Sequence[str], count: int, number: int, seed: int) -> Shown:
    """Pictures of so many objects each."""
    rng = np.random.default_rng([seed, count])
    sets = [rng.choice(known, size=count, replace=False).tolist() for _ in range(number)]
    pictures = list(tqdm(drawer(sets, seed), total=number, desc=f"{count} objects"))
    whole = names_of(judge, known, pictures, count)
    exactly = np.mean([set(found) == set(labels) for found, labels in zip(whole, sets, strict=True)])
    boxes = place_sources([1.0] * count)
    cuts = names_of(judge, known, [cut(picture, box) for picture in pictures for box in boxes], 1)
    seen = [[name for (name,) in cuts[row * count : (row + 1) * count]] for row in range(number)]
    right = [sum(map(str.__eq__, found, labels)) for found, labels in zip(seen, sets, strict=True)]
    doubled = [
        any(name in labels and name != label for name, label in zip(found, labels, strict=True))
        for found, labels in zip(seen, sets, strict=True)
    ]
    shares = (exactly, np.mean(right) / count, np.mean(np.array(right) >= count - 1), np.mean(doubled))
    return Shown(*(round(float(share), 4) for share in shares))


def covered(picture: PIL.Image.Image, box: Box) -> float:
    """The share of the picture's area that is in a box and not white."""
    pixels = np.asarray(picture.convert("RGB"))
    side = pixels.shape[0]
    left, top, right, bottom = (round(edge * side) for edge in box)
    return float((pixels[top:bottom, left:right].min(axis=2) < WHITE).sum()) / side**2


def measure_weights(drawer: Drawer, judge: Judge, known: Sequence[str], number: int, seed: int) -> dict[str, float]:
    """Pairs, the first source with every weight, from the same noise."""
    rng = np.random.default_rng([seed, 7])
    pairs = [rng.choice(known, size=2, replace=False).tolist() for _ in range(number)]
    areas, named = [], {}
    for weight in tqdm(WEIGHTS, desc="weights"):
        boxes = place_sources([weight, 1.0])
        pictures = list(drawer(pairs, seed, [[weight, 1.0]] * number))
        areas.append([covered(picture, boxes[0]) for picture in pictures])
        cuts = names_of(judge, known, [cut(picture, box) for picture in pictures for box in boxes], 1)
        both = [cuts[2 * row][0] == pair[0] and cuts[2 * row + 1][0] == pair[1] for row, pair in enumerate(pairs)]
        named[f"both_named_at_{weight:g}"] = round(float(np.mean(both)), 4)
    rising = (np.diff(np.array(areas), axis=0) > 0).all(axis=0)
    return {"area_rises_with_every_weight": round(float(rising.mean()), 4), **named}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="avgas-mini", help="Checkpoint: folder, Hub repository or avgas-mini.")
    parser.add_argument("--judge", default="judges/soundscapes-mini", help="Image classifier that knows labels.")
    parser.add_argument("--pictures", type=int, default=500, help="Of each number of objects.")
    parser.add_argument("--pairs", type=int, default=200, help="That are drawn with several weights.")
    parser.add_argument("--steps", type=int, help="Of denoising; the model's default if not given.")
    parser.add_argument("--guidance-scale", type=float, help="The model's default if not given.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="Write the numbers to this JSON file.")
    args = parser.parse_args()
    try:
        drawer = Drawer(AVGASPipeline.from_pretrained(args.model), args.steps, args.guidance_scale)
        judge = load_judge(args.judge, [])
    except (OSError, ValueError) as error:
        parser.error(str(error))
    known = [label for label in drawer.labels if label in judge.labels]
    results: dict = {"model": args.model, "judge": args.judge, "labels": len(known), "pictures": args.pictures}
    for count in COUNTS:
        results[f"{count}_objects"] = asdict(measure(drawer, judge, known, count, args.pictures, args.seed))
        print(json.dumps({f"{count}_objects": results[f"{count}_objects"]}))
    results["weights"] = measure_weights(drawer, judge, known, args.pairs, args.seed)
    print(json.dumps({"weights": results["weights"]}))
    if args.out:
        args.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
