"""
How few denoising steps keep the quality: CRS and FID of mixed images against steps, for three schedulers.

    python benchmarks/samplers.py --model avgas-mini --out docs/samplers

Mixtures are of recordings and pictures that the model learnt from, since the default sampler is chosen by this and the
test split is for the report. Every setting draws them from the same noise. Writes `samplers.png` and `samplers.json`.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.data.mixtures import MixtureSampler
from avgas_pipeline.data.soundscapes_mini import load_soundscapes_mini
from avgas_pipeline.metrics import class_representation_score, frechet_distance, load_judge


SCHEDULERS = {"DDIM": DDIMScheduler, "DPM-Solver++": DPMSolverMultistepScheduler, "UniPC": UniPCMultistepScheduler}


def as_bytes(images: list) -> torch.Tensor:
    """Images as `(N, 3, H, W)`, uint8."""
    return torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="avgas-mini", help="checkpoint")
    parser.add_argument("--data", default="data/soundscapes-mini", help="soundscapes-mini")
    parser.add_argument("--judge", default="judges/soundscapes-mini", help="image classifier")
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 6, 8, 10, 15, 20, 30, 50])
    parser.add_argument("--guidance", type=float, nargs="+", default=[3.0], help="guidance scales")
    parser.add_argument("--schedulers", nargs="+", default=list(SCHEDULERS), choices=list(SCHEDULERS))
    parser.add_argument("--num_mixtures", type=int, default=128, help="of two sources")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("docs/samplers"), help="files without their endings")
    args = parser.parse_args()

    pipe = AVGASPipeline.from_pretrained(args.model)
    pipe.set_progress_bar_config(disable=True)
    clips, pictures = load_soundscapes_mini(args.data, "train")
    sampler = MixtureSampler(
        clips,
        pictures,
        seed=1,
        num_sources=2,
        duration_s=pipe.window_s,
        sampling_rate=pipe.sampling_rate,
        target="collage",
        image_size=pipe.default_size[0],
    )
    mixtures = [sampler.sample(number) for number in range(args.num_mixtures)]
    judge = load_judge(args.judge, sampler.labels)
    target = torch.tensor([[label in mixture.labels for label in judge.labels] for mixture in mixtures]).double()
    encoded = [
        pipe.encode_audio(
            [mixture.waveform for mixture in mixtures[start : start + args.batch_size]],
            sampling_rate=pipe.sampling_rate,
            num_sources=2,
            return_audio=False,
        )
        for start in range(0, len(mixtures), args.batch_size)
    ]
    real = as_bytes([mixture.image for mixture in mixtures])

    results = []
    settings = [(name, scale, steps) for name in args.schedulers for scale in args.guidance for steps in args.steps]
    for name, scale, steps in tqdm(settings):
        pipe.scheduler = SCHEDULERS[name].from_config(pipe.scheduler.config)
        images = []
        start = time.perf_counter()
        for number, batch in enumerate(encoded):
            first = number * args.batch_size
            generators = [torch.Generator().manual_seed(first + row) for row in range(len(batch["audio_embeds"]))]
            images += pipe(**batch, num_inference_steps=steps, guidance_scale=scale, generator=generators).images
        seconds = (time.perf_counter() - start) / len(images)
        distance = frechet_distance(judge)
        distance.update(real, real=True)
        distance.update(as_bytes(images), real=False)
        crs = class_representation_score(judge(images).class_mass, target).mean().item()
        results.append(
            {"scheduler": name, "guidance": scale, "steps": steps, "crs": 100 * crs}
            | {"fid": distance.compute().item(), "seconds_per_image": seconds}
        )
        print({key: round(value, 3) if isinstance(value, float) else value for key, value in results[-1].items()})
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.with_suffix(".json").write_text(json.dumps(results, indent=2) + "\n")
    figure = Figure(figsize=(8, 3), layout="constrained")
    for axes, key, label in zip(figure.subplots(1, 2), ("crs", "fid"), ("CRS", "FID (judge's features)"), strict=True):
        for name in args.schedulers:
            for scale in args.guidance:
                points = [row for row in results if row["scheduler"] == name and row["guidance"] == scale]
                axes.plot([row["steps"] for row in points], [row[key] for row in points], marker=".", label=name)
        axes.set(xlabel="steps", title=label)
    figure.axes[0].legend(fontsize=8)
    figure.savefig(args.out.with_suffix(".png"), dpi=100)


if __name__ == "__main__":
    main()
