import inspect

import accelerate
import diffusers
import numpy as np
import PIL.Image
import pytest
import torch
from diffusers import AutoencoderDC, AutoencoderTiny, LCMScheduler
from diffusers.schedulers import KarrasDiffusionSchedulers
from sounds import tone
from tiny import LABELS, tiny_audio, tiny_components, tiny_separator

import avgas_pipeline
from avgas_pipeline import AVGASPipeline


SETTINGS = {"num_inference_steps": 3, "output_type": "np"}


def seeded(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def draw(pipe, audio=None, generator=None, **options):
    """Draws `tiny_audio()` if no audio or embeddings are given."""
    if audio is None and "audio_embeds" not in options:
        audio = tiny_audio()[0]
    return pipe(audio, generator=generator or seeded(0)[0], **{"sampling_rate": 16000, **SETTINGS, **options})


def difference(first, second):
    return np.abs(np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)).max()


class Counter:
    """Counts a module's forward calls and the rows they had."""

    def __init__(self, module):
        self.rows = []
        module.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, module, args, kwargs):
        self.rows.append(next(value for value in (*args, *kwargs.values()) if torch.is_tensor(value)).shape[0])


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
    assert [len(found) for found in batch.sources] == [1, 3, 2]
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


# -- sources --------------------------------------------------------------------------------------------------------


def test_weight_one_changes_nothing(pipe):
    expected = draw(pipe, separate=True)
    label = expected.sources[0][0].label
    for weights in ({label: 1}, {label: 1.0}, [1.0] * len(expected.sources[0]), [[1.0] * len(expected.sources[0])]):
        out = draw(pipe, separate=True, source_weights=weights)
        assert np.array_equal(out.images, expected.images)
        assert np.array_equal(out.sources[0][0].images, expected.sources[0][0].images)


def test_weight_zero_equals_the_call_without_that_source(pipe):
    encoded = pipe.encode_audio(tiny_audio()[0], 16000)
    labels = [source.label for source in encoded.sources[0]]
    for number, label in enumerate(labels):
        kept = [other for other in range(len(labels)) if other != number]
        expected = draw(pipe, audio_embeds=encoded.audio_embeds[:, kept], sampling_rate=None, separate=True)
        out = draw(pipe, source_weights={label: 0.0}, separate=True)
        assert [source.label for source in out.sources[0]] == [labels[other] for other in kept]
        assert difference(out.images, expected.images) < 1e-5
        for one, other in zip(out.sources[0], expected.sources[0], strict=True):
            assert difference(one.images, other.images) < 1e-5


def test_weights_move_the_mixed_image_and_leave_the_separated_ones(pipe):
    expected = draw(pipe, separate=True)
    distances = []
    for weight in (0.9, 0.5, 0.1):
        out = draw(pipe, separate=True, source_weights=[weight] + [1.0] * (len(expected.sources[0]) - 1))
        distances.append(difference(out.images, expected.images))
        assert difference(out.sources[0][0].images, expected.sources[0][0].images) < 1e-5
    assert 0 < distances[0] < distances[1] < distances[2]


def test_a_weight_for_what_is_not_heard_is_told(pipe):
    heard = {source.label for source in draw(pipe).sources[0]}
    absent = next(label for label in LABELS if label not in heard)
    with pytest.warns(UserWarning, match=f"{absent} is not heard"):
        out = draw(pipe, source_weights={absent: 0.3})
    assert np.array_equal(out.images, draw(pipe).images)


def test_weights_for_each_soundscape_of_a_batch(pipe):
    audio = [tiny_audio(1.0, 0)[0], tiny_audio(1.0, 0)[0]]
    label = draw(pipe).sources[0][0].label
    out = draw(pipe, audio, seeded(0, 0), source_weights=[None, {label: 0.2}])
    assert difference(out.images[0], draw(pipe).images[0]) < 1e-4
    assert difference(out.images[1], draw(pipe, source_weights={label: 0.2}).images[0]) < 1e-4


