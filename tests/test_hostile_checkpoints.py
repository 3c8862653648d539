"""Checkpoints whose files hold junk, huge numbers, or names that lead elsewhere."""

import json
import shutil
import time

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_audio, tiny_components, tiny_separator

from avgas_pipeline import AudioVisualSeparator, AVGASPipeline, create_model_card
from avgas_pipeline.loaders.folders import locate


@pytest.fixture
def copy(checkpoint, tmp_path):
    return shutil.copytree(checkpoint, tmp_path / "copy")


def change(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def refused(folder, message):
    began = time.monotonic()
    with pytest.raises(ValueError, match=message) as error:
        AVGASPipeline.from_pretrained(folder)
    assert time.monotonic() - began < 20
    assert "\n" not in str(error.value)


SCHEDULER = "scheduler/scheduler_config.json"
EXTRACTOR = "audio_feature_extractor/preprocessor_config.json"
MODELS = ["audio_encoder/config.json", "unet/config.json", "vae/config.json", "separator/config.json"]
JUNK = {
    "nested": "[" * 100_000 + "]" * 100_000,
    "nested below what Python reads": f'{{"a": {"[" * 500}{"]" * 500}}}',
    "a list": "[1]",
    "empty": "",
    "a surrogate": '{"_class_name": "\\ud800"}',
    "not a number": '{"_class_name": "x", "a": NaN}',
}


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("name", ["model_index.json", SCHEDULER, EXTRACTOR, *MODELS])
def test_junk_in_place_of_a_configuration(copy, name, junk):
    (copy / name).write_text(JUNK[junk])
    refused(copy, f"copy/{name}: ")
    # Before torch is imported.
    with pytest.raises(ValueError, match=name):
        locate(copy)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("model_index.json", {"scheduler": None}),
        ("model_index.json", {"scheduler": [None, None]}),
        ("model_index.json", {"unet": [1, 2]}),
        ("model_index.json", {"text_encoder": "junk"}),
        ("model_index.json", {"_class_name": None}),
        ("model_index.json", {"default_num_inference_steps": "ten"}),
        ("model_index.json", {"default_guidance_scale": [1]}),
        ("model_index.json", {"speed_variation": 9}),
        ("model_index.json", {"unet": ["subprocess", "Popen"]}),
        ("model_index.json", {"unet": ["diffusers", "StableDiffusionPipeline"]}),
        (SCHEDULER, {"_class_name": None}),
        (SCHEDULER, {"num_train_timesteps": "1000"}),
        (SCHEDULER, {"beta_schedule": "junk"}),
        (EXTRACTOR, {"feature_extractor_type": 7}),
        (EXTRACTOR, {"num_mel_bins": -2}),
        (EXTRACTOR, {"max_length": [1]}),
        ("unet/config.json", {"_class_name": None}),
        ("unet/config.json", {"norm_eps": "junk"}),
        ("unet/config.json", {"down_block_types": [1, 2]}),
        ("vae/config.json", {"block_out_channels": {}}),
        ("audio_encoder/config.json", {"hidden_size": "junk"}),
        ("audio_encoder/config.json", {"hidden_act": "junk"}),
        ("audio_encoder/config.json", {"transformers_weights": "adapter_model.bin"}),
        ("separator/config.json", {"num_slots": "4"}),
        ("separator/config.json", {"num_attention_heads": 0}),
        ("separator/config.json", {"id2label": ["a"]}),
        ("separator/config.json", {"id2label": {"0": 1}}),
        ("separator/config.json", {"pipeline_settings": {"speed_variation": "junk"}}),
    ],
)
def test_junk_in_a_configuration(copy, name, values):
    change(copy / name, **values)
    refused(copy, rf"copy/{name.rsplit('/', 1)[0]}")


def test_an_index_without_scheduler_names_what_is_missing(copy):
    index = json.loads((copy / "model_index.json").read_text())
    del index["scheduler"]
    (copy / "model_index.json").write_text(json.dumps(index))
    refused(copy, r"model_index\.json: names no `scheduler`")


