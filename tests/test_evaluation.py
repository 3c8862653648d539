"""`avgas evaluate`: one report over several systems; resumed, shared, and refused."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import forked
import numpy as np
import PIL.Image
import pytest
import soundfile
import torch
from diffusers.training_utils import _collate_lora_metadata
from evaluation_data import DATA, write_evaluation_inputs
from launching import two_processes
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from tiny import LABELS, save_tiny_judge, tiny_audio
from typer.testing import CliRunner

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.cli import app
from avgas_pipeline.data.mixtures import MixtureSampler, read_manifest
from avgas_pipeline.evaluation import (
    DrawingSettings,
    ImageFolderSystem,
    MixtureSet,
    PipelineSystem,
    evaluate,
    load_evaluation_set,
)
from avgas_pipeline.metrics import class_representation_score, load_judge, recall_at_k


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Read-only by convention."""
    return write_evaluation_inputs(tmp_path_factory.mktemp("evaluation"))


@pytest.fixture(scope="module")
def dataset(inputs):
    return load_evaluation_set(DATA, inputs, inputs / "manifest.jsonl")


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory):
    """A report over all kinds of systems; read-only by convention."""
    out = tmp_path_factory.mktemp("whole")
    options = ["--baseline", "oracle", "--baseline", "single-embedding", "--ablate", "no-masks"]
    result = run(inputs, out, *options)
    assert result.exit_code == 0, result.output
    return out


def arguments(inputs, out, *options, **changed):
    values = {
        "model": inputs / "model",
        "data": DATA,
        "judge": inputs / "judge",
        "manifest": inputs / "manifest.jsonl",
        "steps": 2,
        "batch_size": 2,
        "out": out,
        **changed,
    }
    named = [f"--{name.replace('_', '-')}={value}" for name, value in values.items() if value is not None]
    return ["evaluate", *named, *map(str, options)]


def run(inputs, out, *options, **changed):
    return CliRunner().invoke(app, arguments(inputs, out, *options, **changed))


def report_of(out):
    return json.loads((out / "report.json").read_text())


def fails(result, *words):
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("avgas: error:")]
    assert len(errors) == 1
    for word in words:
        assert str(word) in errors[0]


def drawn(out):
    """When each batch of each system appeared."""
    return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in out.glob("systems/*/*/records.json")}


# -- the report -----------------------------------------------------------------------------------------------------


def test_report_compares_all_systems_and_anchors(whole):
    report = report_of(whole)
    assert list(report["systems"]) == ["model", "oracle", "single-embedding", "no-masks"]
    assert all(system["weights_sha256"] for system in report["systems"].values())
    anchors = ["real scene", "collage", "single class", "random classes"]
    systems = list(report["systems"])
    assert list(report["results"]["mixed"]) == [*systems, *anchors]
    assert list(report["differences"]["mixed"]) == [*systems[1:], *anchors]
    for row in report["results"]["mixed"].values():
        crs = row["crs"]
        assert 0 <= crs["low"] <= crs["value"] <= crs["high"] <= 1 and crs["count"] == 6
    assert list(report["results"]["separated"]) == [*systems, "single classes", "real scene"]
    assert "si_sdri_db" in report["results"]["sound"]["model"]
    assert report["results"]["sound"]["no-masks"]["si_sdri_db"]["value"] is None
    assert len(report["gate"]) == 8
    assert {entry["wanted"] for entry in report["gate"]} == {"above", "alike"}
    assert report["judge"]["weights_sha256"] and report["data"]["sha256"]
    assert "count_accuracy" not in [
        k for k, v in report["results"]["sound"]["oracle"].items() if v["value"] is not None
    ]


