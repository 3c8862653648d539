"""Sources that are heard and not recognised: no label, no picture unless asked for; and what is too faint."""

import json

import numpy as np
import pytest
import soundfile
import torch
from drawing import draw
from tiny import LABELS, tiny_audio, tiny_components, tiny_separator
from typer.testing import CliRunner

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.cli import app
from avgas_pipeline.models.separator import AudioVisualSeparatorOutput
from avgas_pipeline.separation.encoding import align_views, average_views


@pytest.fixture
def pipe():
    """Draws the sources of `tiny_audio()`, of which some are "unknown sound" and some are not."""
    labels = {**dict(enumerate(LABELS)), len(LABELS): "unknown sound"}
    pipe = AVGASPipeline(**{**tiny_components(), "separator": tiny_separator(id2label=labels)})
    pipe.set_progress_bar_config(disable=True)
    with torch.no_grad():
        pipe.separator.presence_head.bias.fill_(4.0)
        found = pipe.separate_audio(*tiny_audio(), return_audio=False)[0]
        # The first source's class wins for it alone.
        for bias in np.arange(0.0, 20.0, 0.1):
            pipe.separator.class_head.bias[-1] = float(bias)
            unknown = [source.is_unknown for source in pipe.separate_audio(*tiny_audio(), return_audio=False)[0]]
            if any(unknown) and not all(unknown):
                return pipe
    raise AssertionError([source.label for source in found])


def everything_unknown(pipe):
    with torch.no_grad():
        pipe.separator.class_head.bias[-1] = 1000.0
    return pipe


def test_an_unknown_sound_has_all_but_a_label(pipe):
    sources = pipe.separate_audio(*tiny_audio())[0]
    (unknown,) = [source for source in sources if source.is_unknown]
    assert unknown.label is None and unknown.name == "unknown sound"
    assert unknown.audio is not None and unknown.activity.max() > 0
    nearest = unknown.nearest(pipe.separator.id2label)
    assert len(nearest) == 3 and next(iter(nearest)) == "unknown sound"
    assert list(nearest.values()) == sorted(nearest.values(), reverse=True)
    known = [source for source in sources if not source.is_unknown]
    assert all(source.label == source.name in LABELS for source in known)


def test_it_is_drawn_on_request_alone(pipe):
    out = draw(pipe, separate=True)
    assert [len(source.images) for source in out.sources[0]] == [not source.is_unknown for source in out.sources[0]]
    everything = draw(pipe, separate=True, draw_unknown=True)
    assert all(len(source.images) == 1 for source in everything.sources[0])
    assert not np.array_equal(everything.images, out.images)
    for with_unknown, without in zip(everything.sources[0], out.sources[0], strict=True):
        if not without.is_unknown:
            assert np.array_equal(with_unknown.images, without.images)
    # Whoever says how many wants so many.
    count = len(out.sources[0])
    forced = draw(pipe, separate=True, num_sources=count)
    assert np.array_equal(forced.images, everything.images)


def test_encoded_once_it_draws_the_same(pipe):
    for options in ({}, {"draw_unknown": True}):
        encoded = pipe.encode_audio(*tiny_audio(), **options)
        assert np.array_equal(draw(pipe, **encoded).images, draw(pipe, **options).images)


def test_weights_are_counted_over_all_sources(pipe):
    sources = pipe.separate_audio(*tiny_audio(), return_audio=False)[0]
    weights = [0.5 if source.is_unknown else 1.0 for source in sources]
    assert np.array_equal(draw(pipe, source_weights=weights).images, draw(pipe).images)


def test_nothing_known_is_nothing_to_draw(pipe):
    everything_unknown(pipe)
    assert [source.label for source in pipe.separate_audio(*tiny_audio())[0]] == [None]
    with pytest.raises(ValueError, match="draw_unknown=True"):
        draw(pipe)
    assert len(draw(pipe, draw_unknown=True).images) == 1


def test_labels_that_are_not_certain_enough(tmp_path):
    pipe = AVGASPipeline(**tiny_components())
    scores = [source.label_score for source in pipe.separate_audio(*tiny_audio(), return_audio=False)[0]]
    threshold = (min(scores) + max(scores)) / 2 if len(scores) > 1 else 1.0
    strict = AVGASPipeline(**tiny_components(), label_threshold=threshold)
    labels = [source.label for source in strict.separate_audio(*tiny_audio(), return_audio=False)[0]]
    assert [label is None for label in labels] == [score < threshold for score in scores]
    strict.save_pretrained(tmp_path)
    assert AVGASPipeline.from_pretrained(tmp_path).config.label_threshold == threshold
    assert AVGASPipeline(**strict.components).config.label_threshold == threshold
    with pytest.raises(ValueError, match="`label_threshold`"):
        AVGASPipeline(**tiny_components(), label_threshold=1.5)


def test_the_command_line(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "model")
    soundfile.write(tmp_path / "x.wav", tiny_audio()[0], 16000)
    command = ["generate", str(tmp_path / "x.wav"), "--model", str(tmp_path / "model"), "--steps", "1", "--separate"]
    for options in ([], ["--draw-unknown"]):
        result = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "out"), *options])
        assert result.exit_code == 0, result.output
        assert "unknown sound" in result.stdout
        sources = json.loads((tmp_path / "out/sources.json").read_text())["sources"]
        (unknown,) = [source for source in sources if source["label"] is None]
        assert len(unknown["nearest"]) == 3 and len(unknown["images"]) == len(options)
        assert unknown["audio"].endswith("unknown-sound.wav")
    everything_unknown(pipe).save_pretrained(tmp_path / "deaf")
    command[command.index("--model") + 1] = str(tmp_path / "deaf")
    result = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "none")])
    assert result.exit_code == 2 and "--draw-unknown" in result.stderr and not (tmp_path / "none").exists()


def test_what_has_nowhere_a_share_of_the_energy_is_no_source():
    output = AudioVisualSeparatorOutput(
        presence_logits=torch.tensor([[3.0, 3.0]]),
        class_logits=torch.zeros(1, 2, 3),
        audio_embeds=torch.eye(2)[None],
        visual_embeds=torch.eye(2)[None],
        condition_tokens=torch.zeros(1, 2, 1, 4),
        null_tokens=torch.zeros(1, 4),
    )
    window = average_views(align_views(0, [(output, 0)], torch.tensor([0.5, 0.01])))
    assert window.slots[0].presence > 0.9 and window.slots[1].presence == 0.0
    window = average_views(align_views(0, [(output, 0)]))
    assert window.slots[1].presence > 0.9
