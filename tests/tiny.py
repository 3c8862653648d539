"""Tiny random-weight models of the real classes, and sounds to feed them."""

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTModel,
    ClapAudioConfig,
    ClapAudioModel,
    ClapFeatureExtractor,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTokenizer,
    ResNetConfig,
    ResNetForImageClassification,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    ViTImageProcessorPil,
)

from avgas_pipeline import AudioVisualSeparator, AVGASPipeline


LABELS = ["cat meowing", "dog barking", "raining", "sea waves", "thunder"]


def tiny_unet(time_cond_proj_dim=None, block_out_channels=(8, 16), attention_head_dim=2):
    """Stable-Diffusion-shaped, for 64x64 images with the VAE's factor of 2."""
    torch.manual_seed(0)
    return UNet2DConditionModel(
        block_out_channels=block_out_channels,
        layers_per_block=1,
        sample_size=32,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=attention_head_dim,
        norm_num_groups=4,
        time_cond_proj_dim=time_cond_proj_dim,
    )


def tiny_vae():
    torch.manual_seed(1)
    return AutoencoderKL(
        block_out_channels=[8, 16],
        down_block_types=["DownEncoderBlock2D", "DownEncoderBlock2D"],
        up_block_types=["UpDecoderBlock2D", "UpDecoderBlock2D"],
        latent_channels=4,
        norm_num_groups=4,
        sample_size=64,
    )


def tiny_ast():
    """AST with windows of 1.28 s, and its feature extractor."""
    torch.manual_seed(2)
    config = ASTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        num_mel_bins=32,
        max_length=128,
        frequency_stride=16,
        time_stride=16,
    )
    return ASTModel(config).eval(), ASTFeatureExtractor(num_mel_bins=32, max_length=128)


def tiny_clap():
    """CLAP's audio encoder (HTSAT) with windows of 1 s at 48 kHz, and its feature extractor."""
    torch.manual_seed(3)
    config = ClapAudioConfig(
        spec_size=64,
        num_mel_bins=16,
        patch_size=4,
        patch_stride=[4, 4],
        window_size=4,
        depths=[2, 2],
        num_attention_heads=[2, 2],
        num_hidden_layers=2,
        patch_embeds_hidden_size=8,
        hidden_size=16,
        projection_dim=16,
        enable_fusion=False,
    )
    extractor = ClapFeatureExtractor(feature_size=16, max_length_s=1, truncation="rand_trunc")
    return ClapAudioModel(config).eval(), extractor


def tiny_separator(audio_dim=16, num_prefix_tokens=2, num_frequency_patches=2, **config):
    """Four slots; the heads are sharpened so that sounds differ in how many are present and which labels they get."""
    torch.manual_seed(5)
    defaults = {
        "num_slots": 4,
        "num_layers": 2,
        "hidden_dim": 16,
        "num_attention_heads": 2,
        "num_condition_tokens": 2,
        "cross_attention_dim": 16,
        "label_temperature": 0.5,
        "audio_embed_dim": 8,
        "visual_embed_dim": 8,
        "id2label": dict(enumerate(LABELS)),
        "mask_channels": 4,
        "num_mask_bands": 16,
        "n_fft": 256,
        "hop_length": 64,
    }
    separator = AudioVisualSeparator(
        audio_dim=audio_dim,
        num_prefix_tokens=num_prefix_tokens,
        num_frequency_patches=num_frequency_patches,
        **{**defaults, **config},
    ).eval()
    with torch.no_grad():
        separator.class_head.weight *= 8
        separator.presence_head.weight *= 8
    return separator


def tiny_components(time_cond_proj_dim=None):
    """The keyword arguments of `AVGASPipeline`: AST encoder, SD-shaped U-Net, 64x64 images."""
    audio_encoder, audio_feature_extractor = tiny_ast()
    return {
        "vae": tiny_vae().eval(),
        "unet": tiny_unet(time_cond_proj_dim).eval(),
        "scheduler": DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
        ),
        "audio_encoder": audio_encoder,
        "audio_feature_extractor": audio_feature_extractor,
        "separator": tiny_separator(),
        "text_encoder": None,
        "tokenizer": None,
    }


def save_tiny_model(folder, labels, **config):
    """A pipeline of these labels; `config` of its separator."""
    components = tiny_components()
    components["separator"] = tiny_separator(id2label=dict(enumerate(labels)), **config)
    AVGASPipeline(**components).save_pretrained(folder)


def tiny_audio(seconds=1.0, seed=0):
    """A few decaying tones in noise, at 16 kHz: `(array, sampling_rate)`."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * 16000)) / 16000
    wave = 0.02 * rng.standard_normal(len(time))
    for frequency in rng.uniform(100, 6000, size=3):
        wave += 0.2 * np.sin(2 * np.pi * frequency * time) * np.exp(-rng.uniform(0, 3) * time)
    return wave.astype(np.float32), 16000


def save_tiny_judge(folder, labels, **config):
    """A random multi-label image classifier, as `ClassifierJudge` loads it."""
    torch.manual_seed(6)
    config = ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        layer_type="basic",
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
        **{"problem_type": "multi_label_classification", **config},
    )
    ResNetForImageClassification(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)


def tiny_tokenizer(max_length=20):
    """A CLIP tokenizer whose vocabulary is single bytes; 512 begins a text and 513 ends it."""
    letters = sorted(ByteLevel.alphabet())
    words = letters + [f"{letter}</w>" for letter in letters] + ["<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[])
    tokenizer.model_max_length = max_length
    return tokenizer


def save_tiny_clip(folder, siglip=False):
    """A random CLIP or SigLIP with its tokenizer and image processor."""
    torch.manual_seed(7)
    tiny_tokenizer(48).save_pretrained(folder)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    tokens = {"vocab_size": 514, "max_position_embeddings": 48, "bos_token_id": 512, "eos_token_id": 513}
    vision = {**sizes, "image_size": 32, "patch_size": 8}
    if siglip:
        model = SiglipModel(SiglipConfig(text_config={**sizes, **tokens, "projection_size": 16}, vision_config=vision))
        processor = SiglipImageProcessorPil(size={"height": 32, "width": 32})
    else:
        model = CLIPModel(CLIPConfig(text_config={**sizes, **tokens}, vision_config=vision, projection_dim=12))
        processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
