"""Mixed pictures that are composed of their sources' own: where these stand, and how weights change that."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_audio, tiny_components

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.layout import MOST_PLACED, compose, place_sources


def area(box):
    return (box[2] - box[0]) * (box[3] - box[1])


@given(st.lists(st.floats(0.05, 20), min_size=1, max_size=MOST_PLACED))
def test_boxes_share_the_picture_by_weight(weights):
    boxes = place_sources(weights)
    assert sum(map(area, boxes)) == pytest.approx(1, abs=1e-6)
    for box, weight in zip(boxes, weights, strict=True):
        assert area(box) == pytest.approx(weight / sum(weights), rel=1e-6)
        assert all(-1e-9 <= edge <= 1 + 1e-9 for edge in box) and box[0] < box[2] and box[1] < box[3]
    for number, first in enumerate(boxes):
        for second in boxes[:number]:
            width = min(first[2], second[2]) - max(first[0], second[0])
            height = min(first[3], second[3]) - max(first[1], second[1])
            assert width <= 1e-9 or height <= 1e-9


def test_one_source_has_all_and_two_stand_side_by_side():
    assert place_sources([3.0]) == [(0, 0, 1, 1)]
    assert place_sources([1, 1]) == [(0, 0, 0.5, 1), (0.5, 0, 1, 1)]
    assert place_sources([1, 1, 2])[2] == (0, 0.5, 1, 1)


@pytest.mark.parametrize("weights", [[], [1] * 9, [1, 0], [1, float("nan")], [float("inf")]])
def test_what_has_no_place(weights):
    with pytest.raises(ValueError, match=r"room for|above 0"):
        place_sources(weights)


@given(st.lists(st.floats(0.05, 20), min_size=1, max_size=MOST_PLACED), st.sampled_from([(32, 32), (24, 40)]))
def test_a_composed_picture_shows_every_one_whole_and_in_its_box(weights, size):
    height, width = size
    images = torch.linspace(-1, 0.5, len(weights))[:, None, None, None].expand(-1, 3, *size)
    boxes = place_sources(weights)
    picture = compose(images, boxes)
    assert picture.shape == (3, *size)
    for image, (left, top, right, bottom) in zip(images, boxes, strict=True):
        inside = picture[:, round(top * height) : round(bottom * height), round(left * width) : round(right * width)]
        if inside.numel():
            value = float(image[0, 0, 0])
            own = (inside - value).abs() < 1e-4
            assert (own | (inside == 1)).all() and (own.any() or min(inside.shape[1:]) < 2)


def test_one_picture_alone_is_as_it_is():
    image = torch.randn(1, 3, 16, 16)
    assert torch.equal(compose(image, place_sources([2.0])), image[0])


@pytest.fixture(scope="module")
def pipe():
    """Composes, with sources of its own making; read-only by convention."""
    pipe = AVGASPipeline(**tiny_components(), compose_sources=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe, output_type="np", seed=0, **call):
    options = {"num_sources": 3, "num_inference_steps": 2, "output_type": output_type, **call}
    return pipe(*tiny_audio(), generator=torch.Generator().manual_seed(seed), **options)


def in_box(images, box):
    height, width = images.shape[1:3]
    left, top, right, bottom = box
    return images[0, round(top * height) : round(bottom * height), round(left * width) : round(right * width)]


def test_a_mixed_picture_has_the_pictures_of_its_sources(pipe):
    output = draw(pipe, separate=True)
    own = [torch.from_numpy(source.images).permute(0, 3, 1, 2)[0] * 2 - 1 for source in output.sources[0]]
    expected = (compose(torch.stack(own), place_sources([1, 1, 1])) / 2 + 0.5).permute(1, 2, 0).numpy()
    # Interpolation before values are cut to [0, 1], or after.
    assert np.abs(output.images[0] - expected).mean() < 0.02
    alone = draw(pipe)
    assert np.allclose(alone.images, output.images, atol=1e-5)
    assert all(len(source.images) == 0 for source in alone.sources[0])


def test_weights_say_how_large_and_not_what(pipe):
    even, uneven = draw(pipe, num_sources=2), draw(pipe, num_sources=2, source_weights=[2, 0.5])
    assert not np.allclose(even.images, uneven.images, atol=1e-3)
    assert np.allclose(draw(pipe, num_sources=2, source_weights=[2, 2]).images, even.images, atol=1e-6)
    large = in_box(uneven.images, place_sources([2, 0.5])[0])
    assert (np.abs(large - 1) > 1e-3).any(axis=2).mean() > 0.5
    without = draw(pipe, num_sources=2, source_weights=[0, 1], separate=True)
    assert len(without.sources[0]) == 1 and np.allclose(without.images, without.sources[0][0].images, atol=1e-6)


def test_several_pictures_soundscapes_and_types(pipe):
    waveform, rate = tiny_audio()
    audio, generators = [waveform, waveform[::-1].copy()], [torch.Generator().manual_seed(n) for n in range(4)]
    call = {"sampling_rate": rate, "num_inference_steps": 1, "num_images_per_prompt": 2, "separate": True}
    output = pipe(audio, num_sources=2, generator=generators, **call)
    assert len(output.images) == 4 and all(len(source.images) == 2 for found in output.sources for source in found)
    again = pipe(audio[1], num_sources=2, generator=[torch.Generator().manual_seed(n) for n in (2, 3)], **call)
    assert np.allclose(np.asarray(again.images[1]), np.asarray(output.images[3]), atol=1)
    assert draw(pipe, "pt").images.shape == (1, 3, 64, 64)
    with pytest.raises(ValueError, match="latent"):
        draw(pipe, "latent")


def test_a_batch_in_parts_is_the_same(pipe):
    assert np.allclose(draw(pipe, max_batch_rows=1).images, draw(pipe).images, atol=1e-4)


def test_more_than_there_is_room_for(pipe):
    encoded = pipe.encode_audio(*tiny_audio(), num_sources=2)
    many = encoded.audio_embeds.repeat(1, 5, 1, 1)
    call = {"audio_embeds": many, "null_audio_embeds": encoded.null_audio_embeds, "num_inference_steps": 1}
    with pytest.warns(UserWarning, match="of 10 sources the mixed picture shows the 8 surest"):
        output = pipe(**call, separate=True, output_type="np")
    assert len(output.sources[0]) == 10 and all(len(source.images) for source in output.sources[0])


def test_what_is_set_is_kept(pipe, tmp_path):
    assert AVGASPipeline(**pipe.components).config.compose_sources
    pipe.save_pretrained(tmp_path)
    loaded = AVGASPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert np.allclose(draw(loaded).images, draw(pipe).images, atol=1e-5)
    at_once = AVGASPipeline(**tiny_components())
    at_once.set_progress_bar_config(disable=True)
    assert not np.allclose(draw(at_once).images, draw(pipe).images, atol=1e-3)


@pytest.mark.parametrize("value", [1, "yes", 0.5])
def test_wrong_settings(value):
    with pytest.raises(ValueError, match="compose_sources"):
        AVGASPipeline(**tiny_components(), compose_sources=value)
