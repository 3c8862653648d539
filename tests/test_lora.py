import json
import shutil
import sys

import forked
import numpy as np
import pytest
import safetensors
import torch
from drawing import difference
from drawing import draw as draw_present
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file
from tiny import tiny_audio, tiny_components

from avgas_pipeline import AVGASPipeline


def draw(pipe, **options):
    # LoRA on the separator moves who is present, so the number of sources is held.
    return draw_present(pipe, separate=True, **{"num_sources": 2, **options}).images


@pytest.fixture
def lora(tmp_path):
    """A folder with LoRA weights for U-Net and separator, rank 4 and alpha 8, and what they draw."""
    trained = AVGASPipeline(**tiny_components())
    trained.set_progress_bar_config(disable=True)
    torch.manual_seed(0)
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    config = LoraConfig(r=4, lora_alpha=8, init_lora_weights=False, target_modules=targets)
    trained.unet.add_adapter(config)
    trained.separator.add_adapter(config)
    trained.save_lora_weights(
        tmp_path / "lora",
        unet_lora_layers=get_peft_model_state_dict(trained.unet),
        separator_lora_layers=get_peft_model_state_dict(trained.separator),
        unet_lora_adapter_metadata=trained.unet.peft_config["default"].to_dict(),
        separator_lora_adapter_metadata=trained.separator.peft_config["default"].to_dict(),
    )
    return tmp_path / "lora", draw(trained)


def test_layers_beside_a_pipeline_are_not_loaded_without_a_word(pipe, lora, tmp_path):
    folder, _ = lora
    pipe.save_pretrained(tmp_path / "run")
    shutil.copy(folder / "pytorch_lora_weights.safetensors", tmp_path / "run")
    with pytest.warns(UserWarning, match="is not loaded with the pipeline: call `pipe.load_lora_weights"):
        AVGASPipeline.from_pretrained(tmp_path / "run")


def test_load_scale_fuse_unload(pipe, lora):
    folder, trained = lora
    base = draw(pipe)
    pipe.load_lora_weights(folder)
    assert pipe.get_list_adapters() == {"unet": ["default_0"], "separator": ["default_0"]}
    assert np.array_equal(draw(pipe), trained)
    assert difference(trained, base) > 1e-3
    assert np.array_equal(draw(pipe, cross_attention_kwargs={"scale": 0.0}), base)
    assert difference(draw(pipe, cross_attention_kwargs={"scale": 0.5}), base) > 1e-4
    assert np.array_equal(draw(pipe), trained)
    pipe.set_adapters("default_0", 0.0)
    assert np.array_equal(draw(pipe), base)
    pipe.set_adapters("default_0", 1.0)

    pipe.fuse_lora()
    assert difference(draw(pipe), trained) <= 1e-5
    pipe.unfuse_lora()
    assert difference(draw(pipe), trained) <= 1e-5


def test_unload_gives_the_base_back(pipe, lora):
    base = draw(pipe)
    pipe.load_lora_weights(lora[0])
    pipe.unload_lora_weights()
    assert np.array_equal(draw(pipe), base)


def test_in_a_fresh_process(checkpoint, lora, tmp_path):
    np.save(tmp_path / "audio.npy", tiny_audio()[0])
    script = f"""
import os, numpy as np, torch
from avgas_pipeline import AVGASPipeline
os.chdir({str(tmp_path)!r})
pipe = AVGASPipeline.from_pretrained({str(checkpoint)!r})
pipe.set_progress_bar_config(disable=True)
def draw(**options):
    return pipe(np.load("audio.npy"), 16000, separate=True, num_sources=2, num_inference_steps=3, output_type="np",
                generator=torch.manual_seed(0), **options).images
base = draw()
pipe.load_lora_weights({str(lora[0])!r}, adapter_name="mine")
np.save("lora.npy", draw())
print(np.array_equal(draw(cross_attention_kwargs={{"scale": 0.0}}), base))
pipe.unload_lora_weights()
print(np.array_equal(draw(), base))
"""
    (tmp_path / "script.py").write_text(script)
    result = forked.run([sys.executable, tmp_path / "script.py"])
    assert result.stdout.split() == ["True", "True"], result.stderr
    assert difference(np.load(tmp_path / "lora.npy"), lora[1]) < 1e-6


def test_rank_and_alpha_are_in_the_file(lora):
    with safetensors.safe_open(lora[0] / "pytorch_lora_weights.safetensors", "pt") as file:
        metadata = json.loads(file.metadata()["lora_adapter_metadata"])
    assert metadata["unet.r"] == metadata["separator.r"] == 4
    assert metadata["unet.lora_alpha"] == metadata["separator.lora_alpha"] == 8
    assert [path.name for path in lora[0].iterdir()] == ["pytorch_lora_weights.safetensors"]


