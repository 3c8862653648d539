"""Door two: a trained audio half in front of Stable Diffusion 1.x, 2.x and XL draws at once what the base draws."""

from copy import deepcopy

import numpy as np
import PIL.Image
import pytest
import torch
import train as script
import training_runs as runs
from diffusers import DiffusionPipeline
from launching import two_processes
from painters import PAINTERS, SMALL
from safetensors import safe_open
from tiny import tiny_audio, tiny_components
from training_inputs import CLASSES, write_training_inputs
from training_runs import curve

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.data.mixtures import MixtureSampler
from avgas_pipeline.data.scenes import collage, crop_of
from avgas_pipeline.loaders.phrases import phrase_of
from avgas_pipeline.models.latent_scale import scale_latents, unscale_latents
from avgas_training.data.soundscapes import Collator


BASES = ["StableDiffusionPipeline", "StableDiffusionXLPipeline"]
LORA = "pytorch_lora_weights.safetensors"
STEPS = 3


def base_of(name):
    base = PAINTERS[name]()
    base.set_progress_bar_config(disable=True)
    return base


@pytest.fixture(scope="module", params=BASES)
def base(request):
    return base_of(request.param)


@pytest.fixture(scope="module")
def options(base):
    return {"num_inference_steps": STEPS, "output_type": "np", "guidance_scale": 5.0, **SMALL[type(base).__name__]}


@pytest.fixture(scope="module")
def pipe(base):
    audio = AVGASPipeline(**tiny_components(), speed_variation=0.1)
    pipe = AVGASPipeline.from_stable_diffusion(base, audio_checkpoint=audio)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def seed(number=0):
    return torch.Generator().manual_seed(number)


def by_hand(base, labels, options, **changed):
    """What the base draws of the phrases of labels, their embeddings side by side."""
    encoded = [
        base.encode_prompt(phrase_of(label), device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True)
        for label in labels
    ]
    call = {
        "prompt_embeds": torch.cat([each[0] for each in encoded], dim=1),
        "negative_prompt_embeds": torch.cat([each[1] for each in encoded], dim=1),
    }
    if len(encoded[0]) == 4:
        call["pooled_prompt_embeds"] = torch.stack([each[2] for each in encoded]).mean(dim=0)
        call["negative_pooled_prompt_embeds"] = encoded[0][3]
    return base(**call, generator=seed(), **{**options, **changed}).images[0]


def difference(first, second):
    return float(np.abs(np.asarray(first) - np.asarray(second)).max())


@pytest.mark.parametrize("guidance_scale", [1.0, 5.0])
def test_one_source_is_drawn_as_its_phrase(base, pipe, options, guidance_scale):
    call = {**options, "guidance_scale": guidance_scale}
    out = pipe(*tiny_audio(), num_sources=1, separate=True, generator=seed(), **call)
    label = out.sources[0][0].label
    expected = base(prompt=phrase_of(label), generator=seed(), **call).images[0]
    assert difference(out.images[0], expected) <= 1e-5
    assert difference(out.sources[0][0].images[0], expected) <= 1e-5
    other = base(prompt="a quiet library", generator=seed(), **call).images[0]
    assert difference(out.images[0], other) > 1e-3


def two_sources(pipe):
    for number in range(30):
        encoded = pipe.encode_audio(*tiny_audio(1.0, number), num_sources=2)
        labels = [source.label for source in encoded.sources[0]]
        if len(set(labels)) == 2:
            return encoded, labels
    raise AssertionError("no recording with two labels")


def test_two_sources_are_their_phrases_side_by_side(base, pipe, options):
    with torch.no_grad():
        encoded, labels = two_sources(pipe)
    out = pipe(**encoded, separate=True, generator=seed(), **options)
    assert difference(out.images[0], by_hand(base, labels, options)) <= 1e-5
    for source in out.sources[0]:
        assert difference(source.images[0], by_hand(base, [source.label], options)) <= 1e-5
    muted = pipe(**encoded, source_weights=[0, 1], generator=seed(), **options)
    assert difference(muted.images[0], by_hand(base, labels[1:], options)) <= 1e-5
    half = pipe(**encoded, source_weights=[0.5, 1], generator=seed(), **options).images[0]
    assert difference(half, out.images[0]) > 1e-4
    in_parts = pipe(**encoded, separate=True, generator=seed(), max_batch_rows=1, **options)
    assert difference(in_parts.images[0], out.images[0]) <= 1e-5


def test_settings_are_of_both_and_all_is_saved(base, pipe, options, tmp_path):
    assert pipe.config.default_num_inference_steps == 50 and pipe.config.speed_variation == 0.1
    assert pipe.config.default_guidance_scale == (5.0 if "XL" in type(base).__name__ else 7.5)
    expected = pipe(*tiny_audio(), num_sources=1, generator=seed(), **options).images[0]
    pipe.save_pretrained(tmp_path / "saved")
    loaded = AVGASPipeline.from_pretrained(tmp_path / "saved")
    again = loaded(*tiny_audio(), num_sources=1, generator=seed(), **options).images[0]
    assert difference(expected, again) <= 1e-6


