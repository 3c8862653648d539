"""What first users stumbled over: names and numbers, folders, options, outputs that show and save themselves."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.cli import app
from avgas_pipeline.cli.recordings import recording_arguments
from avgas_pipeline.pipeline_output import SoundSource
from avgas_pipeline.results.outputs import ACTIVITY, LONGEST_ACTIVITY, save_results
from avgas_pipeline.results.overview import draw_overview


EXAMPLES = Path(__file__).parents[1] / "examples"
MIXTURE = EXAMPLES / "mixture-dog-bird.flac"
QUICK = ("--steps", "1", "--guidance", "1")


@pytest.fixture(scope="module")
def pipe():
    pipe = AVGASPipeline.from_pretrained("avgas-mini")
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def drawn(pipe):
    options = {"num_inference_steps": 1, "guidance_scale": 1.0}
    return pipe(str(MIXTURE), separate=True, generator=torch.manual_seed(0), **options)


def avgas(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


# -- the number beside a label --------------------------------------------------------------------------------------


def test_certainty_is_of_the_label():
    assert SoundSource("dog barking", score=0.9, label_score=0.5).certainty == pytest.approx(0.45)
    assert SoundSource("dog barking", score=0.9, label_score=0.5).is_doubtful
    unknown = SoundSource(None, score=0.9, label_score=0.1, label_probs=torch.ones(2) / 2)
    assert unknown.certainty == 0.9 and not unknown.is_doubtful


def test_the_command_line_shows_it(tmp_path, drawn):
    result = avgas("generate", MIXTURE, *QUICK, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    index = json.loads((tmp_path / "out/sources.json").read_text())
    for source, entry in zip(drawn.sources[0], index["sources"], strict=True):
        assert entry["certainty"] == pytest.approx(source.certainty, abs=1e-4)
        assert f"{source.name} {source.certainty:.2f}" in result.stdout
    assert list(index)[:4] == ["version", "audio", "model", "lora"] and index["weights"] == {}
    assert "avgas: loading avgas-mini" in result.stderr


def test_doubtful_names_look_doubtful(pipe, drawn):
    source = drawn.sources[0][0]
    doubtful = replace(source, label_score=0.3)
    plain, paler = (
        draw_overview(source.soundscape, source.sampling_rate, drawn.images, [each], id2label=pipe.separator.id2label)
        for each in (source, doubtful)
    )
    assert np.asarray(plain).mean() < np.asarray(paler).mean()


# -- the command line -----------------------------------------------------------------------------------------------


def test_a_folder_and_the_default_for_out(tmp_path, monkeypatch):
    folder = tmp_path / "sounds"
    folder.mkdir()
    shutil.copy(MIXTURE, folder / "a.flac")
    shutil.copy(EXAMPLES / "Farm1.wav", folder / "b.wav")
    (folder / "notes.txt").write_text("none of them")
    # What macOS leaves on other file systems.
    (folder / "._a.flac").write_bytes(b"Mac OS X")
    monkeypatch.chdir(tmp_path)
    result = avgas("generate", "sounds", *QUICK)
    assert result.exit_code == 0, result.output
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a", "b"}
    result = avgas("generate", "sounds", *QUICK)
    assert "out/a: replaces what was drawn there before" in result.stderr
    (tmp_path / "empty").mkdir()
    result = avgas("generate", "empty")
    assert result.exit_code == 2 and "has no sound or video files" in result.stderr


def test_kinds_of_files_in_a_folder(tmp_path):
    names = ["a.aiff", "b.WV", "c.m4v", "d.mpg", "e.wav"]
    for name in (*names, "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [recording.path.name for recording in recording_arguments([str(tmp_path)])] == names


def test_separate_takes_no_word(tmp_path):
    result = avgas("generate", "--separate", MIXTURE, *QUICK, "--out", tmp_path)
    assert result.exit_code == 0 and list(tmp_path.glob("source-1-*.png"))


def test_weights_as_files_spell_labels(tmp_path):
    result = avgas("generate", MIXTURE, *QUICK, "-o", tmp_path, "--weight", "dog-barking=0.5")
    assert result.exit_code == 0 and "is not present" not in result.stderr
    index = json.loads((tmp_path / "sources.json").read_text())
    assert {entry["label"]: entry["weight"] for entry in index["sources"]}["dog barking"] == 0.5
    result = avgas("generate", MIXTURE, *QUICK, "-o", tmp_path, "--weight", "dog-braking=0.5")
    assert result.exit_code == 2 and "--weight dog-braking" in result.stderr and "'dog barking'" in result.stderr
    result = avgas("generate", MIXTURE, *QUICK, "-o", tmp_path, "--weight", "raining=0.5")
    assert f"{MIXTURE}: raining is not present" in result.stderr and "what is: " in result.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--num-sources", "99"), "--num-sources has to be from 1"),
        (("--max-duration", "1"), "longer than --max-duration 1 s"),
        (("--weight", "dog barking=0", "--weight", "bird chirping, tweeting=0"), "mixture-dog-bird.flac: "),
        (("--guidance", "nan"), "--guidance has to be"),
    ],
)
def test_errors_speak_of_options(tmp_path, options, words):
    result = avgas("generate", MIXTURE, *options, "-o", tmp_path / "out")
    assert result.exit_code == 2 and words in result.stderr
    assert not re.search(r"`|Soundscape 0|num_sources|source_weights|max_duration_s", result.stderr.splitlines()[-1])


def test_labels(pipe):
    result = avgas("labels")
    assert result.stdout.splitlines() == sorted(
        label for number, label in pipe.separator.id2label.items() if number != pipe.separator.unknown_index
    )


@pytest.mark.parametrize("model", ["avgas-mni", "./nowhere"])
def test_a_mistyped_model_is_one_line(model, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    result = avgas("generate", MIXTURE, "--model", model, "-o", tmp_path / "out")
    assert result.exit_code == 2 and "Traceback" not in result.output
    assert model in result.stderr.splitlines()[-1] and "avgas-mini comes with the package" in result.stderr
    with pytest.raises(FileNotFoundError, match=f"{model}: .* avgas-mini comes with the package"):
        AVGASPipeline.from_pretrained(model)


# -- outputs --------------------------------------------------------------------------------------------------------


def test_representations_are_short(pipe, drawn):
    assert len(repr(drawn)) < 600 and "dog barking" in repr(drawn) and "1 of 256x256" in repr(drawn)
    encoded = pipe.encode_audio(str(MIXTURE))
    assert len(repr(encoded)) < 900 and "audio_embeds=(1, 2," in repr(encoded)
    assert "s at 16000 Hz" in repr(drawn.sources[0][0])


def test_a_notebook_shows_pictures_and_players(drawn):
    html = drawn._repr_html_()
    assert html.count("<img") == 3 and html.count("<audio") == 2 and 'alt="Drawing of dog barking"' in html
    assert drawn.sources[0][0]._repr_html_().count("<img") == 1


def test_an_output_saves_what_the_command_line_writes(tmp_path, pipe, drawn):
    files = drawn.save(tmp_path / "saved")
    files += drawn.save(tmp_path / "own", recording=MIXTURE)
    for name, options in (("saved", ["--model-rate"]), ("own", [])):
        out = tmp_path / f"{name}-out"
        assert avgas("generate", MIXTURE, *QUICK, "--separate", "-o", out, *options).exit_code == 0
        written = sorted(path.name for path in files if path.parent.name == name)
        assert written == sorted(path.name for path in out.iterdir())
    assert drawn.overview().size[0] > 500
    both = pipe([str(MIXTURE), str(EXAMPLES / "Farm1.wav")], num_inference_steps=1, guidance_scale=1.0)
    both.save(tmp_path / "both")
    assert {path.name for path in (tmp_path / "both").iterdir()} == {"0", "1"}


def test_what_can_not_be_saved(tmp_path, pipe):
    encoded = pipe.encode_audio(str(MIXTURE), return_audio=False)
    out = pipe(**encoded, num_inference_steps=1, guidance_scale=1.0)
    with pytest.raises(ValueError, match="recording is not known"):
        out.save(tmp_path / "out")
    arrays = pipe(**encoded, num_inference_steps=1, guidance_scale=1.0, output_type="np")
    with pytest.raises(ValueError, match="output_type='pil'"):
        arrays.overview()
    assert not (tmp_path / "out").exists()


def test_activities_of_long_recordings_are_beside_the_index(tmp_path, drawn):
    source = drawn.sources[0][0]
    long = replace(source, activity=np.resize(source.activity, LONGEST_ACTIVITY + 1))
    output = replace(drawn, sources=[[long]])
    save_results(output, source.soundscape, source.sampling_rate, tmp_path)
    index = json.loads((tmp_path / "sources.json").read_text())
    assert index["sources"][0]["activity"] == "activity.npz:source-1"
    with np.load(tmp_path / ACTIVITY) as saved:
        assert np.allclose(saved["source-1"], long.activity, atol=1e-3)
    assert len((tmp_path / "sources.json").read_text().splitlines()) < 60
    save_results(replace(drawn, sources=[[source]]), source.soundscape, source.sampling_rate, tmp_path)
    assert not (tmp_path / ACTIVITY).exists()
    (line,) = [line for line in (tmp_path / "sources.json").read_text().splitlines() if '"activity":' in line]
    assert len(json.loads(line.strip().rstrip(",").partition(": ")[2])) == len(source.activity)


# -- the overview ---------------------------------------------------------------------------------------------------


def test_the_overview_has_all_mixed_pictures_and_no_empty_band(pipe):
    out = pipe(str(MIXTURE), num_images_per_prompt=4, num_inference_steps=1, guidance_scale=1.0)
    one = replace(out, images=out.images[:1])
    four, single = (np.asarray(each.overview()) for each in (out, one))
    assert four.shape[1] > single.shape[1]
    for figure in (four, single):
        used = np.flatnonzero((figure < 255).any(axis=(1, 2)))
        assert len(figure) - used[-1] <= 20


def test_one_source_is_shown_once(pipe):
    out = pipe(str(EXAMPLES / "Farm1.wav"), separate=True, num_inference_steps=1, guidance_scale=1.0)
    assert len(out.sources[0]) == 1
    alone = out.overview()
    without = replace(out, sources=[[replace(out.sources[0][0], images=[])]]).overview()
    assert alone.size == without.size