def test_two_adapters_mix(pipe, lora):
    pipe.load_lora_weights(lora[0], adapter_name="first")
    alone = draw(pipe)
    pipe.load_lora_weights(lora[0], adapter_name="second")
    pipe.set_adapters(["first", "second"], [0.5, 0.5])
    assert difference(draw(pipe), alone) < 1e-5
    pipe.delete_adapters("second")
    pipe.set_adapters("first")
    assert np.array_equal(draw(pipe), alone)


def test_a_unet_only_lora_loads(pipe, lora):
    with safetensors.safe_open(lora[0] / "pytorch_lora_weights.safetensors", "pt") as file:
        unet_only = {key: file.get_tensor(key) for key in file.keys() if key.startswith("unet.")}  # noqa: SIM118
    base = draw(pipe)
    pipe.load_lora_weights(unet_only, adapter_name="style")
    pipe.set_adapters("style", 0.5)
    assert pipe.get_list_adapters() == {"unet": ["style"]}
    assert difference(draw(pipe), base) > 1e-4


def test_a_lora_that_fails_to_load_leaves_nothing_behind(pipe, lora):
    with safetensors.safe_open(lora[0] / "pytorch_lora_weights.safetensors", "pt") as file:
        weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    broken = next(key for key in weights if key.startswith("separator.") and "lora_A" in key)
    base = draw(pipe)
    with pytest.raises(ValueError, match="made for others"):
        pipe.load_lora_weights({**weights, broken: torch.zeros(4, 99)})
    assert not any(pipe.get_list_adapters().values())
    assert np.array_equal(draw(pipe), base)


def test_what_a_killed_save_left_beside_it_is_not_taken(pipe, lora):
    folder, expected = lora
    # Only where there are several names is one chosen.
    (folder / "pytorch_lora_weights.safetensors").rename(folder / "dogs.safetensors")
    (folder / ".partial-0.safetensors").write_bytes(b"half")
    pipe.load_lora_weights(folder)
    assert np.array_equal(draw(pipe), expected)


def test_pickled_files_are_not_read(pipe, tmp_path):
    torch.save({"unet.conv_in.lora_A.weight": torch.zeros(1)}, tmp_path / "lora.bin")
    for options in ({"weight_name": "lora.bin"}, {"use_safetensors": False}):
        with pytest.raises(ValueError, match="Pickled LoRA files"):
            pipe.load_lora_weights(tmp_path, **options)


def test_adapter_names_are_unique_and_hotswap_takes_the_same_components(pipe, lora):
    pipe.load_lora_weights(lora[0], adapter_name="mine")
    trained = draw(pipe)
    with pytest.raises(ValueError, match="in use already"):
        pipe.load_lora_weights(lora[0], adapter_name="mine")
    pipe.load_lora_weights(lora[0], adapter_name="mine", hotswap=True)
    assert np.array_equal(draw(pipe), trained)
    with safetensors.safe_open(lora[0] / "pytorch_lora_weights.safetensors", "pt") as file:
        unet_only = {key: file.get_tensor(key) for key in file.keys() if key.startswith("unet.")}  # noqa: SIM118
    with pytest.raises(ValueError, match="hotswap"):
        pipe.load_lora_weights(unet_only, adapter_name="mine", hotswap=True)


def test_what_is_no_lora_of_ours_is_refused(pipe, lora, components, tmp_path):
    with pytest.raises(ValueError, match="lora"):
        pipe.load_lora_weights({"unet.conv_in.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="transformer"):
        pipe.load_lora_weights({"transformer.to_q.lora_A.weight": torch.zeros(1, 1)})
    torch.save({"unet.to_q.lora_A.weight": torch.zeros(1, 1)}, tmp_path / "pytorch_lora_weights.bin")
    with pytest.raises(OSError, match="safetensors"):
        pipe.load_lora_weights(tmp_path, weight_name="pytorch_lora_weights.safetensors")
    with pytest.raises(ValueError, match="safetensors"):
        pipe.load_lora_weights(tmp_path, use_safetensors=False)
    with pytest.raises(ValueError, match="`separator`"):
        AVGASPipeline(**{**components, "separator": None}).load_lora_weights(lora[0])
    with pytest.raises(ValueError, match="at least one"):
        pipe.save_lora_weights(tmp_path)


def test_layers_are_never_pickled(pipe, tmp_path):
    pipe.save_lora_weights(tmp_path, unet_lora_layers={"a": torch.ones(1)}, safe_serialization=False)
    (path,) = tmp_path.iterdir()
    assert load_file(path)["unet.a"].item() == 1