def test_values_are_those_of_the_metrics_on_the_images_written(whole, inputs, dataset):
    judge = load_judge(inputs / "judge", dataset.labels)
    images = ImageFolderSystem("model", whole / "systems/model", len(dataset))
    judgement = judge([images.drawing(number).mixed for number in range(len(dataset))])
    target = torch.zeros(len(dataset), len(judge.labels))
    for number in range(len(dataset)):
        target[number, [judge.labels.index(label) for label in dataset.true_labels(number)]] = 1
    values = json.loads((whole / "values.json").read_text())["mixed"]["model"]
    assert values["crs"] == pytest.approx(class_representation_score(judgement.class_mass, target).tolist())
    assert values["recall_strict"] == pytest.approx(recall_at_k(judgement.scores, target, 2).tolist())
    result = report_of(whole)["results"]["mixed"]["model"]["crs"]
    assert result["value"] == pytest.approx(np.mean(values["crs"]))


def test_difference_is_paired_and_from_the_first_system(whole):
    values = json.loads((whole / "values.json").read_text())["mixed"]
    difference = np.array(values["model"]["crs"]) - np.array(values["oracle"]["crs"])
    entry = report_of(whole)["differences"]["mixed"]["oracle"]["crs"]
    assert entry["value"] == pytest.approx(difference.mean(), abs=1e-9)


def test_tables_and_samples_can_be_looked_at(whole):
    text = (whole / "report.md").read_text()
    for title in ("## What is heard", "## Mixed images", "## Separated images", "| model |", "R@2*", "validity gate"):
        assert title in text
    with PIL.Image.open(whole / "samples.png") as image:
        assert image.width > 800 and image.height > 800


def test_same_noise_for_every_system_and_batch(inputs, dataset):
    settings = DrawingSettings(num_inference_steps=2, seed=3)
    system = PipelineSystem("model", str(inputs / "model"), settings)
    soundscapes = [dataset[number] for number in range(2)]
    together = system.draw(soundscapes, [0, 1])
    alone = [system.draw([soundscapes[number]], [number])[0] for number in range(2)]
    for first, second in zip(together, alone, strict=True):
        difference = np.asarray(first.mixed, dtype=int) - np.asarray(second.mixed, dtype=int)
        assert np.abs(difference).max() <= 1
        assert first.labels == second.labels
        assert first.slot_scores == pytest.approx(second.slot_scores, abs=1e-5)
        assert first.si_sdri_db == pytest.approx(second.si_sdri_db, abs=1e-2)


def test_system_draws_what_the_pipeline_draws(inputs, dataset):
    settings = DrawingSettings(num_inference_steps=2, seed=3)
    drawing = PipelineSystem("model", str(inputs / "model"), settings).draw([dataset[1]], [1])[0]
    pipe = AVGASPipeline.from_pretrained(inputs / "model")
    output = pipe(
        dataset[1].waveform,
        sampling_rate=16000,
        separate=True,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(4),
    )
    assert drawing.labels == [source.label for source in output.sources[0]]
    assert np.array_equal(np.asarray(drawing.mixed), np.asarray(output.images[0]))
    for image, source in zip(drawing.separated, output.sources[0], strict=True):
        assert np.array_equal(np.asarray(image), np.asarray(source.images[0]))


def test_oracle_hears_the_clean_sources(inputs, dataset):
    settings = DrawingSettings(num_inference_steps=2)
    system = PipelineSystem("oracle", str(inputs / "model"), settings, oracle=True)
    soundscapes = [dataset[number] for number in range(2)]
    drawings = system.draw(soundscapes, [0, 1])
    pipe = AVGASPipeline.from_pretrained(inputs / "model")
    for drawing, soundscape in zip(drawings, soundscapes, strict=True):
        assert len(drawing.separated) == 2
        heard = [pipe.separate_audio(stem, 16000, num_sources=1)[0][0].label for stem in soundscape.stems]
        assert drawing.labels == heard


def test_nothing_heard_is_drawn_and_counted(inputs, tmp_path):
    result = run(inputs, tmp_path, presence_threshold=1.0)
    assert result.exit_code == 0, result.output
    report = report_of(tmp_path)
    assert report["nothing_heard"] == {"model": 6}
    for key in ("count_accuracy", "label_recall", "label_any", "label_recall_by_group"):
        assert report["results"]["sound"]["model"][key]["value"] == 0.0
    assert report["results"]["sound"]["model"]["si_sdri_db"]["value"] == 0.0
    assert "the likeliest was drawn: model 6" in (tmp_path / "report.md").read_text()


