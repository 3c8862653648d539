"""What a call of the pipeline gives, and what decides it."""

import inspect

import diffusers
import numpy as np
import PIL.Image
import pytest
import torch
from diffusers import LCMScheduler
from drawing import SETTINGS, Counter, difference, draw, seeded
from tiny import LABELS, tiny_audio, tiny_components

from avgas_pipeline import AVGASPipeline


# -- what comes out -------------------------------------------------------------------------------------------------


def test_mixed_and_separated_images(pipe):
    out = draw(pipe, separate=True, output_type="pil", num_images_per_prompt=2)
    (sources,) = out.sources
    assert len(sources) >= 2
    assert len(out.images) == 2
    for source in sources:
        assert source.label in LABELS
        assert 0.5 <= source.score <= 1 and 0 < source.label_score <= 1
        assert source.audio.shape == (16000,) and source.sampling_rate == 16000
        assert source.activity.min() >= 0 and source.activity.max() <= 1
        assert source.audio_embed.shape == (8,)
        assert len(source.images) == 2
    for image in out.images + [image for source in sources for image in source.images]:
        assert isinstance(image, PIL.Image.Image) and image.size == (64, 64) and image.mode == "RGB"
    assert [source.score for source in sources] == sorted((source.score for source in sources), reverse=True)


@pytest.mark.parametrize(
    ("output_type", "shape"), [("np", (2, 64, 64, 3)), ("pt", (2, 3, 64, 64)), ("latent", (2, 4, 32, 32))]
)
def test_output_types(pipe, output_type, shape):
    out = draw(pipe, separate=True, num_images_per_prompt=2, output_type=output_type)
    assert out.images.shape == shape
    assert all(source.images.shape == shape for source in out.sources[0])


def test_without_separate_there_are_no_separated_images(pipe):
    assert all(len(source.images) == 0 for source in draw(pipe).sources[0])


def test_tuple_output(pipe):
    images, sources = draw(pipe, return_dict=False)
    expected = draw(pipe)
    assert np.array_equal(images, expected.images)
    assert [source.label for source in sources[0]] == [source.label for source in expected.sources[0]]


def test_separated_image_is_the_mixed_image_of_that_source_alone(pipe):
    out = draw(pipe, separate=True)
    encoded = pipe.encode_audio(tiny_audio()[0], 16000)
    for number, source in enumerate(out.sources[0]):
        alone = draw(pipe, audio_embeds=encoded.audio_embeds[:, [number]], sampling_rate=None)
        assert difference(alone.images, source.images) < 1e-4


def test_height_and_width(pipe):
    assert draw(pipe, height=32, width=48).images.shape == (1, 32, 48, 3)


# -- determinism and batches ----------------------------------------------------------------------------------------


def test_same_seed_gives_the_same_bytes(pipe):
    first, second = draw(pipe, separate=True), draw(pipe, separate=True)
    assert np.array_equal(first.images, second.images)
    for one, other in zip(first.sources[0], second.sources[0], strict=True):
        assert np.array_equal(one.images, other.images) and np.array_equal(one.audio, other.audio)
    assert not np.array_equal(first.images, draw(pipe, generator=seeded(1)[0]).images)


def test_separate_does_not_change_the_mixed_image(pipe):
    assert difference(draw(pipe).images, draw(pipe, separate=True).images) < 1e-5


@pytest.mark.parametrize("num_images", [1, 2])
def test_batch_equals_single_calls(pipe, num_images):
    audio = [tiny_audio(1.5, 1)[0], tiny_audio(0.7, 2)[0], tiny_audio(4.0, 0)[0]]
    options = {"separate": True, "num_images_per_prompt": num_images, "presence_threshold": 0.5}
    batch = draw(pipe, audio, seeded(*range(3 * num_images)), **options)
    assert len({len(found) for found in batch.sources}) > 1
    for number, item in enumerate(audio):
        seeds = range(number * num_images, (number + 1) * num_images)
        single = draw(pipe, item, seeded(*seeds), **options)
        assert difference(single.images, batch.images[list(seeds)]) < 1e-4
        for one, other in zip(single.sources[0], batch.sources[number], strict=True):
            assert one.label == other.label
            assert difference(one.images, other.images) < 1e-4
            assert difference(one.audio, other.audio) < 1e-4