def test_num_sources_and_presence_threshold(pipe):
    for count in (1, 2, 3, 4):
        assert len(draw(pipe, num_sources=count).sources[0]) == count
    scores = [source.score for source in draw(pipe, num_sources=4).sources[0]]
    threshold = (scores[0] + scores[1]) / 2
    assert len(draw(pipe, presence_threshold=threshold).sources[0]) == 1


def test_silence_is_drawn_only_when_forced(pipe):
    silence = np.zeros(16000, np.float32)
    for quiet in (silence, np.full(16000, 1e-6, np.float32)):
        with pytest.raises(ValueError, match="silent"):
            draw(pipe, quiet)
    out = draw(pipe, silence, num_sources=2, separate=True)
    assert len(out.sources[0]) == 2 and np.isfinite(out.images).all()
    assert all(not source.activity.any() for source in out.sources[0])


def test_no_present_source_is_an_error_that_says_so(pipe):
    with pytest.raises(ValueError, match=r"no source is present.*pass `num_sources`"):
        draw(pipe, presence_threshold=1.0)
    with pytest.raises(ValueError, match=r"no source is present.*leave `negative_audio` out"):
        draw(pipe, presence_threshold=1.0, num_sources=1, negative_audio=tiny_audio(1.0, 7)[0])


@pytest.mark.parametrize("seconds", [0.003, 0.05, 1.28, 1.29, 9.3])
def test_any_length(pipe, seconds):
    out = draw(pipe, tiny_audio(seconds)[0], num_sources=2)
    samples = round(seconds * 16000)
    for source in out.sources[0]:
        assert source.audio.shape == (samples,)
        assert len(source.activity) == samples // 64 + 1


def test_long_audio_is_one_soundscape(pipe):
    # The same window over and over has the sources of that window, not new ones each time.
    window = tiny_audio(1.28)[0]
    once, often = (pipe.separate_audio(np.tile(window, count), 16000)[0] for count in (1, 6))
    assert {source.label for source in once} <= {source.label for source in often}
    assert len({source.label for source in often}) == len(often)


