"""LoRA files that are hostile or half there, and pipelines with LoRA layers in them."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from drawing import difference, draw
from hub_server import run_hub, run_python
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from tiny import tiny_components

from avgas_pipeline import AVGASPipeline


NAME = "pytorch_lora_weights.safetensors"


def save_lora(pipe, folder, targets=("to_q", "to_v")):
    torch.manual_seed(0)
    layers = {}
    for name in ("unet", "separator"):
        part = getattr(pipe, name)
        part.add_adapter(LoraConfig(r=2, lora_alpha=4, init_lora_weights=False, target_modules=targets))
        layers[f"{name}_lora_layers"] = get_peft_model_state_dict(part)
        layers[f"{name}_lora_adapter_metadata"] = part.peft_config["default"].to_dict()
    pipe.save_lora_weights(folder, **layers)


@pytest.fixture(scope="module")
def lora(tmp_path_factory):
    """A file of LoRA weights; read-only by convention."""
    folder = tmp_path_factory.mktemp("lora")
    save_lora(AVGASPipeline(**tiny_components()), folder, ["to_q", "to_v"])
    return folder / NAME


@pytest.fixture(scope="module")
def settings(lora):
    with open(lora, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return json.loads(header["__metadata__"]["lora_adapter_metadata"])


def write(path, weights, text):
    save_file(weights, path, metadata={"format": "pt", "lora_adapter_metadata": text})
    return path


def refused(pipe, source, message, **options):
    began = time.monotonic()
    with pytest.raises(ValueError, match=message) as error:
        pipe.load_lora_weights(source, **options)
    assert time.monotonic() - began < 10
    assert "\n" not in str(error.value)
    assert not any(pipe.get_list_adapters().values())


SLOW = "(.*a){25}|((x+)+)+y"


@pytest.mark.parametrize(
    "change",
    [
        {"unet.target_modules": SLOW},
        {"unet.target_modules": 5},
        {"unet.rank_pattern": {SLOW: 2}},
        {"unet.alpha_pattern": {SLOW: 2}},
        {"unet.rank_pattern": [1]},
        {"separator.target_modules": SLOW},
        {"unet.r": 10**9},
        {"unet.r": "2"},
        {"unet.lora_alpha": "2"},
        {"unet.use_dora": "yes"},
        {"unet.modules_to_save": [SLOW]},
        {"unet.init_lora_weights": "pissa"},
    ],
)
def test_settings_are_names_and_numbers(pipe, lora, settings, change, tmp_path):
    path = write(tmp_path / "lora.safetensors", load_file(lora), json.dumps({**settings, **change}))
    refused(pipe, path, next(iter(change)))


@pytest.mark.parametrize("text", ["[" * 100_000 + "]" * 100_000, "[1]", "{", '"a"', "5"])
def test_junk_in_place_of_settings(pipe, lora, text, tmp_path):
    refused(pipe, write(tmp_path / "lora.safetensors", load_file(lora), text), "lora.safetensors")


def test_settings_that_have_no_effect_on_finished_layers_are_not_followed(pipe, lora, settings, tmp_path):
    slow = {"unet.exclude_modules": SLOW, "unet.layers_pattern": SLOW, "unet.layers_to_transform": [0]}
    pipe.load_lora_weights(write(tmp_path / "lora.safetensors", load_file(lora), json.dumps({**settings, **slow})))
    drawn = draw(pipe, num_sources=2).images
    pipe.unload_lora_weights()
    pipe.load_lora_weights(lora)
    assert np.array_equal(draw(pipe, num_sources=2).images, drawn)


def without(weights, part):
    return {key: value for key, value in weights.items() if part not in key}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: without(weights, "lora_B"), "half a layer"),
        (lambda weights: without(weights, "lora_A"), "half a layer"),
        (lambda weights: dict(list(weights.items())[1:]), "half a layer"),
        (lambda weights: {key: value.flatten() for key, value in weights.items()}, "has to be a matrix"),
        (lambda weights: {key: value.int() for key, value in weights.items()}, "floating-point"),
        (
            lambda weights: {key.replace("unet.", "unet.base_model.model."): value for key, value in weights.items()},
            "get_peft_model_state_dict",
        ),
        (
            lambda weights: {key.replace(".weight", ".my.style.weight"): value for key, value in weights.items()},
            "name of an adapter",
        ),
        (lambda weights: {key.replace("to_q", "to_x"): value for key, value in weights.items()}, "made for others"),
        (lambda weights: {"unet.to_q_lora.down.weight": torch.zeros(2, 8)}, "half a layer"),
        (lambda weights: {"lora_unet_junk": torch.zeros(2, 8)}, "not safetensors|begin with"),
    ],
)
@pytest.mark.parametrize("from_file", [True, False])
def test_half_a_lora_and_other_names(pipe, lora, change, message, from_file, tmp_path):
    weights = change(load_file(lora))
    if from_file:
        save_file({key: value.contiguous() for key, value in weights.items()}, tmp_path / "lora.safetensors")
        weights = tmp_path / "lora.safetensors"
    refused(pipe, weights, message)


@pytest.mark.parametrize("name", ["my.style", "", "keys", 5])
def test_names_that_no_adapter_can_have(pipe, lora, name):
    refused(pipe, lora, "can't be called", adapter_name=name)


def test_files_elsewhere(pipe, lora, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for options in (
        {"weight_name": f"../{NAME}"},
        {"weight_name": str(lora)},
        {"subfolder": ".."},
        {"subfolder": str(lora.parent)},
    ):
        refused(pipe, folder, "leads out of it|never loaded", **options)


def test_a_folder_with_shards_or_several_files(pipe, lora, tmp_path):
    for name in ("a.safetensors", "b.safetensors"):
        save_file(load_file(lora), tmp_path / name)
    refused(pipe, tmp_path, "weight_name")
    pipe.load_lora_weights(tmp_path, weight_name="a.safetensors")
    pipe.unload_lora_weights()
    (tmp_path / f"{NAME}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": {"a": "weights.bin"}}))
    refused(pipe, tmp_path, "several files")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no LoRA weights"):
        pipe.load_lora_weights(tmp_path, subfolder="empty")


def test_a_repository(lora, checkpoint, tmp_path):
    for name in ("whole", "sharded"):
        (tmp_path / "hub/someone" / name).mkdir(parents=True)
        save_file(load_file(lora), tmp_path / "hub/someone" / name / NAME)
    (tmp_path / f"hub/someone/sharded/{NAME}.index.json").write_text('{"weight_map": {"a": "weights.bin"}}')
    script = f"""
