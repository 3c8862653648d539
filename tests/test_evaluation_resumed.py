"""What an evaluation goes on with, and what it notices: other weights, settings and data in the same folder."""

import json
import shutil

import numpy as np
import PIL.Image
import pytest
import torch
from evaluation_data import DATA, drawn, fails, report_of, run, write_evaluation_inputs
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.evaluation import DrawingSettings, PipelineSystem, load_evaluation_set


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Read-only by convention."""
    return write_evaluation_inputs(tmp_path_factory.mktemp("evaluation"))


@pytest.fixture(scope="module")
def dataset(inputs):
    return load_evaluation_set(DATA, inputs, inputs / "manifest.jsonl")


@pytest.mark.slow
def test_other_k_needs_no_other_drawings(inputs, tmp_path):
    fails(run(inputs, tmp_path, top_k=60), "R@60* is not defined for a judge of 59 classes")
    assert not drawn(tmp_path)
    assert run(inputs, tmp_path).exit_code == 0
    before = drawn(tmp_path)
    assert report_of(tmp_path)["settings"]["top_k"] == 2
    assert run(inputs, tmp_path, top_k=3).exit_code == 0
    assert drawn(tmp_path) == before
    assert report_of(tmp_path)["settings"]["top_k"] == 3


@pytest.mark.slow
def test_model_is_evaluated_with_its_lora(inputs, dataset, tmp_path):
    pipe = AVGASPipeline.from_pretrained(inputs / "model")
    pipe.unet.add_adapter(LoraConfig(r=4, lora_alpha=64, init_lora_weights=False, target_modules=["to_v"]))
    pipe.save_lora_weights(tmp_path / "lora", unet_lora_layers=get_peft_model_state_dict(pipe.unet))
    two = tmp_path / "two.jsonl"
    two.write_text("".join((inputs / "manifest.jsonl").read_text().splitlines(keepends=True)[:2]))
    baselines = ("--baseline", "oracle", "--baseline", "single-embedding")
    result = run(inputs, tmp_path / "out", *baselines, lora=tmp_path / "lora", manifest=two)
    assert result.exit_code == 0, result.output
    systems = report_of(tmp_path / "out")["systems"]
    loras = {"model": str(tmp_path / "lora"), "oracle": str(tmp_path / "lora"), "single-embedding": None}
    assert {name: system["lora"] for name, system in systems.items()} == loras
    settings = DrawingSettings(num_inference_steps=2)
    expected = PipelineSystem("x", str(inputs / "model"), settings, lora=str(tmp_path / "lora"))
    plain = PipelineSystem("x", str(inputs / "model"), settings)
    numbers = range(2)
    images = [system.draw([dataset[number] for number in numbers], numbers)[0].mixed for system in (expected, plain)]
    with_lora = PIL.Image.open(next((tmp_path / "out/systems/model").rglob("00000.png")))
    assert np.array_equal(with_lora, images[0]) and not np.array_equal(with_lora, images[1])
    without = run(inputs, tmp_path / "out", *baselines, manifest=two)
    fails(without, "holds another evaluation", "weights_sha256")
    fails(run(inputs, tmp_path / "none", model=None, lora=tmp_path / "lora"), "LoRA needs the model")


def test_other_alpha_of_a_lora_is_noticed(inputs, tmp_path):
    for alpha in (4, 64):
        torch.manual_seed(0)
        pipe = AVGASPipeline.from_pretrained(inputs / "model")
        pipe.unet.add_adapter(LoraConfig(r=4, lora_alpha=alpha, init_lora_weights=False, target_modules=["to_v"]))
        pipe.save_lora_weights(
            tmp_path / f"alpha-{alpha}",
            unet_lora_layers=get_peft_model_state_dict(pipe.unet),
            unet_lora_adapter_metadata=pipe.unet.peft_config["default"].to_dict(),
        )
    assert run(inputs, tmp_path / "out", "--no-draw", lora=tmp_path / "alpha-4").exit_code == 0
    moved = (tmp_path / "alpha-4").rename(tmp_path / "moved")
    assert run(inputs, tmp_path / "out", "--no-draw", lora=moved).exit_code == 0
    fails(
        run(inputs, tmp_path / "out", "--no-draw", lora=tmp_path / "alpha-64"),
        "holds another evaluation (other configs_sha256)",
    )


def test_a_drawn_manifest_is_not_overwritten(inputs, tmp_path):
    options = {"manifest": None, "num_mixtures": 2, "judge": None}
    assert run(inputs, tmp_path, "--no-draw", **options).exit_code == 0
    before = (tmp_path / "manifest.jsonl").read_bytes()
    fails(run(inputs, tmp_path, "--no-draw", **options, seed=1), "manifest.jsonl: holds other mixtures")
    assert (tmp_path / "manifest.jsonl").read_bytes() == before


def test_other_configuration_is_noticed(inputs, tmp_path):
    model = shutil.copytree(inputs / "model", tmp_path / "model")
    assert run(inputs, tmp_path / "out", "--no-draw", model=model).exit_code == 0
    path = model / "scheduler/scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "prediction_type": "v_prediction"}))
    fails(run(inputs, tmp_path / "out", "--no-draw", model=model), "holds another evaluation (other configs_sha256)")


def test_other_speed_variation_is_noticed(inputs, tmp_path):
    model = shutil.copytree(inputs / "model", tmp_path / "model")
    assert run(inputs, tmp_path / "out", "--no-draw", model=model).exit_code == 0
    path = model / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "speed_variation": 0.1}))
    fails(
        run(inputs, tmp_path / "out", "--no-draw", model=model), "holds another evaluation (other", "speed_variation)"
    )


def test_report_and_checkpoint_may_be_moved(inputs, tmp_path):
    assert run(inputs, tmp_path / "before").exit_code == 0
    report = (tmp_path / "before").rename(tmp_path / "after")
    drawn_before = drawn(report)
    model = shutil.copytree(inputs / "model", tmp_path / "elsewhere" / "model")
    assert run(inputs, report, model=model, manifest=report / "manifest.jsonl").exit_code == 0
    assert drawn(report) == drawn_before


def test_other_weights_in_the_same_place_are_noticed(inputs, tmp_path):
    model = shutil.copytree(inputs / "model", tmp_path / "model")
    assert run(inputs, tmp_path / "out", "--no-draw", model=model).exit_code == 0
    pipe = AVGASPipeline.from_pretrained(model)
    with torch.no_grad():
        pipe.unet.conv_out.bias += 1
    pipe.save_pretrained(model)
    fails(run(inputs, tmp_path / "out", "--no-draw", model=model), "holds another evaluation (other weights_sha256)")
