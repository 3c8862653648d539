"""
What the recipes for VGGSound cost: floating-point operations of their steps, counted on models of full size without
weights, and the GPU hours these take at a share of a card's peak. An estimate: no such card was measured.

    python benchmarks/training_cost.py --peak_tflops 989 --utilisation 0.3
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from diffusers import AutoencoderKL, UNet2DConditionModel
from peft import LoraConfig
from torch.utils.flop_counter import FlopCounterMode
from transformers import ClapAudioConfig, ClapAudioModel

from avgas_pipeline import AudioVisualSeparator
from avgas_pipeline.models.encoder_adapters import token_layout


CONFIGS = Path(__file__).parents[1] / "training/configs"


def count(work: Callable[[], None]) -> float:
    """Floating-point operations, in TFLOP; a multiply-add is two."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 1e12


def separator_step_tflop(batch_size: int, mean_sources: float) -> float:
    """The mixtures forward and backward through encoder and separator, their clean sources forward."""
    encoder = ClapAudioModel(ClapAudioConfig())
    separator = AudioVisualSeparator(
        **token_layout(encoder), cross_attention_dim=768, id2label=dict(enumerate(map(str, range(309))))
    )

    def encode(rows: int) -> torch.Tensor:
        tokens = encoder(
            input_features=torch.empty(rows, 1, 1001, 64), is_longer=torch.empty(rows, 1)
        ).last_hidden_state
        spectrogram = torch.empty(rows, separator.config.num_mask_bands, 1001)
        output = separator(tokens, spectrogram=spectrogram)
        return output.mask_logits.mean() + output.class_logits.mean() + output.audio_embeds.mean()

    learned = count(lambda: encode(batch_size).backward())
    with torch.no_grad():
        return learned + count(lambda: encode(round(batch_size * mean_sources)))


def generator_step_tflop(batch_size: int, rank: int) -> float:
    """Stable Diffusion 1.5 at 512 x 512: pictures to latents, LoRA forward and backward, with checkpointing."""
    unet = UNet2DConditionModel(cross_attention_dim=768, sample_size=64, attention_head_dim=8)
    unet.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=rank, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    unet.enable_gradient_checkpointing()
    unet.train()
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
    )
    with torch.no_grad():
        encoded = count(lambda: vae.encode(torch.empty(batch_size, 3, 512, 512)))

    def learn() -> None:
        # With a gradient, or checkpointing computes nothing.
        noisy = torch.empty(batch_size, 4, 64, 64, requires_grad=True)
        unet(noisy, 500, encoder_hidden_states=torch.empty(batch_size, 32, 768)).sample.mean().backward()

    return encoded + count(learn)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peak_tflops", type=float, default=989.0, help="of the card, dense bf16 (H100: 989)")
    parser.add_argument("--utilisation", type=float, default=0.3, help="share of the peak that training reaches")
    args = parser.parse_args()
    recipes = {
        name: yaml.safe_load((CONFIGS / f"vggsound-sd15-clap-{name}.yaml").read_text())
        for name in ("separator", "generator")
    }
    with torch.device("meta"):
        separator, generator = recipes["separator"], recipes["generator"]
        tflop = {
            "separator": separator_step_tflop(separator["train_batch_size"], sum(separator["num_sources"]) / 2),
            "generator": generator_step_tflop(generator["train_batch_size"], generator["rank"]),
        }
    for name, recipe in recipes.items():
        steps = recipe["max_train_steps"]
        hours = tflop[name] * steps / (args.peak_tflops * args.utilisation) / 3600
        print(f"{name:<12}{steps:>8} steps {tflop[name]:8.2f} TFLOP each {hours:8.1f} GPU hours")


if __name__ == "__main__":
    main()
