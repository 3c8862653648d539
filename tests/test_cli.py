import json
import os
import re
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
from safetensors.torch import save_file
from sounds import tone, write_audio
from tiny import tiny_audio
from typer.testing import CliRunner

from avgas_pipeline import AVGASPipeline, __version__
from avgas_pipeline.cli import app
from avgas_pipeline.pipeline_output import SoundSource
from avgas_pipeline.results.overview import draw_overview


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "sea and dog.wav"
    soundfile.write(path, tiny_audio(2.0)[0], 16000)
    return path


def generate(checkpoint, *arguments):
    return CliRunner().invoke(app, ["generate", "--model", str(checkpoint), "--steps", "2", *map(str, arguments)])


def files(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fails_with_one_line(result, *words):
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("avgas: error:")]
    assert len(lines) == 1
    for word in words:
        assert str(word) in lines[0]


# -- generate -------------------------------------------------------------------------------------------------------


def test_generate_writes_pictures_sounds_report_and_overview(checkpoint, recording, tmp_path):
    result = generate(checkpoint, recording, "--out", tmp_path / "out", "--separate")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out/sources.json").read_text())
    assert report["duration_s"] == 2.0 and report["seed"] == 0 and report["mixed"] == ["mixed.png"]
    expected = {"mixed.png", "overview.png", "sources.json", "rest.wav"}
    for number, source in enumerate(report["sources"], start=1):
        stem = f"source-{number}-{source['label'].replace(' ', '-')}"
        assert source["images"] == [f"{stem}.png"] and source["audio"] == f"{stem}.wav"
        assert 0.2 <= source["score"] <= 1
        assert len(source["activity"]) == pytest.approx(2.0 / source["activity_hop_s"], abs=2)
        expected |= {f"{stem}.png", f"{stem}.wav"}
        audio, rate = soundfile.read(tmp_path / "out" / f"{stem}.wav")
        assert rate == 16000 and audio.shape == (32000,) and np.abs(audio).max() > 0
    assert len(report["sources"]) >= 1
    assert set(files(tmp_path / "out")) == expected
    assert PIL.Image.open(tmp_path / "out/mixed.png").size == (64, 64)
    assert str(tmp_path / "out/overview.png") in result.stdout


def test_same_seed_same_bytes_in_another_process(checkpoint, recording, tmp_path):
    for name, seed in (("a", 3), ("b", 4)):
        result = generate(checkpoint, recording, "--separate", "--seed", seed, "--out", tmp_path / name)
        assert result.exit_code == 0, result.output
    command = [sys.executable, "-m", "avgas_pipeline", "generate", recording, "--out", tmp_path / "c"]
    result = forked.run([*command, "--model", checkpoint, "--steps", "2", "--separate", "--seed", "3"])
    assert result.returncode == 0, result.stderr
    first, other, again = (files(tmp_path / name) for name in "abc")
    assert first == again
    assert first["mixed.png"] != other["mixed.png"]


def test_options_reach_the_pipeline(checkpoint, recording, tmp_path):
    def mixed(name, *arguments):
        result = generate(checkpoint, recording, "--out", tmp_path / name, *arguments)
        assert result.exit_code == 0, result.output
        return files(tmp_path / name)["mixed.png"]

    plain = mixed("plain")
    label = json.loads((tmp_path / "plain/sources.json").read_text())["sources"][0]["label"]
    assert mixed("weight-one", "--weight", f"{label}=1") == plain
    assert mixed("weight", "--weight", f"{label}=0.1") != plain
    assert mixed("guidance", "--guidance", "1") != plain
    soundfile.write(tmp_path / "noise.wav", tiny_audio(1.0, 7)[0], 16000)
    assert mixed("negative", "--negative-audio", tmp_path / "noise.wav") != plain
    mixed("count", "--num-sources", "3")
    assert len(json.loads((tmp_path / "count/sources.json").read_text())["sources"]) == 3