def test_one_recording_equals_a_list_of_one(pipe):
    assert np.array_equal(draw(pipe, [tiny_audio()[0]]).images, draw(pipe).images)


@pytest.mark.parametrize("max_batch_rows", [1, 2, 5])
def test_max_batch_rows_splits_but_changes_nothing(pipe, max_batch_rows):
    expected = draw(pipe, separate=True)
    unet, encoder, decoder = Counter(pipe.unet), Counter(pipe.audio_encoder), Counter(pipe.vae.decoder)
    out = draw(pipe, separate=True, max_batch_rows=max_batch_rows)
    assert max(unet.rows + encoder.rows + decoder.rows) <= max_batch_rows
    assert difference(out.images, expected.images) < 1e-4


def test_unet_runs_once_per_step_and_the_encoder_once(pipe):
    unet, encoder, separator = Counter(pipe.unet), Counter(pipe.audio_encoder), Counter(pipe.separator)
    audio = [tiny_audio(1.5, 1)[0], tiny_audio(0.7, 2)[0], tiny_audio(4.0, 0)[0]]
    out = draw(pipe, audio, seeded(0, 1, 2), separate=True, num_inference_steps=4)
    images = 3 + sum(len(found) for found in out.sources)
    assert unet.rows == [2 * images] * 4
    assert len(encoder.rows) == len(separator.rows) == 1


def test_the_encoder_runs_once_with_negative_audio(pipe):
    encoder = Counter(pipe.audio_encoder)
    draw(pipe, negative_audio=tiny_audio(1.0, 5)[0])
    assert len(encoder.rows) == 1


@pytest.mark.parametrize("name", ["LCMScheduler", "EulerAncestralDiscreteScheduler", "DPMSolverSDEScheduler"])
@pytest.mark.parametrize("seeds", [(3,), (3, 4)])
@pytest.mark.parametrize("as_list", [True, False])
def test_mixed_and_separated_images_share_the_noise_of_every_step(pipe, name, seeds, as_list):
    pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config)

    def draw_two(**options):
        generator = seeded(*seeds) if as_list else seeded(seeds[0])[0]
        return draw(pipe, generator=generator, num_images_per_prompt=len(seeds), **options)

    assert difference(draw_two().images, draw_two(separate=True).images) < 1e-4
    # One source alone is its own mixed image.
    alone = draw_two(num_sources=1, separate=True)
    assert difference(alone.images, alone.sources[0][0].images) < 1e-4


def test_latents_for_mixed_images_or_for_every_image(pipe):
    noise = torch.randn(1, 4, 32, 32, generator=seeded(0)[0])
    expected = draw(pipe, separate=True)
    rows = 1 + len(expected.sources[0])
    for latents in (noise, noise.expand(rows, -1, -1, -1)):
        out = draw(pipe, separate=True, latents=latents, generator=seeded(7)[0])
        assert difference(out.images, expected.images) < 1e-6
    with pytest.raises(ValueError, match="latents"):
        draw(pipe, latents=noise.expand(5, -1, -1, -1))


# -- encoding once, drawing many times ------------------------------------------------------------------------------


def test_encode_audio_needs_no_unet_or_vae(components):
    blind = AVGASPipeline(**{**components, "unet": None, "vae": None, "scheduler": None})
    encoded = blind.encode_audio(*tiny_audio())
    assert encoded.audio_embeds.shape[0] == 1 and encoded.audio_embeds.shape[2:] == (2, 16)
    assert len(encoded.sources[0]) == encoded.audio_embeds.shape[1]
    assert blind.separate_audio(*tiny_audio())[0][0].label == encoded.sources[0][0].label


