"""Tiny random-weight text-to-image pipelines of the real diffusers classes, and two that are none."""

import diffusers
import torch
import transformers
from tiny import tiny_tokenizer, tiny_unet, tiny_vae
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors


# Builders by the name of the class that they build; the keyword arguments that keep its call small and fast.
PAINTERS = {}
SMALL = {}

ATTENTION = {"num_attention_heads": 2, "attention_head_dim": 16}
DIT = {**ATTENTION, "num_layers": 2, "in_channels": 4, "sample_size": 16}
# Of latents that are packed in twos by twos.
FLUX_DIT = {
    **ATTENTION,
    "num_layers": 1,
    "num_single_layers": 1,
    "in_channels": 16,
    "joint_attention_dim": 32,
    "axes_dims_rope": (4, 6, 6),
}
# The range is wide because some pipelines take the hidden states from before the last norm.
LANGUAGE_MODEL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "initializer_range": 0.3,
}
LATENT_DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}

PRINTABLE = [chr(number) for number in range(33, 127)]
# The words of QwenImagePipeline's template, whose first 34 tokens it drops: as many as come before the prompt.
QWEN_INNER_WORDS = (
    " the image by detailing color shape size texture quantity text spatial relationships of objects and background"
)
QWEN_WORDS = [*QWEN_INNER_WORDS.replace(" ", " Ġ").split(), "Describe", "system", "user", "assistant"]
QWEN_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def quiet(pipe):
    """Without dropout and progress bars."""
    for component in pipe.components.values():
        if isinstance(component, torch.nn.Module):
            component.eval()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def painter(pipeline_class, **small):
    """Registers a function that returns the parts of `pipeline_class`, whose call `small` keeps small and fast."""

    def register(parts):
        def build():
            torch.manual_seed(0)
            return quiet(pipeline_class(**parts()))

        PAINTERS[pipeline_class.__name__] = build
        SMALL[pipeline_class.__name__] = {"height": 32, "width": 32, **small}
        return parts

    return register


def louder(layer, factor=10):
    """Multiplies a layer, for where the text hardly shows with the weights that the class begins with."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter *= factor


def shifted_vae():
    """The VAE of those pipelines that also shift the latents."""
    vae = tiny_vae()
    vae.register_to_config(shift_factor=0.1)
    return vae


def clip_text_encoder(model_class=transformers.CLIPTextModel, **config):
    """CLIP's text encoder of 77 tokens."""
    tokens = {"vocab_size": 514, "max_position_embeddings": 77, "bos_token_id": 512, "eos_token_id": 513}
    layers = {"num_hidden_layers": 2, "num_attention_heads": 2}
    sizes = {"hidden_size": 16, "intermediate_size": 32, "projection_dim": 16}
    return model_class(transformers.CLIPTextConfig(**tokens, **layers, **sizes, **config))


def t5_tokenizer():
    """T5's tokenizer whose vocabulary is single characters."""
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocab = special + [(letter, -1.0) for letter in ["▁", *PRINTABLE]]
    return transformers.T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=512)


def t5_text_encoder(tokenizer, config_class=transformers.T5Config, model_class=transformers.T5EncoderModel):
    """T5's encoder, or UMT5's."""
    sizes = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
    return model_class(config_class(vocab_size=len(tokenizer), feed_forward_proj="gated-gelu", **sizes))