def test_silence_around_a_sound_adds_nothing(pipe):
    sound = tiny_audio(1.28)[0]
    silence = np.zeros(6 * 16000, np.float32)
    alone = pipe.encode_audio(sound, 16000)
    padded = pipe.encode_audio(np.concatenate([sound, silence]), 16000)
    assert padded.sources[0][0].label == alone.sources[0][0].label
    for source in padded.sources[0]:
        assert source.activity.any() and source.audio.any()
        assert not source.activity[3 * 16000 // 64 :].any() and not source.audio[3 * 16000 :].any()


def test_return_audio_false(pipe):
    out = draw(pipe, return_audio=False)
    assert all(source.audio is None and source.activity is not None for source in out.sources[0])


def test_inputs_of_every_kind_in_one_batch(pipe, tmp_path):
    import soundfile

    samples = tiny_audio()[0]
    soundfile.write(tmp_path / "x.wav", samples, 16000, subtype="FLOAT")
    path = tmp_path / "x.wav"
    batch = [path, str(path), path.read_bytes(), samples, torch.from_numpy(samples), {"path": str(path)}]
    with path.open("rb") as file:
        out = draw(pipe, [*batch, file], seeded(*[0] * 7))
    assert difference(out.images, out.images[:1].repeat(7, axis=0)) < 1e-4


# -- hearing once, drawing many times -------------------------------------------------------------------------------


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


# -- other parts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheduler", [member.name for member in KarrasDiffusionSchedulers])
def test_every_karras_scheduler(pipe, scheduler):
    cls = getattr(diffusers, scheduler)
    config = {key: value for key, value in pipe.scheduler.config.items() if not key.startswith("_")}
    pipe.scheduler = cls() if scheduler == "EDMEulerScheduler" else cls.from_config(config)
    first = draw(pipe, separate=True, num_inference_steps=4)
    assert np.isfinite(first.images).all()
    assert np.array_equal(first.images, draw(pipe, separate=True, num_inference_steps=4).images)
    assert not np.array_equal(first.images, draw(pipe, generator=seeded(1)[0], num_inference_steps=4).images)


@pytest.mark.parametrize("scheduler", [member.name for member in KarrasDiffusionSchedulers])
def test_batch_equals_single_calls_with_every_karras_scheduler(pipe, scheduler):
    cls = getattr(diffusers, scheduler)
    config = {key: value for key, value in pipe.scheduler.config.items() if not key.startswith("_")}
    pipe.scheduler = cls() if scheduler == "EDMEulerScheduler" else cls.from_config(config)
    audio = [tiny_audio(1.5, 1)[0], tiny_audio(0.7, 2)[0]]
    # PNDM takes no less than four steps.
    batch = draw(pipe, audio, seeded(0, 1), separate=True, num_inference_steps=4)
    for number in range(2):
        single = draw(pipe, audio[number], seeded(number), separate=True, num_inference_steps=4)
        assert difference(single.images, batch.images[[number]]) < 1e-3


def test_flow_matching_scheduler(pipe):
    from diffusers import FlowMatchEulerDiscreteScheduler

    pipe.scheduler = FlowMatchEulerDiscreteScheduler()
    assert np.isfinite(draw(pipe, separate=True).images).all()


def test_custom_timesteps_and_sigmas(pipe):
    from diffusers import EulerDiscreteScheduler

    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    unet = Counter(pipe.unet)
    draw(pipe, timesteps=[900, 500, 100, 10])
    draw(pipe, sigmas=[10.0, 1.0, 0.0])
    assert len(unet.rows) == 6
    with pytest.raises(ValueError, match="timesteps"):
        draw(pipe, timesteps=[900], sigmas=[1.0])


@pytest.mark.parametrize("kind", ["tiny", "dc"])
def test_other_autoencoders(components, kind):
    torch.manual_seed(0)
    if kind == "tiny":
        vae = AutoencoderTiny(
            in_channels=3,
            out_channels=3,
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            num_encoder_blocks=(1, 1),
            num_decoder_blocks=(1, 1),
            latent_channels=4,
        )
    else:
        vae = AutoencoderDC(
            latent_channels=4,
            attention_head_dim=2,
            encoder_block_types=("ResBlock", "EfficientViTBlock"),
            decoder_block_types=("ResBlock", "EfficientViTBlock"),
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            encoder_layers_per_block=(1, 1),
            decoder_layers_per_block=(1, 1),
            encoder_qkv_multiscales=((), (5,)),
            decoder_qkv_multiscales=((), (5,)),
            downsample_block_type="Conv",
            upsample_block_type="interpolate",
            decoder_norm_types="rms_norm",
            decoder_act_fns="silu",
            scaling_factor=0.41407,
        )
    pipe = AVGASPipeline(**{**components, "vae": vae.eval()})
    pipe.set_progress_bar_config(disable=True)
    assert pipe.vae_scale_factor == 2
    assert draw(pipe, separate=True).images.shape == (1, 64, 64, 3)


def test_components_build_a_second_pipeline(pipe):
    again = AVGASPipeline(**pipe.components)
    again.set_progress_bar_config(disable=True)
    assert np.array_equal(draw(again).images, draw(pipe).images)


def test_from_pipe(pipe):
    again = AVGASPipeline.from_pipe(pipe)
    again.set_progress_bar_config(disable=True)
    assert np.array_equal(draw(again).images, draw(pipe).images)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(pipe, dtype):
    out = draw(pipe.to(dtype), separate=True, num_sources=2)
    assert np.isfinite(out.images).all()
    assert out.sources[0][0].audio.dtype == np.float32


def test_sequential_offloading_changes_nothing(pipe):
    # accelerate's hooks keep weights on "meta" between calls: what `enable_sequential_cpu_offload` does, on a CPU.
    expected = draw(pipe, separate=True)
    for name in ("audio_encoder", "separator", "unet", "vae"):
        accelerate.cpu_offload(getattr(pipe, name), torch.device("cpu"), offload_buffers=True)
    out = draw(pipe, separate=True)
    assert difference(out.images, expected.images) < 1e-5
    encoded = pipe.encode_audio(*tiny_audio())
    label = encoded.sources[0][0].label
    drawn = draw(pipe, **encoded, sampling_rate=None, source_weights={label: 0.5})
    assert np.isfinite(drawn.images).all()
    with pytest.raises(ValueError, match="null_audio_embeds"):
        draw(pipe, audio_embeds=encoded.audio_embeds, sampling_rate=None)


def test_models_run_in_the_order_of_offloading(components):
    order = []
    for name in ("vae", "unet", "audio_encoder", "separator"):
        module = components[name].decoder if name == "vae" else components[name]
        module.register_forward_pre_hook(lambda *_, name=name: order.append(name))
    pipe = AVGASPipeline(**components)
    pipe.set_progress_bar_config(disable=True)
    draw(pipe, separate=True)
    declared = [name for name in pipe.model_cpu_offload_seq.split("->") if name in order]
    assert list(dict.fromkeys(order)) == declared


def test_freeu_and_fused_projections(pipe):
    expected = draw(pipe).images
    pipe.fuse_qkv_projections()
    assert difference(draw(pipe).images, expected) < 1e-4
    pipe.unfuse_qkv_projections()
    pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
    assert np.isfinite(draw(pipe).images).all()


def test_masks_can_be_left_out(components):
    pipe = AVGASPipeline(**{**components, "separator": tiny_separator(mask_channels=0)})
    pipe.set_progress_bar_config(disable=True)
    out = draw(pipe, separate=True, num_sources=2)
    assert all(source.audio is None and source.activity is None for source in out.sources[0])


def test_registration_fails_loudly_when_diffusers_moves_its_tables(monkeypatch):
    from diffusers.pipelines import pipeline_loading_utils

    from avgas_pipeline.registration import register

    monkeypatch.delattr(pipeline_loading_utils, "LOADABLE_CLASSES")
    with pytest.raises(ImportError, match="tested version"):
        register(avgas_pipeline)


# -- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"height": 65}, "multiples of 2"),
        ({"width": 0}, "multiples of 2"),
        ({"height": -64}, "multiples of 2"),
        ({"output_type": "jpg"}, "output_type"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt"),
        ({"num_sources": 0}, "num_sources"),
        ({"num_sources": 5}, "from 1 to 4"),
        ({"num_sources": 1.5}, "num_sources"),
        ({"presence_threshold": 1.5}, "presence_threshold"),
        ({"presence_threshold": "high"}, "presence_threshold"),
        ({"max_batch_rows": 0}, "max_batch_rows"),
        ({"source_weights": {"unicorn": 1.0}}, "unicorn"),
        ({"source_weights": {"raining": -1.0}}, "finite numbers"),
        ({"source_weights": {"raining": float("nan")}}, "finite numbers"),
        ({"source_weights": {"raining": "much"}}, "finite numbers"),
        ({"source_weights": [1.0] * 7}, "7 `source_weights`"),
        ({"source_weights": [[1.0], [1.0]]}, "2 soundscapes"),
        ({"source_weights": 0.5}, "dict or a list"),
        ({"source_weights": dict.fromkeys(LABELS, 0.0)}, "nothing is left"),
        ({"prompt": "a photo"}, "text encoder"),
        ({"negative_prompt": "blurry"}, "text encoder"),
        ({"callback_on_step_end_tensor_inputs": ["noise"]}, "noise"),
        ({"generator": "three"}, "3 generators"),
        ({"audio_embeds": torch.zeros(1, 1, 2, 16)}, "exactly one"),
        ({"negative_audio": np.zeros(16000, np.float32)}, "silent"),
        ({"max_duration_s": 0.5}, "max_duration_s"),
        ({"height": 64.0}, "multiples of 2"),
        ({"guidance_scale": float("nan")}, "guidance_scale"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"generator": (torch.Generator(),)}, "generator"),
        ({"sources": [[]]}, "go with `audio_embeds`"),
        ({"negative_audio": tiny_audio()[0], "negative_audio_embeds": torch.zeros(1, 1, 2, 16)}, "only one"),
        ({"negative_audio_attention_mask": torch.ones(1, 1)}, "needs `negative_audio_embeds`"),
        ({"null_audio_embeds": torch.zeros(2, 15)}, "null_audio_embeds"),
        ({"prompt_embeds": torch.zeros(1, 20, 15)}, "prompt_embeds"),
        ({"prompt_embeds": torch.zeros(1, 20, 16)}, "needs `negative_prompt_embeds`"),
        ({"sampling_rate": None}, "sampling_rate"),
        ({"sampling_rate": -1}, "sampling_rate"),
    ],
)
def test_bad_arguments(pipe, options, message):
    if options.get("generator") == "three":
        options = {"generator": seeded(0, 1, 2)}
    with pytest.raises(ValueError, match=message):
        draw(pipe, tiny_audio()[0], **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"audio_embeds": torch.zeros(1, 1, 2, 15)}, "shape"),
        ({"audio_embeds": torch.zeros(2, 16)}, "shape"),
        ({"negative_audio_embeds": torch.zeros(2, 1, 2, 16)}, "soundscapes"),
        ({"audio_attention_mask": torch.ones(1, 2)}, "audio_attention_mask"),
        ({"audio_attention_mask": torch.zeros(1, 1)}, "without a source"),
        ({"sources": [[]]}, "sources"),
        ({"negative_audio": np.ones(16000, np.float32)}, "encode_audio"),
        ({"max_batch_rows": -1}, "max_batch_rows"),
        ({"num_sources": 1}, "encode_audio"),
        ({"presence_threshold": 0.9}, "encode_audio"),
        (
            {
                "negative_audio_embeds": torch.zeros(1, 1, 2, 16),
                "negative_audio_attention_mask": torch.zeros(1, 1),
            },
            "without a source",
        ),
    ],
)
def test_bad_embeddings(pipe, options, message):
    with pytest.raises(ValueError, match=message):
        pipe(**{"audio_embeds": torch.zeros(1, 1, 2, 16), **SETTINGS, **options})