@pytest.mark.parametrize("number", [10**6, 10**9])
@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("separator/config.json", "num_slots"),
        ("separator/config.json", "num_layers"),
        ("separator/config.json", "hidden_dim"),
        ("separator/config.json", "n_fft"),
        ("audio_encoder/config.json", "num_hidden_layers"),
        ("audio_encoder/config.json", "hidden_size"),
        ("audio_encoder/config.json", "num_labels"),
        ("unet/config.json", "layers_per_block"),
        ("unet/config.json", "sample_size"),
        ("vae/config.json", "layers_per_block"),
        (EXTRACTOR, "num_mel_bins"),
        (EXTRACTOR, "max_length"),
    ],
)
def test_huge_numbers(copy, name, key, number):
    change(copy / name, **{key: number})
    refused(copy, rf"copy/{name.rsplit('/', 1)[0]}")


def test_a_scheduler_with_a_huge_number_and_huge_lists(copy):
    steps = json.loads((copy / SCHEDULER).read_text())
    change(copy / SCHEDULER, num_train_timesteps=10**9)
    refused(copy, "num_train_timesteps")
    (copy / SCHEDULER).write_text(json.dumps(steps))
    change(copy / "separator/config.json", id2label={str(number): "x" for number in range(3 * 10**5)})
    refused(copy, "larger than 4 MiB")


@pytest.mark.parametrize("header", [b"[1]", b"{" * 10_000, b"\xff" * 20, b'{"__metadata__": {"format": 5}}'])
@pytest.mark.parametrize("name", ["unet", "audio_encoder"])
def test_junk_in_the_header_of_weights(copy, name, header):
    (path,) = (copy / name).glob("*.safetensors")
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(64))
    refused(copy, path.name)


@pytest.mark.parametrize("name", ["unet", "audio_encoder"])
@pytest.mark.parametrize("target", ["weights.bin", "../../outside.safetensors", "/tmp/outside.safetensors"])
def test_an_index_that_leads_elsewhere(copy, name, target):
    (path,) = (copy / name).glob("*.safetensors")
    weights = load_file(path)
    save_file(weights, copy.parent / "outside.safetensors", metadata={"format": "pt"})
    torch.save(weights, path.parent / "weights.bin")
    path.rename(path.with_name("other.safetensors"))
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, target)}
    path.with_name(f"{path.name}.index.json").write_text(json.dumps(index))
    refused(copy, "never loaded")


def test_an_adapter_beside_the_weights_of_a_model_is_not_loaded(copy):
    (copy / "audio_encoder/adapter_config.json").write_text('{"base_model_name_or_path": "someone/else"}')
    refused(copy, "adapter_config")


@pytest.mark.parametrize("config", [{"num_slots": 0}, {"num_layers": 1.5}, {"dropout": "a"}, {"id2label": {0: None}}])
def test_a_separator_is_not_built_of_junk(config):
    with pytest.raises(ValueError, match=next(iter(config))):
        AudioVisualSeparator(**config)


def test_labels_reach_the_card_as_text():
    labels = {0: "<script>alert(1)</script>", 1: "a\nb\x1b[31m", 2: "[x](javascript:y)", 3: "bee, wasp"}
    components = {**tiny_components(), "separator": tiny_separator(id2label=labels)}
    components["unet"].register_to_config(_name_or_path="a/b](javascript:x)\nlicense: mit")
    card = str(create_model_card(AVGASPipeline(**components), "user/name"))
    assert "<script" not in card and "\x1b" not in card and "[x](" not in card and "license: mit" not in card
    assert "&lt;script&gt;" in card and "bee, wasp" in card


def test_a_feature_extractor_without_length(copy):
    change(copy / EXTRACTOR, max_length=None)
    pipe = AVGASPipeline.from_pretrained(copy)
    with pytest.raises(ValueError, match="`max_length`"):
        pipe(*tiny_audio(), num_inference_steps=1)