def gemma_tokenizer():
    """Gemma's tokenizer whose vocabulary is single characters and bytes."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    tokens = [*special, *(f"<0x{number:02X}>" for number in range(256)), "▁", "\n", *PRINTABLE]
    vocab = {token: number for number, token in enumerate(tokens)}
    return transformers.GemmaTokenizer(vocab=vocab, merges=[], add_bos_token=True, padding_side="right")


def gemma_text_encoder(tokenizer):
    """Gemma 2 without its head."""
    sizes = {**LANGUAGE_MODEL, "head_dim": 16, "query_pre_attn_scalar": 16}
    return transformers.Gemma2Model(transformers.Gemma2Config(vocab_size=len(tokenizer), **sizes))


def byte_vocabulary(words=(), special=()):
    """The vocabulary and the merges of single bytes, the given words with their beginnings, and special tokens."""
    merges = list(dict.fromkeys((word[:end], word[end]) for word in words for end in range(1, len(word))))
    tokens = sorted(pre_tokenizers.ByteLevel.alphabet()) + [beginning + letter for beginning, letter in merges]
    return {token: number for number, token in enumerate([*tokens, *special])}, merges


def qwen_tokenizer():
    """Qwen's tokenizer whose vocabulary is single bytes and the words of QwenImage's template."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocab, merges = byte_vocabulary(QWEN_WORDS, special)
    tokenizer = transformers.Qwen2Tokenizer(vocab=vocab, merges=merges, additional_special_tokens=special[1:])
    tokenizer.chat_template = QWEN_CHAT
    return tokenizer


def glm_tokenizer():
    """A tokenizer of single bytes that begins texts and pads them as GLM-4's does."""
    begin = ["[gMASK]", "<sop>"]
    vocab, merges = byte_vocabulary(special=["<|endoftext|>", *begin])
    backend = Tokenizer(models.BPE(vocab, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.TemplateProcessing(
        single=f"{' '.join(begin)} $A", special_tokens=[(token, vocab[token]) for token in begin]
    )
    special = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "additional_special_tokens": begin}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, padding_side="left", **special)


@painter(diffusers.StableDiffusionPipeline)
def stable_diffusion():
    """Parts of StableDiffusionPipeline."""
    return {
        "vae": tiny_vae(),
        "unet": tiny_unet(),
        "text_encoder": clip_text_encoder(),
        "tokenizer": tiny_tokenizer(77),
        "scheduler": diffusers.DDIMScheduler(clip_sample=False, set_alpha_to_one=False, **LATENT_DIFFUSION),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }


@painter(diffusers.StableDiffusionXLPipeline)
def stable_diffusion_xl():
    """Parts of StableDiffusionXLPipeline, with 6 * 8 numbers for its six sizes beside the 16 of the pooled text."""
    sizes = {
        "cross_attention_dim": 32,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 64,
    }
    return {
        "vae": tiny_vae(),
        "unet": diffusers.UNet2DConditionModel.from_config(tiny_unet().config, **sizes),
        "text_encoder": clip_text_encoder(),
        "tokenizer": tiny_tokenizer(77),
        "text_encoder_2": clip_text_encoder(transformers.CLIPTextModelWithProjection, hidden_act="gelu"),
        "tokenizer_2": tiny_tokenizer(77),
        "scheduler": diffusers.EulerDiscreteScheduler(**LATENT_DIFFUSION),
    }


@painter(diffusers.StableDiffusion3Pipeline, max_sequence_length=128)
def stable_diffusion_3():
    """Parts of StableDiffusion3Pipeline."""
    tokenizer = t5_tokenizer()
    sizes = {"out_channels": 4, "joint_attention_dim": 32, "caption_projection_dim": 32, "pooled_projection_dim": 32}
    return {
        "vae": shifted_vae(),
        "transformer": diffusers.SD3Transformer2DModel(pos_embed_max_size=16, qk_norm="rms_norm", **sizes, **DIT),
        "text_encoder": clip_text_encoder(transformers.CLIPTextModelWithProjection),
        "tokenizer": tiny_tokenizer(77),
        "text_encoder_2": clip_text_encoder(transformers.CLIPTextModelWithProjection, hidden_act="gelu"),
        "tokenizer_2": tiny_tokenizer(77),
        "text_encoder_3": t5_text_encoder(tokenizer),
        "tokenizer_3": tokenizer,
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    }


@painter(diffusers.FluxPipeline, max_sequence_length=128)
def flux():
    """Parts of FluxPipeline, with the embedded guidance of its "dev" weights."""
    tokenizer = t5_tokenizer()
    return {
        "vae": shifted_vae(),
        "transformer": diffusers.FluxTransformer2DModel(pooled_projection_dim=16, guidance_embeds=True, **FLUX_DIT),
        "text_encoder": clip_text_encoder(),
        "tokenizer": tiny_tokenizer(77),
        "text_encoder_2": t5_text_encoder(tokenizer),
        "tokenizer_2": tokenizer,
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
    }