def test_by_name(base, options, tmp_path):
    base.save_pretrained(tmp_path / "base")
    AVGASPipeline(**tiny_components()).save_pretrained(tmp_path / "audio")
    pipe = AVGASPipeline.from_stable_diffusion(str(tmp_path / "base"), audio_checkpoint=str(tmp_path / "audio"))
    out = pipe(*tiny_audio(), num_sources=1, generator=seed(), **options)
    expected = base(prompt=phrase_of(out.sources[0][0].label), generator=seed(), **options).images[0]
    assert difference(out.images[0], expected) <= 1e-5
    half = AVGASPipeline.from_stable_diffusion(
        str(tmp_path / "base"), audio_checkpoint=str(tmp_path / "audio"), dtype=torch.float16
    )
    is_xl = "XL" in type(base).__name__
    assert half.unet.dtype == half.separator.dtype == torch.float16
    assert half.vae.dtype == (torch.float32 if is_xl else torch.float16)
    half.save_pretrained(tmp_path / "half")
    again = AVGASPipeline.from_pretrained(tmp_path / "half", dtype=torch.float16)
    assert again.vae.dtype == half.vae.dtype and again.unet.dtype == torch.float16
    loaded = DiffusionPipeline.from_pretrained(tmp_path / "base", dtype=torch.float16)
    other = AVGASPipeline.from_stable_diffusion(loaded, audio_checkpoint=str(tmp_path / "audio"))
    assert other.vae.dtype == half.vae.dtype and loaded.vae.dtype == torch.float16


def test_it_is_the_same_every_time(base):
    audio = AVGASPipeline(**tiny_components())
    first, second = (AVGASPipeline.from_stable_diffusion(base, audio_checkpoint=audio).separator for _ in range(2))
    assert all(torch.equal(weight, second.state_dict()[name]) for name, weight in first.state_dict().items())


def test_latents_are_scaled_and_back(base):
    vae = deepcopy(base.vae)
    latents = torch.randn(2, 4, 8, 8)
    for config in ({}, {"shift_factor": 0.3}, {"latents_mean": [0.1, 0.2, 0.3, 0.4], "latents_std": [1, 2, 3, 4]}):
        vae.register_to_config(**config)
        assert torch.allclose(unscale_latents(vae, scale_latents(vae, latents)), latents, atol=1e-5)
    # As StableDiffusionXLPipeline decodes the latents of a base that has both.
    mean, std = (torch.tensor(vae.config[name]).view(1, 4, 1, 1) for name in ("latents_mean", "latents_std"))
    assert torch.allclose(unscale_latents(vae, latents), latents * std / vae.config.scaling_factor + mean, atol=1e-5)


def test_the_shipped_model_before_any_base(base, options):
    pipe = AVGASPipeline.from_stable_diffusion(base, audio_checkpoint="avgas-mini")
    pipe.set_progress_bar_config(disable=True)
    with torch.no_grad():
        encoded = pipe.encode_audio("examples/mixture-dog-bird.flac")
    labels = [source.label for source in encoded.sources[0]]
    assert set(labels) == {"dog barking", "bird chirping, tweeting"}
    out = pipe(**encoded, generator=seed(), **options)
    assert difference(out.images[0], by_hand(base, labels, options)) <= 1e-5


def test_wrong_parts(base):
    audio = AVGASPipeline(**tiny_components())
    with pytest.raises(ValueError, match="exactly one"):
        AVGASPipeline.from_stable_diffusion(base)
    with pytest.raises(ValueError, match="exactly one"):
        AVGASPipeline.from_stable_diffusion(base, audio.audio_encoder, audio_checkpoint=audio)
    with pytest.raises(ValueError, match="brings its own"):
        AVGASPipeline.from_stable_diffusion(base, audio_checkpoint=audio, num_slots=3)
    with pytest.raises(ValueError, match="trained AVGASPipeline"):
        AVGASPipeline.from_stable_diffusion(base, audio_checkpoint=base)
    with pytest.raises(ValueError, match="no such U-Net"):
        AVGASPipeline.from_stable_diffusion(PAINTERS["FluxPipeline"](), audio_checkpoint=audio)
    silent = type(base)(**{**base.components, "text_encoder": None})
    with pytest.raises(ValueError, match="text encoders"):
        AVGASPipeline.from_stable_diffusion(silent, audio_checkpoint=audio)
    if "XL" in type(base).__name__:
        with pytest.raises(ValueError, match="use_text_encoder"):
            AVGASPipeline.from_stable_diffusion(base, audio_checkpoint=audio, use_text_encoder=True)