def test_several_images(checkpoint, recording, tmp_path):
    assert generate(checkpoint, recording, "--out", tmp_path / "out", "--num-images", 2, "--separate").exit_code == 0
    names = set(files(tmp_path / "out"))
    assert {"mixed-1.png", "mixed-2.png"} <= names
    assert any(re.fullmatch(r"source-1-.*-2\.png", name) for name in names)
    # The first is what one image with the same seed is.
    assert generate(checkpoint, recording, "--out", tmp_path / "one").exit_code == 0
    one, first = (PIL.Image.open(tmp_path / name) for name in ("one/mixed.png", "out/mixed-1.png"))
    assert np.abs(np.asarray(one, dtype=int) - np.asarray(first)).max() <= 1


def test_a_batch_goes_on_after_a_bad_file_and_lists_it(checkpoint, recording, tmp_path):
    (tmp_path / "broken.wav").write_text("not a sound")
    (tmp_path / "sub").mkdir()
    twin = shutil.copy(recording, tmp_path / "sub" / recording.name)
    out = tmp_path / "out"
    result = generate(checkpoint, recording, tmp_path / "broken.wav", tmp_path / "gone.wav", twin, "--out", out)
    assert result.exit_code == 2
    assert "2 of 4 files failed" in result.stderr
    closing = result.stderr.split("files failed:")[1]
    assert "broken.wav" in closing and "gone.wav" in closing and "Traceback" not in result.output
    assert sorted(path.name for path in out.iterdir()) == ["sea and dog", "sea and dog-2"]
    assert files(out / "sea and dog").keys() == files(out / "sea and dog-2").keys()


def test_a_truncated_file_is_drawn_with_a_warning(checkpoint, tmp_path):
    path = write_audio(tmp_path / "cut.mp3", tone(4.0), 44100, "libmp3lame")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    result = generate(checkpoint, path, "--out", tmp_path / "out", "--num-sources", "1")
    assert result.exit_code == 0
    assert re.search(r"avgas: warning: .*cut\.mp3: damaged or truncated", result.stderr)


def test_bad_recordings(checkpoint, tmp_path):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("words " * 100)
    write_audio(tmp_path / "mute.mp4", np.zeros(1), 44100, None, picture_codec="mpeg4")
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
    soundfile.write(tmp_path / "nan.wav", np.full(16000, np.nan, np.float32), 16000, subtype="FLOAT")
    for name in ("missing.wav", "empty.wav", "text.wav", "mute.mp4", "silent.wav", "nan.wav"):
        fails_with_one_line(generate(checkpoint, tmp_path / name, "--out", tmp_path / "out"), name)
    missing = [tmp_path / "missing.wav", tmp_path / "gone.wav"]
    fails_with_one_line(generate(checkpoint, *missing, "--out", tmp_path / "out"), *missing)
    assert not files(tmp_path / "out")


def test_bad_recordings_leave_no_new_folder_but_keep_one_that_was_there(checkpoint, recording, tmp_path):
    bad, old = tmp_path / "bad.wav", tmp_path / "old"
    bad.write_bytes(b"no sound")
    fails_with_one_line(generate(checkpoint, bad, "--out", tmp_path / "new"), "bad.wav")
    assert not (tmp_path / "new").exists()
    assert generate(checkpoint, bad, bad, "--out", tmp_path / "new").exit_code == 2
    assert not (tmp_path / "new").exists()
    assert generate(checkpoint, bad, "--out", tmp_path / "new" / "deep" / "er").exit_code == 2
    assert not (tmp_path / "new").exists()
    old.mkdir()
    fails_with_one_line(generate(checkpoint, bad, "--out", old), "bad.wav")
    assert old.is_dir()
    assert generate(checkpoint, bad, recording, "--out", tmp_path / "new").exit_code == 2
    assert (tmp_path / "new" / "sea and dog" / "mixed.png").exists()


def test_bad_options(checkpoint, recording, tmp_path):
    out = tmp_path / "out"
    for arguments, word in {
        ("--weight", "unicorn=1"): "unicorn",
        ("--weight", "raining"): "LABEL=NUMBER",
        ("--weight", "raining=-1"): "finite",
        ("--prompt", "a photo"): "text encoder",
        ("--device", "abacus"): "abacus",
        ("--device", "meta"): "meta",
        ("--guidance", "nan"): "--guidance",
        ("--num-sources", "9"): "from 1 to 4",
        ("--max-duration", "1"): "--max-duration",
        ("--negative-audio", str(tmp_path / "gone.wav")): "gone.wav",
    }.items():
        fails_with_one_line(generate(checkpoint, recording, "--out", out, *arguments), word)
    for arguments in (("--steps", "0"), ("--seed", str(2**70))):
        assert generate(checkpoint, recording, "--out", out, *arguments).exit_code == 2
    assert not files(out)