@painter(diffusers.ChromaPipeline, max_sequence_length=128)
def chroma():
    """Parts of ChromaPipeline."""
    tokenizer = t5_tokenizer()
    sizes = {"approximator_num_channels": 16, "approximator_hidden_dim": 32, "approximator_layers": 1}
    return {
        "vae": shifted_vae(),
        "transformer": diffusers.ChromaTransformer2DModel(**sizes, **FLUX_DIT),
        "text_encoder": t5_text_encoder(tokenizer),
        "tokenizer": tokenizer,
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    }


# The sizes that it rounds to are too large, and it warns that it cannot clean captions without further packages.
@painter(diffusers.PixArtSigmaPipeline, max_sequence_length=128, use_resolution_binning=False, clean_caption=False)
def pixart_sigma():
    """Parts of PixArtSigmaPipeline."""
    tokenizer = t5_tokenizer()
    # The least sample size for which it knows aspect ratios.
    sizes = {**DIT, "cross_attention_dim": 32, "caption_channels": 32, "sample_size": 32}
    return {
        "vae": tiny_vae(),
        "transformer": diffusers.PixArtTransformer2DModel(use_additional_conditions=False, **sizes),
        "text_encoder": t5_text_encoder(tokenizer),
        "tokenizer": tokenizer,
        "scheduler": diffusers.DPMSolverMultistepScheduler(),
    }


@painter(diffusers.AuraFlowPipeline, max_sequence_length=128)
def aura_flow():
    """Parts of AuraFlowPipeline."""
    tokenizer = t5_tokenizer()
    transformer = diffusers.AuraFlowTransformer2DModel(
        sample_size=16,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        joint_attention_dim=32,
        caption_projection_dim=32,
        pos_embed_max_size=64,
        **ATTENTION,
    )
    louder(transformer.time_step_proj)
    return {
        "vae": tiny_vae(),
        "transformer": transformer,
        "text_encoder": t5_text_encoder(tokenizer, transformers.UMT5Config, transformers.UMT5EncoderModel),
        "tokenizer": tokenizer,
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=1.73),
    }


# The sizes that it rounds to are too large, and its long instruction would be a thousand tokens.
@painter(diffusers.SanaPipeline, max_sequence_length=128, use_resolution_binning=False, complex_human_instruction=None)
def sana():
    """Parts of SanaPipeline."""
    tokenizer = gemma_tokenizer()
    sizes = {"cross_attention_head_dim": 16, "cross_attention_dim": 32, "caption_channels": 32, "out_channels": 4}
    return {
        "vae": diffusers.AutoencoderDC(
            latent_channels=4,
            attention_head_dim=4,
            encoder_block_out_channels=(8, 16),
            decoder_block_out_channels=(8, 16),
            encoder_layers_per_block=(1, 1),
            decoder_layers_per_block=(1, 1),
            encoder_qkv_multiscales=((), ()),
            decoder_qkv_multiscales=((), ()),
            scaling_factor=0.41407,
        ),
        "transformer": diffusers.SanaTransformer2DModel(num_cross_attention_heads=2, **sizes, **DIT),
        "text_encoder": gemma_text_encoder(tokenizer),
        "tokenizer": tokenizer,
        "scheduler": diffusers.DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    }