def test_only_hearing_needs_no_judge(inputs, tmp_path):
    result = run(inputs, tmp_path, "--no-draw", judge=None)
    assert result.exit_code == 0, result.output
    report = report_of(tmp_path)
    assert list(report["results"]) == ["sound"]
    assert not list(tmp_path.rglob("*.png"))


def test_folder_of_images_scores_like_the_system_that_drew_them(inputs, whole, tmp_path):
    flat = tmp_path / "mine"
    flat.mkdir()
    for path in (whole / "systems/model").rglob("*.png"):
        shutil.copy(path, flat)
    result = run(inputs, tmp_path / "out", images=f"mine={flat}", model=None)
    assert result.exit_code == 0, result.output
    theirs, ours = report_of(tmp_path / "out"), report_of(whole)
    assert theirs["results"]["mixed"]["mine"] == ours["results"]["mixed"]["model"]
    assert theirs["results"]["separated"]["mine"]["sep_recall"] == ours["results"]["separated"]["model"]["sep_recall"]
    assert "sound" not in theirs["results"]


def test_manifest_is_drawn_once_and_written(inputs, tmp_path):
    options = {"manifest": None, "num_mixtures": 2, "num_sources": 3, "model": inputs / "model"}
    assert run(inputs, tmp_path, "--no-draw", judge=None, **options).exit_code == 0
    plans = read_manifest(tmp_path / "manifest.jsonl")
    assert [len(plan.sources) for plan in plans] == [3, 3]
    assert report_of(tmp_path)["settings"]["top_k"] == 3


def test_long_recordings_are_heard_as_the_pipeline_hears_them(inputs, tmp_path):
    noisy = np.concatenate([tiny_audio(1.3, seed)[0] for seed in range(4)])
    soundfile.write(tmp_path / "long.wav", noisy, 16000)
    (tmp_path / "list.jsonl").write_text(json.dumps({"audio": "long.wav", "labels": ["raining"]}))
    recordings = load_evaluation_set(tmp_path / "list.jsonl", tmp_path)
    for name in ("model", "single-embedding"):
        drawing = PipelineSystem(name, str(inputs / name), DrawingSettings(2)).draw([recordings[0]], [0])[0]
        pipe = AVGASPipeline.from_pretrained(inputs / name)
        assert drawing.labels == [source.label for source in pipe.separate_audio(tmp_path / "long.wav")[0]]


