"""Weights that are not those of their model: found for every component, before anything is drawn."""

import shutil

import pytest
import torch
from hub_server import run_hub, run_python
from safetensors.torch import load_file, save_file
from tiny import tiny_ast, tiny_components, tiny_tokenizer
from transformers import CLIPTextConfig, CLIPTextModel
from typer.testing import CliRunner

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.cli import app


COMPONENTS = ["audio_encoder", "text_encoder", "unet", "vae", "separator"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A checkpoint with all components, saved once whole and once in shards."""
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text_encoder = CLIPTextModel(CLIPTextConfig(vocab_size=514, bos_token_id=512, eos_token_id=513, **sizes))
    pipe = AVGASPipeline(**{**tiny_components(), "text_encoder": text_encoder, "tokenizer": tiny_tokenizer()})
    folder = tmp_path_factory.mktemp("saved")
    pipe.save_pretrained(folder / "whole")
    pipe.save_pretrained(folder / "sharded", max_shard_size="20KB")
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved / "whole", tmp_path / "copy")


def rewrite(component, change):
    (path,) = component.glob("*.safetensors")
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def half(weights):
    return {name: weights[name] for name in sorted(weights)[::2]}


def reshaped(weights):
    return {**weights, sorted(weights)[0]: torch.zeros(3)}


DAMAGES = {
    "missing tensors": (lambda weights: {"foreign": torch.zeros(1)}, r"missing tensors \(\w.*, \.\.\.\).*foreign"),
    "half": (half, "missing tensors"),
    "another shape": (reshaped, r"1 tensors of another shape \(.* is \[3\], not \["),
    "extra": (lambda weights: {**weights, "foreign": torch.zeros(1)}, r"no place in the model \(foreign\)"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", COMPONENTS)
def test_weights_of_another_model_are_refused(copy, name, damage):
    change, message = DAMAGES[damage]
    rewrite(copy / name, change)
    with pytest.raises(ValueError, match=rf"copy/{name}: the weights .*{message}"):
        AVGASPipeline.from_pretrained(copy)


@pytest.mark.parametrize("name", COMPONENTS)
def test_shards_load_and_an_index_that_leaves_tensors_out_does_not(saved, tmp_path, name):
    copy = shutil.copytree(saved / "sharded", tmp_path / "copy")
    (index,) = (copy / name).glob("*.safetensors.index.json")
    AVGASPipeline.from_pretrained(copy)
    shard = sorted((copy / name).glob("*.safetensors"))[0]
    weights = load_file(shard)
    weights.pop(sorted(weights)[0])
    save_file(weights or {"foreign": torch.zeros(1)}, shard, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"{index.name}: .* is not in {shard.name}"):
        AVGASPipeline.from_pretrained(copy)


def test_a_variant_with_missing_weights(saved, tmp_path):
    pipe = AVGASPipeline.from_pretrained(saved / "whole")
    pipe.save_pretrained(tmp_path, variant="fp16")
    AVGASPipeline.from_pretrained(tmp_path, variant="fp16")
    rewrite(tmp_path / "vae", half)
    with pytest.raises(ValueError, match=r"vae: .*missing tensors"):
        AVGASPipeline.from_pretrained(tmp_path, variant="fp16")


def test_a_component_that_is_passed_is_not_compared_with_files(copy, components):
    rewrite(copy / "unet", half)
    assert AVGASPipeline.from_pretrained(copy, unet=components["unet"]).unet is components["unet"]


def test_the_command_line_says_so_in_one_line(copy):
    rewrite(copy / "audio_encoder", DAMAGES["missing tensors"][0])
    result = CliRunner().invoke(app, ["info", str(copy)])
    assert result.exit_code == 2
    assert "audio_encoder: the weights are not those of the config.json" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_download_with_missing_weights_or_a_pickled_shard(copy, tmp_path):
    shutil.copytree(copy, tmp_path / "hub/someone/half")
    rewrite(tmp_path / "hub/someone/half/audio_encoder", half)
    shards = shutil.copytree(copy, tmp_path / "hub/someone/pickled") / "unet"
    (path,) = shards.glob("*.safetensors")
    name = path.name.replace(".safetensors", "-00001-of-00001.safetensors")
    names = "".join(f'"{key}": "weights.bin", ' for key in load_file(path)).removesuffix(", ")
    path.rename(shards / name)
    torch.save({}, shards / "weights.bin")
    (shards / f"{path.name}.index.json").write_text(f'{{"metadata": {{}}, "weight_map": {{{names}}}}}')
    script = """
from avgas_pipeline import AVGASPipeline
for name in ("half", "pickled"):
    try:
        AVGASPipeline.from_pretrained(f"someone/{name}")
        print("loaded")
    except ValueError as error:
        print(error)
"""
    with run_hub(tmp_path / "hub") as url:
        lines = run_python(script, tmp_path, endpoint=url).splitlines()
    assert "missing tensors" in lines[-2]
    assert "weights.bin" in lines[-1] and "never loaded" in lines[-1]


def test_parts_with_missing_weights_are_not_assembled(copy, tmp_path):
    encoder, extractor = tiny_ast()
    for part in (encoder, extractor):
        part.save_pretrained(tmp_path / "ast")
    rewrite(tmp_path / "ast", half)
    with pytest.raises(ValueError, match=r"ast: .*missing tensors"):
        AVGASPipeline.from_stable_diffusion(AVGASPipeline.from_pretrained(copy), str(tmp_path / "ast"))