from avgas_pipeline import AVGASPipeline
pipe = AVGASPipeline.from_pretrained({str(checkpoint)!r})
pipe.load_lora_weights("someone/whole")
print(pipe.get_list_adapters())
outside = {{"weight_name": "../x.safetensors"}}
for name, options in (("sharded", {{}}), ("whole", outside), ("whole", {{"subfolder": ".."}})):
    try:
        pipe.load_lora_weights(f"someone/{{name}}", **options)
        print("loaded")
    except ValueError as error:
        print(error)
"""
    with run_hub(tmp_path / "hub") as url:
        lines = run_python(script, tmp_path, endpoint=url).splitlines()[-4:]
    assert "default_0" in lines[0]
    assert "several files" in lines[1] and "never loaded" in lines[2] and "leads out" in lines[3]


def test_settings_of_one_component_are_not_taken_for_another(pipe, lora, settings, tmp_path):
    separator_only = {key: value for key, value in settings.items() if key.startswith("separator.")}
    pipe.load_lora_weights(write(tmp_path / "lora.safetensors", load_file(lora), json.dumps(separator_only)))
    assert pipe.unet.peft_config["default_0"].r == 2


def test_a_lora_trained_with_an_expression_is_saved_with_names(pipe, tmp_path):
    save_lora(pipe, tmp_path, r".*to_[qv]")
    loaded = AVGASPipeline(**tiny_components())
    loaded.load_lora_weights(tmp_path)
    assert loaded.get_list_adapters() == {"unet": ["default_0"], "separator": ["default_0"]}


@pytest.mark.slow
def test_the_same_weights_are_the_same_bytes(tmp_path):
    script = f"""
import sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
from test_hostile_lora import save_lora, tiny_components, AVGASPipeline
save_lora(AVGASPipeline(**tiny_components()), sys.argv[1], ["to_q", "to_k", "to_v", "to_out.0"])
"""
    for seed in ("1", "2", "3"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", script, tmp_path / seed], env=environment, check=True)
    files = {(tmp_path / seed / NAME).read_bytes() for seed in ("1", "2", "3")}
    assert len(files) == 1
    assert len(load_file(tmp_path / "1" / NAME)) > 8


# -- pipelines with LoRA layers in them -----------------------------------------------------------------------------


def test_a_pipeline_with_lora_layers_is_not_saved(pipe, lora, tmp_path):
    pipe.load_lora_weights(lora)
    for fuse in (False, True):
        if fuse:
            pipe.fuse_lora()
        with pytest.raises(ValueError, match=r"fuse_lora.*unload_lora_weights.*save_lora_weights"):
            pipe.save_pretrained(tmp_path / "saved")
        # Offline: it would fail otherwise if it made the repository first.
        with pytest.raises(ValueError, match="unload_lora_weights"):
            pipe.push_to_hub("user/name")
    assert not (tmp_path / "saved").exists()


def test_fused_and_unloaded_layers_are_saved_and_draw_the_same(pipe, lora, tmp_path):
    base = draw(pipe, num_sources=2).images
    pipe.load_lora_weights(lora)
    drawn = draw(pipe, num_sources=2).images
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    fused = draw(pipe, num_sources=2).images
    assert difference(fused, drawn) < 1e-5 and difference(drawn, base) > 1e-4
    pipe.save_pretrained(tmp_path)
    assert np.array_equal(draw(AVGASPipeline.from_pretrained(tmp_path), num_sources=2).images, fused)


def test_a_pipeline_whose_layers_were_taken_out_is_saved(pipe, lora, tmp_path):
    pipe.load_lora_weights(lora)
    pipe.unload_lora_weights()
    pipe.save_pretrained(tmp_path)
    AVGASPipeline.from_pretrained(tmp_path)