def test_bad_models(checkpoint, recording, tmp_path):
    no_weights = shutil.copytree(checkpoint, tmp_path / "no-weights")
    (no_weights / "vae/diffusion_pytorch_model.safetensors").unlink()
    pickled = shutil.copytree(checkpoint, tmp_path / "pickled")
    (pickled / "vae/diffusion_pytorch_model.safetensors").unlink()
    torch.save({}, pickled / "vae/diffusion_pytorch_model.bin")
    damaged = shutil.copytree(checkpoint, tmp_path / "damaged")
    (damaged / "audio_encoder/model.safetensors").write_text("version https://git-lfs.github.com/spec/v1")
    strange = shutil.copytree(checkpoint, tmp_path / "strange")
    (strange / "model_index.json").write_text("[]")
    outside = shutil.copytree(checkpoint, tmp_path / "outside")
    index = {"_class_name": "AVGASPipeline", "../vae": ["diffusers", "AutoencoderKL"]}
    (outside / "model_index.json").write_text(json.dumps(index))
    for model, word in (
        (no_weights, "no weights"),
        (pickled, "pickled"),
        (damaged, "damaged"),
        (strange, "JSON object"),
        (outside, "'../vae' is not a component"),
        (tmp_path / "gone", "gone"),
    ):
        fails_with_one_line(generate(model, recording, "--out", tmp_path / "out"), word)
        fails_with_one_line(CliRunner().invoke(app, ["info", str(model)]), word)


def test_results_of_an_earlier_run_are_replaced(checkpoint, recording, tmp_path):
    out = tmp_path / "out"
    assert generate(checkpoint, recording, "--out", out, "--separate", "--num-sources", "4").exit_code == 0
    (out / "source-notes.txt").write_text("mine")
    assert generate(checkpoint, recording, "--out", out, "--separate", "--num-sources", "1").exit_code == 0
    assert len([name for name in files(out) if name.startswith("source-") and name.endswith(".png")]) == 1
    assert (out / "source-notes.txt").read_text() == "mine"


def test_a_folder_in_the_way_leaves_everything_as_it_was(checkpoint, recording, tmp_path):
    (tmp_path / "out/sources.json").mkdir(parents=True)
    fails_with_one_line(generate(checkpoint, recording, "--out", tmp_path / "out"), "sources.json", "folder")
    assert not files(tmp_path / "out")


def test_names_of_files_do_not_lead_out_of_the_folder(checkpoint, recording, tmp_path):
    odd = shutil.copy(recording, tmp_path / "...wav")
    assert generate(checkpoint, odd, recording, "--out", tmp_path / "deep/out").exit_code == 0
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["out"]
    assert sorted(path.name for path in (tmp_path / "deep/out").iterdir()) == ["recording", "sea and dog"]