# Its system prompt alone is 165 of these tokens.
@painter(diffusers.Lumina2Pipeline, max_sequence_length=512)
def lumina2():
    """Parts of Lumina2Pipeline, which takes for granted that the VAE's factor is 8."""
    tokenizer = gemma_tokenizer()
    return {
        "vae": diffusers.AutoencoderKL(
            block_out_channels=[8] * 4,
            down_block_types=["DownEncoderBlock2D"] * 4,
            up_block_types=["UpDecoderBlock2D"] * 4,
            latent_channels=4,
            norm_num_groups=4,
            shift_factor=0.1,
        ),
        "transformer": diffusers.Lumina2Transformer2DModel(
            sample_size=4,
            in_channels=4,
            hidden_size=32,
            num_layers=2,
            num_refiner_layers=1,
            num_attention_heads=2,
            num_kv_heads=1,
            multiple_of=16,
            axes_dim_rope=(4, 6, 6),
            axes_lens=(600, 32, 32),
            cap_feat_dim=32,
        ),
        "text_encoder": gemma_text_encoder(tokenizer),
        "tokenizer": tokenizer,
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=6.0),
    }


# It warns where it is asked for guidance without a negative prompt.
@painter(diffusers.QwenImagePipeline, max_sequence_length=128, true_cfg_scale=1.0)
def qwen_image():
    """Parts of QwenImagePipeline."""
    tokenizer = qwen_tokenizer()
    text = {
        **LANGUAGE_MODEL,
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.convert_tokens_to_ids("<|im_end|>"),
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]},
    }
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32}
    config = transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision)
    sizes = {"in_channels": 16, "out_channels": 4, "joint_attention_dim": 32, "axes_dims_rope": (4, 6, 6)}
    transformer = diffusers.QwenImageTransformer2DModel(num_layers=2, **sizes, **ATTENTION)
    louder(transformer.time_text_embed.timestep_embedder.linear_2)
    return {
        "vae": diffusers.AutoencoderKLQwenImage(
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 2],
            num_res_blocks=1,
            temperal_downsample=[False],
            latents_mean=[0.0, 0.1, 0.0, -0.1],
            latents_std=[1.0, 0.9, 1.1, 1.0],
        ),
        "transformer": transformer,
        "text_encoder": transformers.Qwen2_5_VLForConditionalGeneration(config),
        "tokenizer": tokenizer,
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    }


@painter(diffusers.ZImagePipeline, max_sequence_length=128)
def z_image():
    """Parts of ZImagePipeline."""
    tokenizer = qwen_tokenizer()
    config = transformers.Qwen3Config(vocab_size=len(tokenizer), head_dim=16, **LANGUAGE_MODEL)
    return {
        "vae": shifted_vae(),
        "transformer": diffusers.ZImageTransformer2DModel(
            in_channels=4,
            dim=32,
            n_layers=2,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=32,
            axes_dims=[4, 6, 6],
            axes_lens=[256, 32, 32],
        ),
        "text_encoder": transformers.Qwen3Model(config),
        "tokenizer": tokenizer,
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    }


@painter(diffusers.CogView4Pipeline, max_sequence_length=128)
def cogview4():
    """Parts of CogView4Pipeline, which pads the longest of a batch up to a multiple of 16 without a mask."""
    tokenizer = glm_tokenizer()
    tokens = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    config = transformers.GlmConfig(eos_token_id=tokenizer.eos_token_id, head_dim=16, **tokens, **LANGUAGE_MODEL)
    sizes = {"out_channels": 4, "text_embed_dim": 32, "time_embed_dim": 32, "condition_dim": 8}
    return {
        "vae": tiny_vae(),
        "transformer": diffusers.CogView4Transformer2DModel(rope_axes_dim=(16, 16), **sizes, **DIT),
        "text_encoder": transformers.GlmModel(config),
        "tokenizer": tokenizer,
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_shift=0.25, max_shift=0.75, time_shift_type="linear"
        ),
    }


def image_to_image():
    """Stable Diffusion that begins with a picture."""
    parts = PAINTERS["StableDiffusionPipeline"]().components
    return quiet(diffusers.StableDiffusionImg2ImgPipeline(**parts, requires_safety_checker=False))


def unconditional():
    """DDPM of 16x16 pictures, which reads no text."""
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=16,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
        norm_num_groups=4,
    )
    return quiet(diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler()))


NOT_TEXT_TO_IMAGE = {"StableDiffusionImg2ImgPipeline": image_to_image, "DDPMPipeline": unconditional}
