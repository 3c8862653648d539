"""
What the pipeline costs beyond its models, and what `separate=True` saves; ratios within one run.

    python benchmarks/pipeline.py --model avgas-mini

Prints time to import and load, time of one call with two sources drawn mixed and separated, that time against the bare
calls of audio encoder, separator, U-Net and VAE that it makes, with the same tensors, and against three calls with one
image each.
All variants take turns in each of `--repeats` rounds, each begun by another one. Times are medians over rounds, and
ratios medians of the rounds' own ratios, which need not be the ratios of these times.
"""

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="avgas-mini", help="checkpoint")
    parser.add_argument(
        "--repeats", type=int, default=60, help="rounds; 30 leave the ratios uncertain by one to two per cent"
    )
    args = parser.parse_args()

    start = time.perf_counter()
    import torch

    from avgas_pipeline import AVGASPipeline

    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    pipe = AVGASPipeline.from_pretrained(args.model).to(device)
    print(f"import and load          {time.perf_counter() - start:8.3f} s")
    pipe.set_progress_bar_config(disable=True)
    audio = np.random.default_rng(0).standard_normal(round(pipe.window_s * pipe.sampling_rate)).astype(np.float32) / 8
    options = {"sampling_rate": pipe.sampling_rate}

    def together() -> None:
        pipe(audio, num_sources=2, separate=True, generator=torch.manual_seed(0), **options)

    def apart() -> None:
        for count in (2, 1, 1):
            pipe(audio, num_sources=count, generator=torch.manual_seed(0), **options)

    # Every call of the models that one call of the pipeline makes, in their order.
    calls: list[tuple[torch.nn.Module, tuple, dict]] = []

    def capture(module: torch.nn.Module, positional: tuple, named: dict) -> None:
        calls.append((module, positional, named))

    models = (pipe.audio_encoder, pipe.separator, pipe.unet)
    hooks = [model.register_forward_pre_hook(capture, with_kwargs=True) for model in models]
    together()
    for hook in hooks:
        hook.remove()
    steps = pipe.config.default_num_inference_steps
    # Half of the rows are for guidance.
    latents = calls[-1][1][0].chunk(2)[0]

    @torch.no_grad()
    def bare() -> None:
        for module, positional, named in calls:
            module(*positional, **named)
        pipe.vae.decode(latents)[0].cpu()

    variants: dict[str, Callable[[], None]] = {"together": together, "bare": bare, "apart": apart}
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    order = list(variants)
    for _ in range(args.repeats):
        for name in order:
            start = time.perf_counter()
            variants[name]()
            seconds[name].append(time.perf_counter() - start)
        # A place in the round counts for one or two per cent.
        order.append(order.pop(0))
    median = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = {
        name: statistics.median(own / other for own, other in zip(seconds["together"], seconds[name], strict=True))
        for name in ("bare", "apart")
    }
    print(f"mixed + 2 separated      {median['together']:8.3f} s, {steps} steps, on {device}")
    print(f"against the bare models  {ratio['bare']:8.2f} x ({median['bare']:.3f} s)")
    print(f"against three calls      {ratio['apart']:8.2f} x ({median['apart']:.3f} s)")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"peak memory              {peak / 2**20:8.2f} GiB")


if __name__ == "__main__":
    main()