def test_natural_recordings(inputs, tmp_path):
    soundfile.write(tmp_path / "pond.wav", tiny_audio(2.0)[0], 16000)
    rows = [{"id": "pond", "audio": "pond.wav", "labels": ["raining", "thunder"]}]
    (tmp_path / "recordings.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    save = run(inputs, tmp_path / "out", data=tmp_path / "recordings.jsonl", manifest=None)
    # The vocabulary is VGGSound's 309 labels, which this judge of 59 does not have.
    fails(save, "this judge does not know")
    heard = run(inputs, tmp_path / "out", "--no-draw", data=tmp_path / "recordings.jsonl", manifest=None, judge=None)
    assert heard.exit_code == 0, heard.output
    assert report_of(tmp_path / "out")["results"]["sound"]["model"]["label_recall"]["count"] == 1


# -- interrupted and shared -----------------------------------------------------------------------------------------


def environment():
    root = Path(__file__).parent
    return {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}


def test_killed_and_run_again(inputs, whole, tmp_path):
    options = ["--baseline", "oracle", "--baseline", "single-embedding", "--ablate", "no-masks"]
    command = [sys.executable, "-m", "avgas_pipeline", *arguments(inputs, tmp_path, *options)]
    forked.kill_once(command, lambda: len(drawn(tmp_path)) >= 4)
    before = drawn(tmp_path)
    assert 4 <= len(before) < 12

    assert run(inputs, tmp_path, *options).exit_code == 0
    after = drawn(tmp_path)
    assert len(after) == 12
    assert {path: after[path] for path in before} == before
    for name in ("report.json", "report.md", "values.json", "samples.png"):
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()
    assert not list(tmp_path.rglob("*.partial"))

    assert run(inputs, tmp_path, *options).exit_code == 0
    assert drawn(tmp_path) == after


def test_two_processes_give_the_numbers_of_one(inputs, whole, tmp_path):
    options = ["--baseline", "oracle", "--baseline", "single-embedding", "--ablate", "no-masks"]
    command = [
        *(sys.executable, *two_processes(), "-m", "avgas_pipeline"),
        *arguments(inputs, tmp_path, "--device", "cpu", *options),
    ]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "2 processes share the drawing" in result.stderr
    shared, alone = report_of(tmp_path), report_of(whole)
    for task, rows in alone["results"].items():
        for name, row in rows.items():
            for key, interval in row.items():
                for part, value in interval.items():
                    assert shared["results"][task][name][key][part] == pytest.approx(value, abs=1e-6)


def test_another_evaluation_in_the_folder_is_left_alone(inputs, whole):
    before = drawn(whole)
    fails(run(inputs, whole, seed=1), "holds another evaluation", "settings")
    assert drawn(whole) == before


def test_other_mixtures_are_noticed(inputs, whole, tmp_path):
    lines = (inputs / "manifest.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "other.jsonl").write_text("".join(lines[::-1]))
    before = (whole / "manifest.jsonl").read_bytes()
    fails(run(inputs, whole, manifest=tmp_path / "other.jsonl"), "holds another evaluation (other data)")
    assert (whole / "manifest.jsonl").read_bytes() == before


def test_other_k_needs_no_other_drawings(inputs, tmp_path):
    fails(run(inputs, tmp_path, top_k=60), "R@60* is not defined for a judge of 59 classes")
    assert not drawn(tmp_path)
    assert run(inputs, tmp_path).exit_code == 0
    before = drawn(tmp_path)
    assert report_of(tmp_path)["settings"]["top_k"] == 2
    assert run(inputs, tmp_path, top_k=3).exit_code == 0
    assert drawn(tmp_path) == before
    assert report_of(tmp_path)["settings"]["top_k"] == 3


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
            **_collate_lora_metadata({"unet": pipe.unet}),
        )
    hear = ("--no-draw",)
    assert run(inputs, tmp_path / "out", *hear, lora=tmp_path / "alpha-4").exit_code == 0
    moved = (tmp_path / "alpha-4").rename(tmp_path / "moved")
    assert run(inputs, tmp_path / "out", *hear, lora=moved).exit_code == 0
    fails(
        run(inputs, tmp_path / "out", *hear, lora=tmp_path / "alpha-64"),
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
    assert run(inputs, tmp_path / "out", model=model).exit_code == 0
    path = model / "scheduler/scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "prediction_type": "v_prediction"}))
    fails(run(inputs, tmp_path / "out", model=model), "holds another evaluation (other configs_sha256)")


def test_other_ways_to_hear_are_noticed(inputs, tmp_path):
    model = shutil.copytree(inputs / "model", tmp_path / "model")
    assert run(inputs, tmp_path / "out", model=model).exit_code == 0
    path = model / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "speed_variation": 0.1}))
    fails(run(inputs, tmp_path / "out", model=model), "holds another evaluation (other speed_variation)")


def test_report_and_checkpoint_may_be_moved(inputs, tmp_path):
    assert run(inputs, tmp_path / "before").exit_code == 0
    report = (tmp_path / "before").rename(tmp_path / "after")
    drawn_before = drawn(report)
    model = shutil.copytree(inputs / "model", tmp_path / "elsewhere" / "model")
    assert run(inputs, report, model=model, manifest=report / "manifest.jsonl").exit_code == 0
    assert drawn(report) == drawn_before


