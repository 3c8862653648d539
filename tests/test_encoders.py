"""Every family of audio encoders, and pipelines assembled from public parts."""

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from drawing import difference, draw, seeded
from tiny import tiny_ast, tiny_audio, tiny_clap, tiny_components, tiny_separator, tiny_tokenizer
from transformers import (
    ASTFeatureExtractor,
    AutoFeatureExtractor,
    AutoModel,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    MobileNetV1Model,
    ResNetConfig,
    ResNetModel,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertConfig,
    Wav2Vec2BertModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

from avgas_pipeline import AVGASPipeline, WhisperAudioEncoder, YamnetEncoder, YamnetFeatureExtractor
from avgas_pipeline.audio.windows import Window
from avgas_pipeline.loaders.from_parts import build_separator
from avgas_pipeline.models.encoder_adapters import encoder_inputs
from avgas_pipeline.models.yamnet import YamnetConfig


def tiny_whisper_config():
    return WhisperConfig(
        d_model=16,
        encoder_layers=1,
        encoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=16,
        num_mel_bins=16,
        max_source_positions=50,
        vocab_size=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )


def whisper():
    return WhisperAudioEncoder(tiny_whisper_config()).eval(), WhisperFeatureExtractor(feature_size=16, chunk_length=1)


def resnet():
    config = ResNetConfig(
        num_channels=1, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", out_features=None
    )
    return ResNetModel(config).eval(), ASTFeatureExtractor(num_mel_bins=32, max_length=128)


def wav2vec2():
    config = Wav2Vec2Config(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(8, 8),
        conv_stride=(10, 16),
        conv_kernel=(20, 16),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )
    return Wav2Vec2Model(config).eval(), Wav2Vec2FeatureExtractor(return_attention_mask=True)


def wav2vec2_bert():
    config = Wav2Vec2BertConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        feature_projection_input_dim=32,
        conv_depthwise_kernel_size=3,
    )
    return Wav2Vec2BertModel(config).eval(), SeamlessM4TFeatureExtractor(feature_size=16, num_mel_bins=16)


def yamnet(**config):
    encoder = YamnetEncoder(YamnetConfig(**({"depth_multiplier": 0.01} | config))).eval()
    for layer in (encoder.conv_stem, *encoder.layer):
        # So that after 27 layers there is something left.
        torch.nn.init.kaiming_normal_(layer.convolution.weight)
    return encoder, YamnetFeatureExtractor(window_s=1.0)


ENCODERS = {
    "ast": tiny_ast,
    "clap": tiny_clap,
    "whisper": whisper,
    "resnet": resnet,
    "wav2vec2": wav2vec2,
    "wav2vec2-bert": wav2vec2_bert,
    "yamnet": yamnet,
}


@pytest.fixture(params=ENCODERS)
def encoder_pipe(request):
    torch.manual_seed(0)
    encoder, extractor = ENCODERS[request.param]()
    components = tiny_components()
    torch.manual_seed(0)
    small = {"num_slots": 4, "num_layers": 1, "hidden_dim": 16, "num_attention_heads": 2, "num_condition_tokens": 2}
    components["separator"] = build_separator(encoder, extractor, components["unet"], mask_channels=4, **small)
    components |= {"audio_encoder": encoder, "audio_feature_extractor": extractor}
    pipe = AVGASPipeline(**components)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_mixed_and_separated_images_from_any_encoder(encoder_pipe):
    out = draw(encoder_pipe, separate=True, num_sources=2)
    assert np.isfinite(out.images).all()
    assert [source.audio.shape for source in out.sources[0]] == [(encoder_pipe.sampling_rate,)] * 2
    # What it draws depends on what it hears.
    other = draw(encoder_pipe, tiny_audio(1.0, 9)[0], num_sources=2)
    assert difference(out.images, other.images) > 1e-6


def test_batches_of_different_lengths_with_any_encoder(encoder_pipe):
    audio = [tiny_audio(seconds, seed)[0] for seconds, seed in ((0.4, 0), (2.7, 1), (1.0, 2))]
    batch = draw(encoder_pipe, audio, seeded(0, 1, 2), num_sources=2)
    for number, item in enumerate(audio):
        assert difference(draw(encoder_pipe, item, seeded(number), num_sources=2).images, batch.images[number]) < 1e-4


def test_same_audio_same_bytes_with_any_encoder(encoder_pipe):
    audio = tiny_audio(3.3)[0]
    np.random.seed(0)
    first = encoder_pipe.encode_audio(audio, 16000, num_sources=2).audio_embeds
    np.random.seed(1)
    assert torch.equal(first, encoder_pipe.encode_audio(audio, 16000, num_sources=2).audio_embeds)


