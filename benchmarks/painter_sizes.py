"""
How many parameters text-to-image models have, and what they take in memory: counted in models of the published
configurations, without weights.

    python benchmarks/painter_sizes.py
"""

import warnings
from collections.abc import Callable

import diffusers
import torch
import transformers


CLIP_L = transformers.CLIPTextConfig(
    hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
)
CLIP_G = transformers.CLIPTextConfig(
    hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20, projection_dim=1280
)
T5_XXL = transformers.T5Config(
    d_model=4096, d_ff=10240, d_kv=64, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu"
)
QWEN3_4B = transformers.Qwen3Config(
    hidden_size=2560,
    intermediate_size=9728,
    num_hidden_layers=36,
    num_attention_heads=32,
    num_key_value_heads=8,
    head_dim=128,
    tie_word_embeddings=True,
)
SDXL_UNET = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
SD3_TRANSFORMER = {
    "num_layers": 24,
    "num_attention_heads": 24,
    "caption_projection_dim": 1536,
    "pos_embed_max_size": 192,
}
# Where nothing else is said, a class's default configuration is that of the published model.
MODELS: dict[str, dict[str, Callable[[], torch.nn.Module]]] = {
    "Stable Diffusion 1.5": {
        "U-Net": lambda: diffusers.UNet2DConditionModel(cross_attention_dim=768),
        "CLIP-L": lambda: transformers.CLIPTextModel(CLIP_L),
    },
    "Stable Diffusion XL": {
        "U-Net": lambda: diffusers.UNet2DConditionModel(**SDXL_UNET),
        "CLIP-L": lambda: transformers.CLIPTextModel(CLIP_L),
        "CLIP-G": lambda: transformers.CLIPTextModelWithProjection(CLIP_G),
    },
    "Stable Diffusion 3 medium": {
        "transformer": lambda: diffusers.SD3Transformer2DModel(**SD3_TRANSFORMER),
        "CLIP-L": lambda: transformers.CLIPTextModel(CLIP_L),
        "CLIP-G": lambda: transformers.CLIPTextModelWithProjection(CLIP_G),
        "T5-XXL": lambda: transformers.T5EncoderModel(T5_XXL),
    },
    "PixArt-Sigma": {
        "transformer": diffusers.PixArtTransformer2DModel,
        "T5-XXL": lambda: transformers.T5EncoderModel(T5_XXL),
    },
    "Sana 1.6B": {
        "transformer": diffusers.SanaTransformer2DModel,
        "Gemma 2 2B": lambda: transformers.Gemma2Model(transformers.Gemma2Config()),
    },
    "Lumina 2": {
        "transformer": diffusers.Lumina2Transformer2DModel,
        "Gemma 2 2B": lambda: transformers.Gemma2Model(transformers.Gemma2Config()),
    },
    "Z-Image": {
        "transformer": diffusers.ZImageTransformer2DModel,
        "Qwen3 4B": lambda: transformers.Qwen3Model(QWEN3_4B),
    },
    "Chroma": {
        "transformer": diffusers.ChromaTransformer2DModel,
        "T5-XXL": lambda: transformers.T5EncoderModel(T5_XXL),
    },
    "FLUX.1": {
        "transformer": diffusers.FluxTransformer2DModel,
        "CLIP-L": lambda: transformers.CLIPTextModel(CLIP_L),
        "T5-XXL": lambda: transformers.T5EncoderModel(T5_XXL),
    },
    "Qwen-Image, without its text encoder": {"transformer": diffusers.QwenImageTransformer2DModel},
}


def billions(build: Callable[[], torch.nn.Module]) -> float:
    """Parameters of a model that is built without memory."""
    with torch.device("meta"):
        return sum(weight.numel() for weight in build().parameters()) / 1e9


def main() -> None:
    warnings.simplefilter("ignore")
    print(f"{'':38}{'draws':>8}{'reads':>8}  GB in 16 bits, without autoencoder")
    for name, parts in MODELS.items():
        draws, *reads = (billions(build) for build in parts.values())
        print(f"{name:38}{draws:7.2f}B{sum(reads):7.2f}B  {2 * (draws + sum(reads)):5.1f}")


if __name__ == "__main__":
    main()