# -- training ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inputs(base, tmp_path_factory):
    """Clips, and a pipeline that starts from a base; read-only by convention."""
    folder = tmp_path_factory.mktemp("training")
    write_training_inputs(folder)
    audio = AVGASPipeline.from_pretrained(folder / "untrained")
    AVGASPipeline.from_stable_diffusion(base, audio_checkpoint=audio).save_pretrained(folder / "start")
    return folder


def settings(inputs, out, base, **changed):
    small = SMALL[type(base).__name__]
    changed = {"pretrained_model_name_or_path": inputs / "start", "resolution": small.get("height", 32), **changed}
    return runs.mixture_settings(inputs, out, {"mixed_precision": "no", "learning_rate": 3e-2, **changed})


@pytest.fixture(scope="module")
def straight(inputs, base, tmp_path_factory):
    out = tmp_path_factory.mktemp("straight") / "run"
    runs.run(script.main, settings(inputs, out, base))
    return out


def layers_of(out):
    with safe_open(out / LORA, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.mark.slow
def test_lora_lowers_the_loss_and_moves_adapters_alone(inputs, straight):
    losses = list(curve(straight, "diffusion").values())
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    for part in ("unet", "separator", "vae", "audio_encoder"):
        before, after = (runs.weights(folder, part) for folder in (inputs / "start", straight))
        assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    layers = layers_of(straight)
    assert {name.split(".")[0] for name in layers} == {"unet", "separator"}


@pytest.mark.slow
def test_training_goes_on_exactly(inputs, straight, base, tmp_path):
    out = tmp_path / "run"
    command = runs.command("train.py", settings(inputs, out, base))
    runs.kill_after(out / "checkpoint-10", "model_index.json", command)
    result = runs.launch([*command, "--resume_from_checkpoint", "latest"])
    assert result.returncode == 0, result.stderr
    again = layers_of(out)
    assert all(torch.equal(tensor, again[name]) for name, tensor in layers_of(straight).items())


def test_the_file_loads_into_diffusers_own_pipeline(inputs, straight, base, options):
    trained = AVGASPipeline.from_pretrained(straight)
    trained.load_lora_weights(straight)
    own = base_of(type(base).__name__)
    own.load_lora_weights(straight / LORA)
    width = base.unet.config.cross_attention_dim
    inputs_of = {
        "sample": torch.randn(2, 4, 8, 8, generator=seed(1)),
        "timestep": torch.tensor([5, 700]),
        "encoder_hidden_states": torch.randn(2, 77, width, generator=seed(2)),
    }
    if "XL" in type(base).__name__:
        pooled = trained.separator.config.pooled_projection_dim
        sizes = torch.tensor([[32.0, 32, 0, 0, 32, 32]] * 2)
        inputs_of["added_cond_kwargs"] = {"text_embeds": torch.randn(2, pooled, generator=seed(3)), "time_ids": sizes}
    with torch.no_grad():
        ours, theirs, before = (pipe.unet(**inputs_of).sample for pipe in (trained, own, base))
    assert (ours - theirs).abs().max() <= 1e-5
    assert (ours - before).abs().max() > 1e-3


@pytest.mark.slow
def test_two_processes(inputs, base, tmp_path):
    changed = {"train_batch_size": 2, "num_examples": 8}
    command = runs.command("train.py", settings(inputs, tmp_path / "run", base, **changed), two_processes())
    result = runs.launch(command)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "run" / LORA).exists()


def test_sizes_of_photographs():
    photograph = PIL.Image.new("RGB", (640, 360), "red")
    assert crop_of(photograph, 64, 64) == (0, 25, 64, 114)
    assert collage([photograph], 64).size == (64, 64)


@pytest.mark.parametrize(
    ("target", "mode", "expected"),
    [("collage", "RGB", [48, 96, 0, 16]), ("collage", "RGBA", [32, 32, 0, 0]), ("compose", "RGB", [32, 32, 0, 0])],
)
def test_sizes_of_target_pictures(target, mode, expected):
    clips = [
        {
            "id": label,
            "label": label,
            "audio": {"array": tiny_audio(2.0, number)[0], "sampling_rate": 16000},
            "image": PIL.Image.new(mode, (96, 48), "red"),
        }
        for number, label in enumerate(CLASSES)
    ]
    audio = tiny_components()
    sampler = MixtureSampler(clips, num_sources=1, duration_s=1.28, target=target, image_size=32)
    label2id = {label: number for number, label in enumerate(CLASSES)}
    collate = Collator(audio["audio_feature_extractor"], audio["audio_encoder"], label2id, 2, sampler=sampler)
    assert collate([sampler.sample(0)])["picture_sizes"].tolist() == [expected]
