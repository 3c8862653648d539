"""NaN and infinity end in an error rather than in a black picture; whole numbers of any kind are numbers."""

import numpy as np
import pytest
import torch
from drawing import draw
from peft import LoraConfig
from tiny import tiny_audio

from avgas_pipeline import AVGASPipeline


def spoil(module, value):
    with torch.no_grad():
        next(reversed(list(module.parameters()))).fill_(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("output_type", ["np", "pil", "latent"])
def test_unet(pipe, value, output_type):
    spoil(pipe.unet, value)
    with pytest.raises(ValueError, match="latents are not finite"):
        draw(pipe, output_type=output_type)


def test_vae(pipe):
    spoil(pipe.vae.decoder, float("nan"))
    with pytest.raises(ValueError, match=r"`vae`.*not finite"):
        draw(pipe)


def test_lora(pipe):
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False))
    layers = [value for name, value in pipe.unet.named_parameters() if "lora_B" in name]
    with torch.no_grad():
        layers[0].fill_(float("nan"))
    with pytest.raises(ValueError, match="LoRA"):
        draw(pipe)


@pytest.mark.parametrize("part", ["class_head", "presence_head", "token_head", "mask_head"])
def test_separator(pipe, part):
    spoil(getattr(pipe.separator, part), float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        pipe.separate_audio(*tiny_audio())


@pytest.mark.parametrize(
    "options",
    [{"guidance_scale": 1e308}, {"latents": torch.full((1, 4, 32, 32), float("nan"))}],
    ids=["guidance", "latents"],
)
def test_arguments(pipe, options):
    with pytest.raises(ValueError, match="not finite"):
        draw(pipe, **options)


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
def test_integers_of_numpy(pipe, kind):
    names = {"height": 64, "width": 64, "num_inference_steps": 2, "num_images_per_prompt": 2, "num_sources": 2}
    names["max_batch_rows"] = 1
    plain = draw(pipe, separate=True, **names)
    other = draw(pipe, separate=True, **{name: kind(value) for name, value in names.items()})
    assert np.array_equal(plain.images, other.images)


@pytest.mark.parametrize("name", ["unet", "scheduler", "vae"])
def test_components_that_are_missing(components, name):
    pipe = AVGASPipeline(**{**components, name: None})
    with pytest.raises(ValueError, match=f"without `{name}`"):
        draw(pipe)


@pytest.mark.parametrize("returned", [None, 1, torch.zeros(1)])
def test_callbacks_that_return_no_dict(pipe, returned):
    with pytest.raises(ValueError, match="has to return a dict"):
        draw(pipe, callback_on_step_end=lambda *_: returned)


def test_pairs_and_batches_of_pairs(pipe):
    audio, rate = tiny_audio()
    expected = draw(pipe, audio, sampling_rate=rate).images
    for pair in ((rate, audio), (audio, rate)):
        assert np.array_equal(draw(pipe, pair, sampling_rate=None).images, expected)
    batch = pipe([(rate, audio), (audio, rate)], num_inference_steps=1, output_type="np")
    assert len(batch.images) == 2