def test_one_mixture_has_no_anchor_of_other_classes(inputs, tmp_path):
    (tmp_path / "one.jsonl").write_text((inputs / "manifest.jsonl").read_text().splitlines()[0])
    result = run(inputs, tmp_path / "out", manifest=tmp_path / "one.jsonl")
    assert result.exit_code == 0, result.output
    rows = report_of(tmp_path / "out")["results"]["mixed"]
    assert "collage" in rows and "random classes" not in rows


def test_other_weights_in_the_same_place_are_noticed(inputs, tmp_path):
    model = shutil.copytree(inputs / "model", tmp_path / "model")
    assert run(inputs, tmp_path / "out", model=model).exit_code == 0
    pipe = AVGASPipeline.from_pretrained(model)
    with torch.no_grad():
        pipe.unet.conv_out.bias += 1
    pipe.save_pretrained(model)
    fails(run(inputs, tmp_path / "out", model=model), "holds another evaluation (other weights_sha256)")


# -- refused --------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_drawing(monkeypatch):
    def draw(*_):
        raise AssertionError("drawn before the inputs were checked")

    monkeypatch.setattr(PipelineSystem, "draw", draw)


@pytest.mark.usefixtures("no_drawing")
class TestWrongInput:
    def edited_manifest(self, inputs, tmp_path, **change):
        lines = (inputs / "manifest.jsonl").read_text().splitlines()
        row = json.loads(lines[-1])
        row["sources"][0].update(change)
        path = tmp_path / "edited.jsonl"
        path.write_text("\n".join([*lines[:-1], json.dumps(row)]))
        return path

    @pytest.mark.parametrize(
        ("change", "word"),
        [
            ({"label": "volcano explosion"}, "not 'volcano explosion'"),
            ({"clip": "no/such"}, "no clip 'no/such'"),
            ({"picture": "no/such"}, "no picture 'no/such'"),
            ({"picture": "raining/img-openclipart-none"}, "no picture"),
            ({"colour": "blue"}, "line 6: not a mixture"),
            ({"gain_db": "loud"}, "line 6: not a mixture (gain_db is 'loud')"),
            ({"placement": "sideways"}, "line 6: not a mixture (placement is 'sideways')"),
        ],
    )
    def test_manifest_that_does_not_fit(self, inputs, tmp_path, change, word):
        manifest = self.edited_manifest(inputs, tmp_path, **change)
        fails(run(inputs, tmp_path / "out", manifest=manifest), manifest, word)

    def test_missing_clip_file(self, tmp_path):
        clips = [{"id": "a", "label": "raining", "audio": str(tmp_path / "gone.wav")}]
        soundfile.write(tmp_path / "gone.wav", tiny_audio()[0], 16000)
        sampler = MixtureSampler(clips, num_sources=1)
        plans = [sampler.plan(0)]
        (tmp_path / "gone.wav").unlink()
        with pytest.raises(FileNotFoundError, match=r"gone\.wav: no such file"):
            MixtureSet(sampler, plans, "clips", "test", "manifest")

    @pytest.mark.parametrize(
        ("row", "word"),
        [
            ({"audio": "gone.wav", "labels": ["raining"]}, "gone.wav: no such file"),
            ({"audio": "here.wav", "labels": []}, "line 1: `labels`"),
            ({"audio": "here.wav", "labels": ["raining", "raining"]}, "different labels"),
            ({"labels": ["raining"]}, "line 1: not a recording"),
            ({"audio": None, "labels": ["raining"]}, "line 1: `audio` has to be a path"),
            ({"audio": "", "labels": ["raining"]}, "line 1: `audio` has to be a path"),
            ({"audio": "here.wav", "labels": [["raining"]]}, "line 1: `labels` has to be a list of labels"),
            ({"audio": "here.wav", "labels": ["raining", "dog barkin"]}, "'dog barkin' is none of VGGSound's"),
        ],
    )
    def test_bad_recordings(self, inputs, tmp_path, row, word):
        soundfile.write(tmp_path / "here.wav", tiny_audio()[0], 16000)
        (tmp_path / "list.jsonl").write_text(json.dumps(row))
        fails(run(inputs, tmp_path / "out", data=tmp_path / "list.jsonl", manifest=None), word)

    def test_data(self, inputs, tmp_path):
        (tmp_path / "empty").mkdir()
        fails(run(inputs, tmp_path / "out", data=tmp_path / "empty"), tmp_path / "empty", "empty")
        fails(run(inputs, tmp_path / "out", split="validation"), "validation")
        fails(run(inputs, tmp_path / "out", manifest=tmp_path / "no.jsonl"), "no.jsonl")
        (tmp_path / "blank.jsonl").write_text("")
        fails(run(inputs, tmp_path / "out", manifest=tmp_path / "blank.jsonl"), "holds no mixture")

    def test_judge_with_other_labels(self, inputs, tmp_path):
        save_tiny_judge(tmp_path / "judge", LABELS)
        fails(run(inputs, tmp_path / "out", judge=tmp_path / "judge"), tmp_path / "judge", "this judge does not know")
        fails(run(inputs, tmp_path / "out", judge=None), "--judge")

    def test_images(self, inputs, whole, tmp_path):
        (tmp_path / "empty").mkdir()
        fails(run(inputs, tmp_path / "out", images=tmp_path / "gone"), "gone: no such folder")
        fails(run(inputs, tmp_path / "out", images=tmp_path / "empty"), "holds no images named 00000.png")
        partly = shutil.copytree(whole / "systems/model", tmp_path / "partly")
        (partly / "00002/00003.png").unlink()
        fails(run(inputs, tmp_path / "out", images=f"mine={partly}"), "00003.png: no such file")
        fails(run(inputs, tmp_path / "out", images=f"my pictures={partly}"), "can't name a system")
        both = whole / "systems"
        fails(run(inputs, tmp_path / "out", images=f"mine={both}"), "two images called 00000-1.png: of more than one")
        fails(run(inputs, tmp_path / "out", images=f"collage={whole / 'systems/model'}"), "is the name of an anchor")

    def test_systems(self, inputs, tmp_path):
        out = tmp_path / "out"
        fails(run(inputs, out, model=None), "nothing to evaluate")
        fails(run(inputs, out, baseline="magic"), "'magic' is none of single-embedding, paper, oracle")
        fails(run(inputs, out, baseline="paper"), "paper: no such folder; give paper=CHECKPOINT")
        fails(run(inputs, out, baseline=f"paper={inputs / 'model'}"), "num_slots = 4, not 2")
        fails(run(inputs, out, ablate=f"no-masks={inputs / 'model'}"), "mask_channels = 4, not 0")
        fails(run(inputs, out, ablate=f"no-a2a={inputs / 'model'}"), "is not 'no-a2a': it has the very weights of")
        fails(run(inputs, out, device="bogus"), "--device bogus")
        fails(run(inputs, out, "--baseline", "oracle", "--baseline", "oracle"), "Two systems are called 'oracle'")
        fails(run(inputs, out, model=inputs), inputs)

    def test_k_below_the_number_of_sources(self, inputs, tmp_path):
        fails(run(inputs, tmp_path / "out", top_k=1), "R@1* is not defined for soundscapes with 2 sources")

    def test_damaged_image(self, inputs, whole, tmp_path):
        partly = shutil.copytree(whole / "systems/model", tmp_path / "partly")
        (partly / "00002/00003.png").write_bytes(b"not a picture")
        fails(run(inputs, tmp_path / "out", images=f"mine={partly}"), "00003.png: not an image")


def test_judge_that_lacks_a_true_label_is_refused_in_python(inputs, dataset, tmp_path):
    judge = load_judge(inputs / "judge", dataset.labels)
    label = dataset.true_labels(0)[0]
    judge.labels = [f"not {known}" if known == label else known for known in judge.labels]
    system = PipelineSystem("model", str(inputs / "model"), DrawingSettings(2))
    with pytest.raises(ValueError, match=f"The judge does not know '{label}'"):
        evaluate([system], dataset, judge, tmp_path, DrawingSettings(2))