def test_drawing_needs_no_audio_components(pipe, components):
    encoded = pipe.encode_audio([tiny_audio(1.0, 0)[0], tiny_audio(0.7, 2)[0]], 16000)
    deaf = AVGASPipeline(**{**components, "audio_encoder": None, "audio_feature_extractor": None, "separator": None})
    deaf.set_progress_bar_config(disable=True)
    audio = [tiny_audio(1.0, 0)[0], tiny_audio(0.7, 2)[0]]
    options = {**SETTINGS, "separate": True}
    expected = draw(pipe, audio, seeded(0, 1), separate=True)
    out = deaf(**encoded, generator=seeded(0, 1), **options)
    assert np.array_equal(out.images, expected.images)
    assert [source.label for source in out.sources[0]] == [source.label for source in expected.sources[0]]
    label = encoded.sources[0][0].label
    weighted = deaf(**encoded, generator=seeded(0, 1), source_weights={label: 0.3}, **options)
    assert difference(weighted.images, out.images) > 1e-4
    # What was given is not changed.
    assert all(len(source.images) == 0 for found in encoded.sources for source in found)


def test_names_that_encode_audio_returns_are_arguments_of_call(pipe):
    arguments = set(inspect.signature(AVGASPipeline.__call__).parameters)
    assert set(pipe.encode_audio(*tiny_audio()).keys()) <= arguments


def test_bare_embeddings_are_enough(pipe):
    encoded = pipe.encode_audio(*tiny_audio())
    out = draw(pipe, audio_embeds=encoded.audio_embeds, sampling_rate=None, separate=True)
    assert np.array_equal(out.images, draw(pipe, separate=True).images)
    assert all(source.label is None for source in out.sources[0])


def test_encode_audio_keeps_gradients(pipe):
    encoded = pipe.encode_audio(*tiny_audio())
    encoded.audio_embeds.square().mean().backward()
    assert pipe.separator.queries.grad is not None


def test_null_and_negative_embeddings_go_with_audio_too(pipe):
    encoded = pipe.encode_audio(*tiny_audio(), negative_audio=tiny_audio(1.0, 7)[0])
    negative = {name: encoded[name] for name in ("negative_audio_embeds", "negative_audio_attention_mask")}
    expected = draw(pipe, negative_audio=tiny_audio(1.0, 7)[0])
    assert difference(draw(pipe, **negative).images, expected.images) < 1e-5
    moved = draw(pipe, null_audio_embeds=torch.ones_like(encoded.null_audio_embeds))
    assert difference(moved.images, draw(pipe).images) > 1e-4


def test_separate_audio(pipe):
    found = pipe.separate_audio([tiny_audio(1.0, 0)[0], tiny_audio(4.0, 2)[0]], sampling_rate=16000, num_sources=2)
    assert [len(sources) for sources in found] == [2, 2]
    assert found[1][0].audio.shape == (64000,)
    assert all(len(source.images) == 0 for sources in found for source in sources)
    assert len(pipe.separate_audio(*tiny_audio())) == 1


def test_checkpoints_have_defaults_of_their_own(pipe, tmp_path):
    own = AVGASPipeline(**pipe.components, default_num_inference_steps=2, default_guidance_scale=3.0)
    own.save_pretrained(tmp_path)
    loaded = AVGASPipeline.from_pretrained(tmp_path)
    wanted = draw(pipe, num_inference_steps=2, guidance_scale=3.0)
    counter = Counter(loaded.unet)
    assert np.array_equal(draw(loaded, num_inference_steps=None).images, wanted.images)
    assert len(counter.rows) == 2
    assert (pipe.config.default_num_inference_steps, pipe.config.default_guidance_scale) == (50, 7.5)


# -- guidance -------------------------------------------------------------------------------------------------------


