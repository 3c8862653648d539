"""
How much longer a step of `training/train.py` takes than the bare step: the same U-Net with LoRA on ready conditions
and latents, forward, loss, backward, optimiser. In one run, with cached examples and with examples decoded, mixed,
composed and encoded as they come.

    python benchmarks/train_step.py
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from peft import LoraConfig
from transformers import ASTConfig, ASTFeatureExtractor, ASTModel

from avgas_pipeline import AudioVisualSeparator, AVGASPipeline
from avgas_pipeline.data.soundscapes_mini import find_soundscapes_mini, load_soundscapes_mini
from avgas_pipeline.models.encoder_adapters import token_layout


ROOT = Path(__file__).parents[1]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=16, help="steps to time")
    parser.add_argument("--warmup", type=int, default=4, help="steps before them")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--channels", type=int, nargs="+", default=[320, 640, 1280], help="of the U-Net")
    parser.add_argument("--workers", type=int, default=1, help="processes that make examples")
    return parser.parse_args()


def build_pipeline(channels: list[int]) -> AVGASPipeline:
    """A latent diffusion model for 128x128 pictures under a small AST with windows of 2.56 s."""
    torch.manual_seed(0)
    encoder = ASTModel(ASTConfig(hidden_size=96, num_hidden_layers=2, num_attention_heads=4, max_length=256))
    levels = len(channels)
    separator = AudioVisualSeparator(
        **token_layout(encoder),
        num_slots=3,
        num_layers=2,
        hidden_dim=96,
        num_attention_heads=4,
        cross_attention_dim=128,
        id2label=dict(enumerate(sorted(set(load_soundscapes_mini(find_soundscapes_mini())[0]["label"])))),
    )
    return AVGASPipeline(
        vae=AutoencoderKL(
            block_out_channels=[16, 32, 64, 64],
            down_block_types=["DownEncoderBlock2D"] * 4,
            up_block_types=["UpDecoderBlock2D"] * 4,
            norm_num_groups=8,
            sample_size=128,
        ),
        unet=UNet2DConditionModel(
            sample_size=16,
            block_out_channels=channels,
            layers_per_block=1,
            down_block_types=["CrossAttnDownBlock2D"] * (levels - 1) + ["DownBlock2D"],
            up_block_types=["UpBlock2D"] + ["CrossAttnUpBlock2D"] * (levels - 1),
            cross_attention_dim=128,
        ),
        scheduler=DDPMScheduler(),
        audio_encoder=encoder,
        audio_feature_extractor=ASTFeatureExtractor(max_length=256),
        separator=separator,
    )


def bare_step_s(unet: UNet2DConditionModel, args: argparse.Namespace) -> float:
    """Seconds of a step on ready latents and conditions."""
    unet.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=16, lora_alpha=16, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    weights = [weight for weight in unet.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights)
    unet.train()
    latents = torch.randn(args.batch_size, 4, 16, 16)
    conditions = torch.randn(args.batch_size, 16, 128)
    timesteps = torch.randint(0, 1000, (args.batch_size,))
    for step in range(args.warmup + args.steps):
        if step == args.warmup:
            start = time.perf_counter()
        prediction = unet(latents, timesteps, encoder_hidden_states=conditions, return_dict=False)[0]
        torch.nn.functional.mse_loss(prediction, latents).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return (time.perf_counter() - start) / args.steps


def script_step_s(checkpoint: Path, folder: Path, args: argparse.Namespace, *options: str) -> float:
    """Seconds of a step of the script: those of a long run without those of a short one."""
    walls = []
    for steps in (args.warmup, args.warmup + args.steps):
        command = [sys.executable, str(ROOT / "training/train.py"), f"--pretrained_model_name_or_path={checkpoint}"]
        command += [f"--dataset={find_soundscapes_mini()}", f"--output_dir={folder}", "--overwrite_output_dir=true"]
        command += [f"--max_train_steps={steps}", f"--train_batch_size={args.batch_size}", "--num_examples=256"]
        command += [f"--dataloader_num_workers={args.workers}", "--checkpointing_steps=100000", *options]
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        walls.append(time.perf_counter() - start)
    return (walls[1] - walls[0]) / args.steps


def main() -> None:
    args = parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        checkpoint = Path(temporary) / "untrained"
        pipe = build_pipeline(args.channels)
        pipe.save_pretrained(checkpoint)
        cached = Path(temporary) / "cached"
        script_step_s(checkpoint, cached, argparse.Namespace(**{**vars(args), "steps": 1}), "--cache_examples=true")
        rows = {
            "bare step": bare_step_s(pipe.unet, args),
            "train.py, cached examples": script_step_s(checkpoint, cached, args, "--cache_examples=true"),
            "train.py, examples as they come": script_step_s(checkpoint, Path(temporary) / "fresh", args),
        }
    for name, seconds in rows.items():
        print(f"{name:<34}{seconds * 1000:8.1f} ms{seconds / rows['bare step']:8.2f}x")


if __name__ == "__main__":
    main()