def test_round_trip_with_any_encoder(encoder_pipe, tmp_path):
    encoder_pipe.save_pretrained(tmp_path)
    loaded = AVGASPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert type(loaded.audio_encoder) is type(encoder_pipe.audio_encoder)
    expected = draw(encoder_pipe, num_sources=2).images
    assert difference(draw(loaded, num_sources=2).images, expected) < 1e-5


def test_fused_clap_is_deterministic():
    encoder, _ = tiny_clap()
    extractor = ClapFeatureExtractor(feature_size=16, max_length_s=1, truncation="fusion")
    windows = [Window(0, np.ones(48000, np.float32), 48000)] * 2
    inputs = encoder_inputs(extractor, encoder, windows)
    assert inputs["input_features"].shape[1] == 4 and not inputs["is_longer"].any()


def test_windows_are_padded_in_frames_where_lengths_are_counted_in_frames():
    encoder, extractor = wav2vec2_bert()
    windows = [Window(0, np.pad(tiny_audio()[0], (0, 144000)), 16000)]
    inputs = encoder_inputs(extractor, encoder, windows)
    # Two frames of 10 ms are one.
    assert abs(inputs["input_features"].shape[1] - 500) <= 2
    assert abs(inputs["attention_mask"].sum() - 50) <= 2


# -- YAMNet ---------------------------------------------------------------------------------------------------------


def test_front_end_by_hand():
    """A tone in its band, as the definition has it: log of the magnitude of a Hann frame of 25 ms, and 0.001."""
    amplitude, frequency = 0.1, 1000.0
    tone = amplitude * np.sin(2 * np.pi * frequency * np.arange(16000) / 16000)
    features = YamnetFeatureExtractor(window_s=1.0)(tone, return_tensors="np")["input_features"][0]
    assert features.shape == (100, 64)
    middle = features[10:-10].mean(axis=0)
    low, high, own = 2595 * np.log10(1 + np.array([125.0, 7500.0, frequency]) / 700)
    assert abs(middle.argmax() + 1 - 65 * (own - low) / (high - low)) <= 1
    # A frame of 400 samples in an FFT of 512: a main lobe of five bins, 500 to 600 Hz above the band's two edges.
    peak = amplitude * 400 / 4
    assert np.log(0.5 * peak) < middle.max() < np.log(3 * peak)
    assert np.allclose(
        YamnetFeatureExtractor(window_s=1.0)(np.zeros(16000), return_tensors="np").input_features, np.log(0.001)
    )


def test_front_end_pads_and_cuts_to_its_window():
    extractor = YamnetFeatureExtractor(window_s=1.0)
    noise = np.random.default_rng(0).normal(0, 0.1, 24000).astype(np.float32)
    whole, first, short = extractor([noise, noise[:16000], noise[:8000]], return_tensors="np")["input_features"]
    assert np.array_equal(whole, first)
    assert np.allclose(short[50:], np.log(0.001)) and np.array_equal(short[:48], first[:48])
    with pytest.raises(ValueError, match="at 8000 Hz, but has to be at 16000 Hz"):
        extractor(noise, sampling_rate=8000)


def test_front_end_computes_where_it_is_told():
    with pytest.raises(NotImplementedError, match="meta tensor"):
        YamnetFeatureExtractor()(np.zeros(16000), device="meta")


def test_yamnet_shows_its_last_map_and_a_finer_one():
    torch.manual_seed(0)
    encoder, _ = yamnet(depth_multiplier=0.125)
    spectrogram = torch.randn(2, 1, 64, 500)
    hidden = encoder(spectrogram).last_hidden_state
    assert hidden.shape == (2, 128 + 64, 4, 32) and hidden.shape[1] == encoder.config.hidden_size
    maps = MobileNetV1Model.forward(encoder, spectrogram, output_hidden_states=True)
    torch.testing.assert_close(hidden[:, :128, ::2, ::2], maps.last_hidden_state)
    torch.testing.assert_close(hidden[:, 128:], maps.hidden_states[21])


def test_yamnet_keeps_its_statistics_in_training():
    torch.manual_seed(0)
    encoder = yamnet()[0].train()
    before = encoder.conv_stem.normalization.running_var.clone()
    encoder(torch.randn(2, 1, 64, 100))
    after = encoder.conv_stem.normalization.running_var
    assert not torch.equal(before, after) and (after / before - 1).abs().max() < 0.1


def test_yamnet_is_found_by_name(tmp_path):
    encoder, extractor = yamnet()
    encoder.save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    assert isinstance(AutoModel.from_pretrained(tmp_path), YamnetEncoder)
    assert AutoFeatureExtractor.from_pretrained(tmp_path).n_samples == 16000