def test_three_generators_for_two_soundscapes(pipe):
    with pytest.raises(ValueError, match="3 generators for 2 soundscapes"):
        draw(pipe, [tiny_audio()[0]] * 2, seeded(0, 1, 2))


def test_nothing_to_hear(pipe):
    with pytest.raises(ValueError, match="exactly one"):
        pipe(**SETTINGS)
    with pytest.raises(ValueError, match="empty list"):
        pipe([], **SETTINGS)
    with pytest.raises(ValueError, match="batch of recordings"):
        pipe([0.1, 0.2, 0.3], sampling_rate=16000, **SETTINGS)


def test_errors_in_a_batch_name_the_recording(pipe, tmp_path):
    (tmp_path / "broken.wav").write_text("nothing")
    with pytest.raises(ValueError, match=r"broken\.wav"):
        draw(pipe, [tiny_audio()[0], tmp_path / "broken.wav"], seeded(0, 1))
    with pytest.raises(ValueError, match="number 1 of the batch"):
        draw(pipe, [tone(1.0, 16000), np.zeros(16000, np.float32)], seeded(0, 1))


def test_missing_parts_are_named(components):
    deaf = AVGASPipeline(**{**components, "audio_encoder": None})
    with pytest.raises(ValueError, match="audio_encoder"):
        deaf(*tiny_audio(), **SETTINGS)
    deaf = AVGASPipeline(**{**components, "audio_encoder": None, "separator": None})
    with pytest.raises(ValueError, match="null_audio_embeds"):
        deaf(audio_embeds=torch.zeros(1, 1, 2, 16), **SETTINGS)


def test_hears_and_draws_under_autocast(pipe):
    audio = np.concatenate([tiny_audio(1.0, seed)[0] for seed in range(3)])
    with torch.autocast("cpu", torch.bfloat16):
        out = draw(pipe, audio, separate=True, num_sources=3)
    assert np.isfinite(out.images).all() and len(out.sources[0]) >= 1
