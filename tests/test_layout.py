"""Where sources stand in a mixed picture, and how their weights change that."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_audio, tiny_components

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.conditioning import prepare_conditions, with_places
from avgas_pipeline.layout import MOST_PLACED, WHOLE, box_features, place_sources
from avgas_pipeline.pipeline_output import EncodedAudio


CHANNELS = 8


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
    assert place_sources([3.0]) == [WHOLE]
    assert place_sources([1, 1]) == [(0, 0, 0.5, 1), (0.5, 0, 1, 1)]
    assert place_sources([1, 1, 2])[2] == (0, 0.5, 1, 1)


@pytest.mark.parametrize("weights", [[], [1] * 9, [1, 0], [1, float("nan")], [float("inf")]])
def test_what_has_no_place(weights):
    with pytest.raises(ValueError, match=r"room for|above 0"):
        place_sources(weights)


def test_features_tell_boxes_apart():
    boxes = torch.tensor([*place_sources([1, 1]), *place_sources([1, 2]), WHOLE])
    features = box_features(boxes, 16)
    assert features.shape == (5, 16) and features.abs().max() <= 1
    assert torch.cdist(features, features)[~torch.eye(5, dtype=bool)].min() > 0.1
    tokens = with_places(torch.ones(5, 2, 32), boxes, 16)
    assert (tokens[..., :16] == 1).all() and torch.equal(tokens[:, 1, 16:], features)


def conditions(count, weights=None, separate=True):
    embeds = torch.randn(1, count, 2, 16, generator=torch.Generator().manual_seed(0))
    encoded = EncodedAudio(audio_embeds=embeds, null_audio_embeds=torch.zeros(2, 16))
    return embeds, *prepare_conditions(encoded, [weights], 1, separate, False, layout_channels=CHANNELS)


def test_weights_move_boxes_and_leave_what_is_drawn():
    embeds, found, _ = conditions(2, [0.5, 2.0])
    boxes = torch.tensor(place_sources([0.5, 2.0]))
    mixed = found.tokens[0].unflatten(0, (2, 2))
    assert torch.equal(mixed[..., :-CHANNELS], embeds[0, ..., :-CHANNELS])
    assert torch.allclose(mixed[:, 0, -CHANNELS:], box_features(boxes, CHANNELS))
    for row in (1, 2):
        alone = found.tokens[row][found.mask[row]]
        assert torch.allclose(alone[0, -CHANNELS:], box_features(torch.tensor(WHOLE), CHANNELS))


def test_without_a_source_the_others_have_its_place():
    _, found, sources = conditions(3, [1.0, 0.0, 1.0])
    _, two, _ = conditions(2)
    assert len(sources[0]) == 2 and found.mask[0].sum() == 4
    assert torch.equal(found.tokens[0][found.mask[0]][:, -CHANNELS:], two.tokens[0][:4, -CHANNELS:])


def test_more_than_there_is_room_for():
    with pytest.warns(UserWarning, match="of 10 sources the mixed picture shows the 8 surest"):
        embeds, found, sources = conditions(10)
    assert len(sources[0]) == 10 and len(found.rows) == 11
    assert found.mask[0].sum() == 2 * MOST_PLACED
    assert torch.equal(found.tokens[0, :16, :-CHANNELS], embeds[0, :8].flatten(0, 1)[:, :-CHANNELS])


def test_the_pipeline_has_a_layout_if_it_is_set_so(tmp_path):
    pipe = AVGASPipeline(**tiny_components(), layout_channels=CHANNELS)
    pipe.set_progress_bar_config(disable=True)
    call = {"num_sources": 2, "num_inference_steps": 2, "output_type": "np"}

    def draw(pipe, **more):
        return pipe(*tiny_audio(), generator=torch.Generator().manual_seed(0), **call, **more).images

    even = draw(pipe)
    assert not np.allclose(draw(pipe, source_weights=[2, 0.5]), even, atol=1e-4)
    assert np.allclose(draw(pipe, source_weights=[2, 2]), even, atol=1e-6)
    assert AVGASPipeline(**pipe.components).config.layout_channels == CHANNELS
    pipe.save_pretrained(tmp_path)
    assert np.allclose(draw(AVGASPipeline.from_pretrained(tmp_path)), even, atol=1e-5)
    assert not np.allclose(draw(AVGASPipeline(**pipe.components, layout_channels=0)), even, atol=1e-4)


def test_negative_sounds_are_everywhere():
    embeds, null = torch.randn(1, 2, 2, 16), torch.zeros(2, 16)
    away = torch.randn(1, 1, 2, 16)
    for negative, expected in (
        (away, box_features(torch.tensor(WHOLE), CHANNELS)),
        (null[None, None], torch.zeros(8)),
    ):
        encoded = EncodedAudio(audio_embeds=embeds, negative_audio_embeds=negative, null_audio_embeds=null)
        found, _ = prepare_conditions(encoded, [None], 1, False, True, layout_channels=CHANNELS)
        assert torch.allclose(found.negative_tokens[0, 0, -CHANNELS:], expected)


@pytest.mark.parametrize("channels", [-8, 7, 0.5, "8", 16])
def test_wrong_layout_channels(channels):
    with pytest.raises(ValueError, match="layout_channels"):
        AVGASPipeline(**tiny_components(), layout_channels=channels)
