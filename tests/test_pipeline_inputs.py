"""Bad arguments and recordings get one clear error."""

import numpy as np
import pytest
import soundfile
import torch
from drawing import SETTINGS, difference, draw, seeded
from sounds import tone
from tiny import LABELS, tiny_audio

from avgas_pipeline import AVGASPipeline


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


def test_no_audio(pipe):
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
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
    silent = (tmp_path / "silent.wav").read_bytes()
    with pytest.raises(ValueError, match="number 1 of the batch"):
        draw(pipe, [tone(1.0, 16000), silent], seeded(0, 1))


def test_what_is_not_finite_is_not_drawn(pipe):
    with torch.no_grad():
        pipe.audio_encoder.layernorm.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"audio_encoder.*not finite"):
        draw(pipe)


def test_scale_and_text_embeddings_without_a_text_encoder(pipe):
    text = {"prompt_embeds": torch.ones(1, 3, 16), "negative_prompt_embeds": torch.zeros(1, 3, 16)}
    scaled = draw(pipe, cross_attention_kwargs={"scale": 0.5}, **text)
    assert difference(scaled.images, draw(pipe, **text).images) < 1e-6
    negative = {"negative_prompt_embeds": text["negative_prompt_embeds"]}
    with pytest.raises(ValueError, match="needs `prompt_embeds`"):
        draw(pipe, **negative)
    unguided = draw(pipe, guidance_scale=1.0, **negative)
    assert np.array_equal(unguided.images, draw(pipe, guidance_scale=1.0).images)


def test_missing_parts_are_named(components):
    without = AVGASPipeline(**{**components, "audio_encoder": None})
    with pytest.raises(ValueError, match="audio_encoder"):
        without(*tiny_audio(), **SETTINGS)
    without = AVGASPipeline(**{**components, "audio_encoder": None, "separator": None})
    with pytest.raises(ValueError, match="null_audio_embeds"):
        without(audio_embeds=torch.zeros(1, 1, 2, 16), **SETTINGS)


def test_encodes_and_draws_under_autocast(pipe):
    audio = np.concatenate([tiny_audio(1.0, seed)[0] for seed in range(3)])
    with torch.autocast("cpu", torch.bfloat16):
        out = draw(pipe, audio, separate=True, num_sources=3)
    assert np.isfinite(out.images).all() and len(out.sources[0]) >= 1
