"""
What the pipeline costs beyond its models, and what `separate=True` saves; ratios within one run.

    python benchmarks/pipeline.py --model avgas-mini

Prints time to import and load, time of one call with two sources drawn mixed and separated, that time against the bare
calls of audio encoder, separator, U-Net and VAE with the same shapes, and against three calls with one image each.
Medians of `--repeats` rounds, in which all variants take turns.
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
    parser.add_argument("--repeats", type=int, default=7, help="rounds")
    args = parser.parse_args()

    start = time.perf_counter()
    import torch

    from avgas_pipeline import AVGASPipeline
    from avgas_pipeline.audio import Window
    from avgas_pipeline.audio_tokens import encoder_inputs
    from avgas_pipeline.spectrogram import relative_log_mel, stft

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

    captured: dict[str, tuple] = {}

    def capture(_: torch.nn.Module, positional: tuple, named: dict) -> None:
        captured["unet"] = (positional, named)

    hook = pipe.unet.register_forward_pre_hook(capture, with_kwargs=True)
    together()
    hook.remove()
    steps = pipe.config.default_num_inference_steps
    config = pipe.separator.config
    latents = captured["unet"][0][0].chunk(2)[0]

    @torch.no_grad()
    def bare() -> None:
        inputs = encoder_inputs(
            pipe.audio_feature_extractor, pipe.audio_encoder, [Window(samples=audio, start=0, num_valid=len(audio))]
        )
        tokens = pipe.audio_encoder(**{name: value.to(device) for name, value in inputs.items()}).last_hidden_state
        spectrum = stft(torch.from_numpy(audio)[None].to(device), config.n_fft, config.hop_length)
        spectrogram = relative_log_mel(spectrum, pipe.sampling_rate, config.num_mask_bands)
        pipe.separator(tokens, spectrogram=spectrogram)
        positional, named = captured["unet"]
        for _ in range(steps):
            pipe.unet(*positional, **named)
        pipe.vae.decode(latents)[0].cpu()

    variants: dict[str, Callable[[], None]] = {"together": together, "bare": bare, "apart": apart}
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(args.repeats):
        for name, variant in variants.items():
            start = time.perf_counter()
            variant()
            seconds[name].append(time.perf_counter() - start)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"mixed + 2 separated      {median['together']:8.3f} s, {steps} steps, on {device}")
    print(f"against the bare models  {median['together'] / median['bare']:8.2f} x of {median['bare']:.3f} s")
    print(f"against three calls      {median['together'] / median['apart']:8.2f} x of {median['apart']:.3f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"peak memory              {peak / 2**20:8.2f} GiB")


if __name__ == "__main__":
    main()
