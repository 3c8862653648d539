"""Schedulers, autoencoders, data types and offloading."""

import accelerate
import diffusers
import numpy as np
import pytest
import torch
from diffusers import AutoencoderDC, AutoencoderTiny, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.schedulers import KarrasDiffusionSchedulers
from drawing import Counter, difference, draw, seeded
from tiny import tiny_audio, tiny_separator

from avgas_pipeline import AVGASPipeline


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
def test_every_karras_scheduler_is_saved_and_loaded(pipe, scheduler, tmp_path):
    AVGASPipeline(**{**pipe.components, "scheduler": getattr(diffusers, scheduler)()}).save_pretrained(tmp_path)
    assert type(AVGASPipeline.from_pretrained(tmp_path).scheduler).__name__ == scheduler


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
    pipe.scheduler = FlowMatchEulerDiscreteScheduler()
    settings = {"num_sources": 1, "output_type": "latent"}
    drawn = draw(pipe, **settings).images
    noise = torch.randn(drawn.shape, generator=seeded(0)[0])
    assert drawn.isfinite().all() and not torch.allclose(drawn, noise, atol=1e-2)
    # Without any flow, noise stays what it is: it has a standard deviation of 1 at the first step.
    torch.nn.init.zeros_(pipe.unet.conv_out.weight)
    torch.nn.init.zeros_(pipe.unet.conv_out.bias)
    assert torch.equal(draw(pipe, **settings).images, noise)


def test_custom_timesteps_and_sigmas(pipe):
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


@pytest.mark.parametrize("part", ["unet", "vae"])
def test_a_part_cast_layer_by_layer_draws_in_its_compute_dtype(components, part):
    pipe = AVGASPipeline(**components)
    getattr(pipe, part).enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    assert getattr(pipe, part).dtype == torch.float32
    images = pipe(*tiny_audio(), num_sources=1, num_inference_steps=1, output_type="np").images
    assert np.isfinite(images).all()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_a_traced_part(pipe):
    expected = draw(pipe).images
    shape = (1, pipe.vae.config.latent_channels, *expected.shape[1:3])
    pipe.vae.decoder = torch.jit.trace(pipe.vae.decoder, torch.zeros(shape))
    assert np.array_equal(draw(pipe).images, expected)


@pytest.mark.parametrize("part", ["audio_encoder", "separator", "unet", "vae"])
def test_a_compiled_part(pipe, part):
    expected = draw(pipe).images
    compiled = torch.compile(getattr(pipe, part), backend="eager")
    again = AVGASPipeline(**pipe.components | {part: compiled})
    again.set_progress_bar_config(disable=True)
    assert np.array_equal(draw(again).images, expected)


@pytest.mark.parametrize("options", [{"guidance_scale": 1.0}, {"guidance_scale": 3.0}, {"max_batch_rows": 2}])
@pytest.mark.parametrize("output_type", ["latent", "pt"])
def test_what_is_drawn_goes_through_autograd_and_can_be_written_to(pipe, options, output_type):
    def halve(pipe, step, timestep, tensors):
        return {"latents": tensors["latents"].mul_(0.5)}

    out = draw(pipe, separate=True, output_type=output_type, callback_on_step_end=halve, **options)
    weight = torch.ones((), requires_grad=True)
    (out.images.mul_(2) * weight).square().sum().backward()
    assert weight.grad > 0


@pytest.mark.parametrize("part", ["unet", "vae"])
def test_activations_a_hook_takes_go_through_autograd(pipe, part):
    taken = []
    layer = pipe.unet.conv_in if part == "unet" else pipe.vae.decoder.conv_in
    handle = layer.register_forward_hook(lambda module, arguments, output: taken.append(output))
    draw(pipe)
    handle.remove()
    weight = torch.ones((), requires_grad=True)
    sum((activation * weight).square().sum() for activation in taken).backward()
    assert weight.grad > 0


@pytest.mark.parametrize("part", ["unet", "vae"])
def test_parts_can_be_trained_after_hooks_have_cast_them(pipe, part):
    model = getattr(pipe, part)
    model.enable_layerwise_casting(storage_dtype=torch.bfloat16, compute_dtype=torch.float32)
    draw(pipe)
    assert not any(parameter.is_inference() for parameter in model.parameters())


def test_the_device_of_a_pipeline_that_only_separates(components):
    pipe = AVGASPipeline(**components | {"unet": None, "vae": None})
    assert pipe.audio_models().device == torch.device("cpu")


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
    assert difference(draw(pipe).images, expected) > 1e-4
    pipe.disable_freeu()
    assert difference(draw(pipe).images, expected) < 1e-4


def test_masks_can_be_left_out(components):
    pipe = AVGASPipeline(**{**components, "separator": tiny_separator(mask_channels=0)})
    pipe.set_progress_bar_config(disable=True)
    out = draw(pipe, separate=True, num_sources=2)
    assert all(source.audio is None and source.activity is None for source in out.sources[0])