def test_names_of_files_need_not_be_utf8(checkpoint, recording, tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")
    shutil.copy(recording, path)
    shutil.copy(recording, tmp_path / "plain.wav")
    result = generate(checkpoint, path, tmp_path / "plain.wav", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "caf\ufffd.wav" in result.stdout
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/out/caf\xe9")
    assert json.loads(Path(folder, "sources.json").read_text(encoding="utf-8"))["audio"] == path
    assert PIL.Image.open(Path(folder, "overview.png")).size[0] > 100


def test_bad_loras(checkpoint, recording, tmp_path):
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "pytorch_lora_weights.safetensors").write_text("version https://git-lfs.github.com/spec/v1")
    torch.save({}, tmp_path / "lora.bin")
    other = tmp_path / "other.safetensors"
    unet = AVGASPipeline.from_pretrained(checkpoint).unet
    layer = "unet." + next(name for name, _ in unet.named_modules() if name.endswith("to_q"))
    save_file({f"{layer}.lora_A.weight": torch.ones(4, 999), f"{layer}.lora_B.weight": torch.ones(999, 4)}, other)
    for lora, word in (
        (damaged, f"{damaged}: the LoRA's file is damaged"),
        (tmp_path / "lora.bin", "lora.bin: the LoRA's file is damaged or not safetensors"),
        (other, "made for others"),
        (tmp_path / "gone", "gone"),
    ):
        fails_with_one_line(generate(checkpoint, recording, "--lora", lora, "--out", tmp_path / "out"), word)
    assert not (tmp_path / "out").exists()


def test_unwritable_output_folder(checkpoint, recording, tmp_path):
    (tmp_path / "file").write_text("in the way")
    fails_with_one_line(generate(checkpoint, recording, "--out", tmp_path / "file/out"), "file/out", "can't write")
    fails_with_one_line(generate(checkpoint, recording, "--out", tmp_path / "file"), "can't write")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_leaves_nothing_half_written(checkpoint, recording, small_disk):
    earlier = small_disk / "mixed.png"
    earlier.write_bytes(b"an earlier result")
    fails_with_one_line(generate(checkpoint, recording, "--out", small_disk, "--separate"), "No space left")
    assert [path.name for path in small_disk.iterdir()] == ["mixed.png"]
    assert earlier.read_bytes() == b"an earlier result"


# -- info, export ---------------------------------------------------------------------------------------------------


def test_info(checkpoint):
    result = CliRunner().invoke(app, ["info", str(checkpoint)])
    assert result.exit_code == 0
    for word in ("ASTModel", "UNet2DConditionModel", "64 x 64 pixels", "16000 Hz", "up to 4", "sea waves"):
        assert word in result.stdout


def test_export_remote_code(checkpoint, tmp_path):
    result = CliRunner().invoke(app, ["export-remote-code", str(checkpoint), str(tmp_path / "remote")])
    assert result.exit_code == 0
    assert (tmp_path / "remote/pipeline.py").exists() and (tmp_path / "remote/separator/avgas_pipeline.py").exists()
    again = CliRunner().invoke(app, ["export-remote-code", str(checkpoint), str(tmp_path / "remote")])
    fails_with_one_line(again, "exists already")


def test_export_remote_code_of_the_checkpoint_that_comes_with_the_package(tmp_path):
    result = CliRunner().invoke(app, ["export-remote-code", "avgas-mini", str(tmp_path / "remote")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "remote/pipeline.py").exists() and (tmp_path / "remote/unet/config.json").exists()
    result = CliRunner().invoke(app, ["export-remote-code", "./gone", str(tmp_path / "none")])
    fails_with_one_line(result, "./gone: no such folder")


def test_the_command_is_installed():
    command = Path(sys.executable).with_name("avgas")
    result = subprocess.run([command, "--help"], capture_output=True, text=True, check=True)
    assert "generate" in result.stdout and not result.stderr
    result = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert result.stdout == f"{__version__}\n" and not result.stderr


# -- overview -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_sources", [0, 1, 3, 7])
def test_overview_shows_any_number_of_sources(num_sources):
    image = PIL.Image.new("RGB", (64, 64), "white")
    sources = [
        SoundSource(label=f"$label {n}", activity=np.ones(101, np.float32), activity_hop_s=0.02, images=[image])
        for n in range(num_sources)
    ]
    overview = draw_overview(tone(2.0, 16000), 16000, [image], sources, title="cost: $5 & more")
    assert overview.mode == "RGB" and min(overview.size) > 500


def test_overview_takes_any_length_and_sources_without_masks(pipe):
    image = PIL.Image.new("RGB", (64, 64))
    for seconds in (0.001, 0.3, 600.0):
        assert draw_overview(tone(seconds, 16000), 16000, [image], [SoundSource(label="x")]).size[0] > 500


def test_overview_is_deterministic(checkpoint):
    pipe = AVGASPipeline.from_pretrained(checkpoint)
    pipe.set_progress_bar_config(disable=True)
    audio = tiny_audio(1.0)[0]
    out = pipe(audio, 16000, separate=True, num_inference_steps=2, generator=torch.manual_seed(0))
    first, second = (draw_overview(audio, 16000, out.images, out.sources[0]) for _ in range(2))
    assert first.tobytes() == second.tobytes()