# -- from_stable_diffusion ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def stable_diffusion(components, tokenizer_folder):
    torch.manual_seed(0)
    config = CLIPTextConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        vocab_size=514,
        max_position_embeddings=20,
        bos_token_id=512,
        eos_token_id=513,
        pad_token_id=513,
    )
    return StableDiffusionPipeline(
        vae=components["vae"],
        unet=components["unet"],
        scheduler=components["scheduler"],
        text_encoder=CLIPTextModel(config).eval(),
        tokenizer=CLIPTokenizer.from_pretrained(tokenizer_folder),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def test_from_a_loaded_pipeline(stable_diffusion):
    encoder, extractor = tiny_ast()
    pipe = AVGASPipeline.from_stable_diffusion(
        stable_diffusion, audio_encoder=encoder, audio_feature_extractor=extractor, num_slots=3, hidden_dim=16
    )
    pipe.set_progress_bar_config(disable=True)
    assert pipe.unet is stable_diffusion.unet and pipe.text_encoder is None
    config = pipe.separator.config
    assert (config.num_slots, config.audio_dim, config.num_prefix_tokens, config.num_frequency_patches) == (
        3,
        16,
        2,
        2,
    )
    assert config.cross_attention_dim == 16 and len(pipe.separator.id2label) == 309
    assert (config.n_fft, config.hop_length) == (1024, 256)
    assert len(draw(pipe, num_sources=3, separate=True).sources[0]) == 3


def test_from_folders(stable_diffusion, tmp_path):
    stable_diffusion.save_pretrained(tmp_path / "sd")
    encoder, extractor = tiny_ast()
    encoder.save_pretrained(tmp_path / "ast")
    extractor.save_pretrained(tmp_path / "ast")
    pipe = AVGASPipeline.from_stable_diffusion(
        str(tmp_path / "sd"), audio_encoder=str(tmp_path / "ast"), id2label={0: "cat", 1: "dog"}
    )
    assert pipe.separator.id2label == {0: "cat", 1: "dog"}
    assert type(pipe.audio_feature_extractor).__name__ == "ASTFeatureExtractor"
    pipe.save_pretrained(tmp_path / "avgas")
    assert AVGASPipeline.from_pretrained(tmp_path / "avgas").separator.config.num_slots == 8


def test_from_folders_in_half_precision(stable_diffusion, tmp_path):
    stable_diffusion.to(torch.float16).save_pretrained(tmp_path / "sd")
    encoder, extractor = tiny_ast()
    encoder.to(torch.float16).save_pretrained(tmp_path / "ast")
    extractor.save_pretrained(tmp_path / "ast")
    for dtype in (None, torch.float16):
        pipe = AVGASPipeline.from_stable_diffusion(
            str(tmp_path / "sd"), audio_encoder=str(tmp_path / "ast"), use_text_encoder=True, dtype=dtype
        )
        models = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
        assert len(models) == 5 and {model.dtype for model in models} == {dtype or torch.float32}


@pytest.mark.parametrize("name", ["clap", "whisper", "wav2vec2", "resnet"])
def test_encoders_from_folders_of_their_own(name, stable_diffusion, tmp_path):
    encoder, extractor = ENCODERS[name]()
    encoder.save_pretrained(tmp_path)
    if name == "resnet":
        with pytest.raises(ValueError, match="audio_feature_extractor"):
            AVGASPipeline.from_stable_diffusion(stable_diffusion, str(tmp_path))
        pipe = AVGASPipeline.from_stable_diffusion(stable_diffusion, str(tmp_path), extractor)
    else:
        extractor.save_pretrained(tmp_path)
        pipe = AVGASPipeline.from_stable_diffusion(stable_diffusion, str(tmp_path))
    assert type(pipe.audio_encoder) is type(encoder)
    expected, loaded = encoder.state_dict(), pipe.audio_encoder.state_dict()
    assert all(torch.equal(expected[key], loaded[key]) for key in expected)


def test_the_audio_side_is_taken_of_clap_and_whisper(stable_diffusion):
    _, extractor = tiny_clap()
    audio_config = tiny_clap()[0].config.to_dict()
    clap = ClapModel(
        ClapConfig(
            text_config={"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16},
            audio_config=audio_config,
            projection_dim=16,
        )
    ).eval()
    pipe = AVGASPipeline.from_stable_diffusion(stable_diffusion, clap, extractor)
    assert pipe.audio_encoder is clap.audio_model
    assert pipe.sampling_rate == 48000 and pipe.separator.config.n_fft == 4096

    whisper_model = WhisperModel(tiny_whisper_config()).eval()
    pipe = AVGASPipeline.from_stable_diffusion(
        stable_diffusion, whisper_model, WhisperFeatureExtractor(feature_size=16, chunk_length=1)
    )
    assert isinstance(pipe.audio_encoder, WhisperAudioEncoder)
    features = torch.randn(1, 16, 100)
    expected = whisper_model.get_encoder()(features).last_hidden_state
    assert torch.equal(pipe.audio_encoder(features).last_hidden_state, expected)


def test_parts_that_do_not_fit(stable_diffusion):
    encoder, extractor = tiny_ast()
    with pytest.raises(ValueError, match="audio_feature_extractor"):
        AVGASPipeline.from_stable_diffusion(stable_diffusion, audio_encoder=encoder)
    with pytest.raises(ValueError, match="num_slots"):
        AVGASPipeline.from_stable_diffusion(
            stable_diffusion, encoder, extractor, separator=tiny_separator(), num_slots=3
        )
    wide = tiny_separator(cross_attention_dim=32)
    with pytest.raises(ValueError, match="32 wide"):
        AVGASPipeline.from_stable_diffusion(stable_diffusion, encoder, extractor, separator=wide)
    with pytest.raises(ValueError, match="dtype"):
        AVGASPipeline.from_stable_diffusion(stable_diffusion, encoder, extractor, dtype=torch.float16)
    with pytest.raises(TypeError, match="slots"):
        AVGASPipeline.from_stable_diffusion(stable_diffusion, encoder, extractor, slots=3)


# -- text -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def text_pipe(components, stable_diffusion):
    pipe = AVGASPipeline(
        **{
            **components,
            "text_encoder": stable_diffusion.text_encoder,
            "tokenizer": stable_diffusion.tokenizer,
        }
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_prompts_change_the_picture(text_pipe, pipe):
    silent = draw(text_pipe)
    assert np.array_equal(silent.images, draw(pipe).images)
    oil, photo = draw(text_pipe, prompt="oil"), draw(text_pipe, prompt="photo")
    assert difference(silent.images, oil.images) > 1e-4
    assert difference(oil.images, photo.images) > 1e-5
    assert difference(oil.images, draw(text_pipe, prompt="oil", negative_prompt="blurry").images) > 1e-5


def test_prompts_in_batches_equal_single_calls(text_pipe):
    audio = [tiny_audio(1.5, 1)[0], tiny_audio(0.7, 2)[0]]
    batch = draw(text_pipe, audio, seeded(0, 1), prompt=["oil", "photo"], negative_prompt="x", separate=True)
    for number, prompt in enumerate(("oil", "photo")):
        single = draw(text_pipe, audio[number], seeded(number), prompt=prompt, negative_prompt="x", separate=True)
        assert difference(single.images[0], batch.images[number]) < 1e-4
        for one, other in zip(single.sources[0], batch.sources[number], strict=True):
            assert difference(one.images, other.images) < 1e-4


def test_prompt_embeds_replace_the_prompt(text_pipe):
    embeds, negative = text_pipe.encode_prompt(["oil"], "cpu", 1, True)
    out = draw(text_pipe, prompt_embeds=embeds, negative_prompt_embeds=negative)
    assert difference(out.images, draw(text_pipe, prompt="oil").images) < 1e-6


def test_negative_embeds_go_with_a_prompt(text_pipe):
    _, negative = text_pipe.encode_prompt(["oil"], "cpu", 1, True, ["blurry"])
    for given in ({"prompt": "oil"}, {}):
        expected = draw(text_pipe, negative_prompt="blurry", **given)
        assert difference(draw(text_pipe, negative_prompt_embeds=negative, **given).images, expected.images) < 1e-6


def test_without_guidance_there_is_nothing_negative(text_pipe):
    plain = draw(text_pipe, guidance_scale=1.0).images
    _, negative = text_pipe.encode_prompt(["oil"], "cpu", 1, True, ["blurry"])
    assert np.array_equal(draw(text_pipe, guidance_scale=1.0, negative_prompt="blurry").images, plain)
    assert np.array_equal(draw(text_pipe, guidance_scale=1.0, negative_prompt_embeds=negative).images, plain)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": ["a", "b"]}, "do not fit 1"),
        ({"prompt": 3}, "has to be of type"),
        ({"prompt": "a", "prompt_embeds": torch.zeros(1, 20, 16)}, "only one"),
    ],
)
def test_bad_text(text_pipe, options, message):
    with pytest.raises(ValueError, match=message):
        draw(text_pipe, **options)


def test_text_pipeline_round_trip(text_pipe, tmp_path):
    text_pipe.save_pretrained(tmp_path)
    loaded = AVGASPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert difference(draw(loaded, prompt="oil").images, draw(text_pipe, prompt="oil").images) < 1e-6