def test_guidance_leads_away_from_null_tokens_or_negative_audio(pipe):
    none = draw(pipe, guidance_scale=1.0)
    null = draw(pipe, guidance_scale=5.0)
    negative = draw(pipe, guidance_scale=5.0, negative_audio=tiny_audio(1.0, 7)[0])
    assert difference(none.images, null.images) > 1e-3
    assert difference(null.images, negative.images) > 1e-3


def test_guidance_against_itself_is_no_guidance(pipe):
    audio = tiny_audio(1.0, 0)[0]
    against_itself = draw(pipe, audio, guidance_scale=5.0, negative_audio=audio)
    assert difference(against_itself.images, draw(pipe, audio, guidance_scale=1.0).images) < 1e-3


def test_one_negative_audio_for_all_or_one_for_each(pipe):
    audio = [tiny_audio(1.0, 0)[0], tiny_audio(1.0, 1)[0]]
    negative = tiny_audio(1.0, 7)[0]
    one = draw(pipe, audio, seeded(0, 1), negative_audio=negative)
    each = draw(pipe, audio, seeded(0, 1), negative_audio=[negative, negative])
    assert difference(one.images, each.images) < 1e-5
    with pytest.raises(ValueError, match="negative_audio"):
        draw(pipe, audio, seeded(0, 1), negative_audio=[negative] * 3)


def test_guidance_rescale(pipe):
    assert difference(draw(pipe).images, draw(pipe, guidance_rescale=0.7).images) > 1e-4


def test_distilled_unets_take_guidance_as_an_embedding():
    pipe = AVGASPipeline(**tiny_components(time_cond_proj_dim=8))
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config)
    unet = Counter(pipe.unet)
    out = draw(pipe, separate=True, guidance_scale=5.0)
    assert unet.rows == [1 + len(out.sources[0])] * 3
    assert difference(out.images, draw(pipe, guidance_scale=9.0).images) > 1e-4


# -- callbacks ------------------------------------------------------------------------------------------------------


def test_callback_sees_and_replaces_every_tensor(pipe):
    seen = []

    def callback(pipeline, step, timestep, kwargs):
        seen.append((step, {name: value.shape for name, value in kwargs.items()}))
        return {name: torch.zeros_like(value) for name, value in kwargs.items()}

    out = draw(
        pipe,
        output_type="latent",
        callback_on_step_end=callback,
        callback_on_step_end_tensor_inputs=pipe._callback_tensor_inputs,
    )
    assert [step for step, _ in seen] == [0, 1, 2]
    assert set(seen[0][1]) == set(pipe._callback_tensor_inputs)
    assert not out.images.any()


def test_replaced_embeddings_take_effect(pipe):
    def silence(pipeline, step, timestep, kwargs):
        return {"audio_embeds": torch.zeros_like(kwargs["audio_embeds"])}

    changed = draw(pipe, callback_on_step_end=silence, callback_on_step_end_tensor_inputs=["audio_embeds"])
    assert difference(changed.images, draw(pipe).images) > 1e-4


def test_guidance_can_be_changed_from_a_callback(pipe):
    def stronger(pipeline, step, timestep, kwargs):
        pipeline._guidance_scale = 20.0
        return kwargs

    def off(pipeline, step, timestep, kwargs):
        pipeline._guidance_scale = 0.0
        return kwargs

    unet = Counter(pipe.unet)
    images = [draw(pipe, callback_on_step_end=callback).images for callback in (None, stronger, off)]
    assert difference(images[0], images[1]) > 1e-4 and difference(images[0], images[2]) > 1e-4
    assert unet.rows == [2] * 7 + [1] * 2


def test_interrupt(pipe):
    def stop(pipeline, step, timestep, kwargs):
        pipeline._interrupt = step == 1
        return kwargs

    unet = Counter(pipe.unet)
    out = draw(pipe, num_inference_steps=10, callback_on_step_end=stop)
    assert len(unet.rows) == 2 and np.isfinite(out.images).all()
    assert len(draw(pipe, num_inference_steps=10).images) == 1 and len(unet.rows) == 12
