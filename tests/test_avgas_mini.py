"""The checkpoint that comes with the package, as people use it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import soundfile
import torch
from hub_server import run_python
from typer.testing import CliRunner

from avgas_pipeline import AVGASPipeline, export_remote_code
from avgas_pipeline.cli import app
from avgas_pipeline.data.mixtures import MixtureSampler
from avgas_pipeline.data.soundscapes_mini import load_soundscapes_mini
from avgas_pipeline.loaders.folders import CHECKPOINTS, DEFAULT_CHECKPOINT
from avgas_pipeline.loaders.sounds import VGGSOUND_LABELS
from avgas_pipeline.metrics import load_judge


ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
FOLDER = CHECKPOINTS / DEFAULT_CHECKPOINT


@pytest.fixture(scope="module")
def mini():
    pipe = AVGASPipeline.from_pretrained(DEFAULT_CHECKPOINT)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def data():
    return load_soundscapes_mini(ROOT / "data/soundscapes-mini", "train")


def test_is_small_and_half_precision():
    files = list(FOLDER.rglob("*.safetensors"))
    assert len(files) == 4 and sum(path.stat().st_size for path in files) <= 45 * 10**6
    for path in files:
        header = path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")]
        assert "F32" not in {value["dtype"] for key, value in json.loads(header).items() if key != "__metadata__"}


def test_knows_the_labels_of_its_data(mini, data):
    labels = [mini.separator.id2label[number] for number in range(len(mini.separator.id2label))]
    assert set(data[0]["label"]) < set(labels) and len(labels) > 200 and labels[-1] == "unknown sound"
    assert set(labels[:-1]) <= set(VGGSOUND_LABELS)
    assert mini.default_size == (256, 256) and mini.sampling_rate == 16000


def test_gives_way_to_a_folder_of_its_name(tmp_path, monkeypatch):
    (tmp_path / DEFAULT_CHECKPOINT).mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no model_index\.json"):
        AVGASPipeline.from_pretrained(DEFAULT_CHECKPOINT)


def test_draws_what_known_clips_are(mini, data):
    """One clip of every third class, alone: label and picture are right far above chance (1 in 59)."""
    clips, pictures = data
    judge = load_judge(str(ROOT / "judges/soundscapes-mini"), sorted(set(clips["label"])))
    sampler = MixtureSampler(clips, pictures, duration_s=mini.window_s, sampling_rate=mini.sampling_rate)
    labels = sampler.labels[::3]
    images, named = [], []
    for number, label in enumerate(labels):
        clip = clips["id"][clips["label"].index(label)]
        mixture = sampler.render(sampler.plan_single(clip))
        out = mini(
            mixture.waveform,
            sampling_rate=mixture.sampling_rate,
            num_sources=1,
            generator=torch.Generator().manual_seed(number),
        )
        named.append(out.sources[0][0].label)
        images += out.images
    assert np.mean([first == second for first, second in zip(named, labels, strict=True)]) >= 0.7
    seen = [judge.labels[index] for index in judge(images).scores.argmax(dim=1)]
    assert np.mean([first == second for first, second in zip(seen, named, strict=True)]) >= 0.7


def test_generates_without_naming_a_model(tmp_path):
    recording = EXAMPLES / "ship.ogg"
    result = CliRunner().invoke(app, ["generate", str(recording), "--separate", "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    settings = json.loads((tmp_path / "out/sources.json").read_text())
    config = json.loads((FOLDER / "model_index.json").read_text())
    assert settings["steps"] == config["default_num_inference_steps"]
    assert settings["guidance"] == config["default_guidance_scale"]
    assert PIL.Image.open(tmp_path / "out/mixed.png").size == (256, 256)


def test_a_long_recording_is_heard_with_and_without_a_bar(mini, capsys):
    samples, rate = soundfile.read(EXAMPLES / "mixture-dog-bird.flac")
    audio = {"array": np.tile(samples, 9), "sampling_rate": rate}
    found = []
    for config in ({"disable": True}, {"desc": "dogs"}):
        mini.set_progress_bar_config(**config)
        found.append([source.label for source in mini.separate_audio(audio, return_audio=False)[0]])
        shown = capsys.readouterr().err
        assert ("dogs, listening: 100%" in shown) == ("desc" in config)
    mini.set_progress_bar_config(disable=True)
    assert found[0] == found[1]


def test_what_should_not_show_is_left_out(mini):
    dog = EXAMPLES / "Shanty5.wav"
    (heard,) = mini.separate_audio(dog)
    (sources,) = mini.separate_audio(EXAMPLES / "mixture-dog-bird.flac")
    encoded = mini.encode_audio(EXAMPLES / "mixture-dog-bird.flac", negative_audio=dog)
    unwanted = {source.label for source in heard}
    drawn = {source.label: source.is_drawn for source in encoded.sources[0]}
    assert set(drawn) == {source.label for source in sources}
    assert [label for label, is_drawn in drawn.items() if not is_drawn] == [
        label for label in drawn if label in unwanted
    ]
    assert any(drawn.values()) and not all(drawn.values())
    out = mini(**encoded, separate=True, generator=torch.manual_seed(0))
    assert [bool(source.images) for source in out.sources[0]] == list(drawn.values())


def test_hears_the_same_under_autocast(mini):
    (plain,) = mini.separate_audio(EXAMPLES / "mixture-dog-bird.flac")
    with torch.autocast("cpu", torch.bfloat16):
        (rounded,) = mini.separate_audio(EXAMPLES / "mixture-dog-bird.flac")
    assert [source.label for source in rounded] == [source.label for source in plain]
    for one, other in zip(rounded, plain, strict=True):
        assert one.certainty == pytest.approx(other.certainty, abs=0.05)


@pytest.mark.slow
def test_same_seed_same_bytes_in_fresh_processes(tmp_path):
    for name in ("first", "second"):
        command = [sys.executable, "-m", "avgas_pipeline", "generate", str(EXAMPLES / "Farm1.wav"), "--separate"]
        subprocess.run([*command, "--seed", "7", "--out", str(tmp_path / name)], check=True, capture_output=True)
    first, second = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("first", "second")
    )
    assert first and first == second


@pytest.mark.slow
def test_remote_code_without_the_package(mini, tmp_path):
    export_remote_code(FOLDER, tmp_path / "remote")
    load = """
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained("remote", trust_remote_code=True)
print(*[source.label for source in pipe.separate_audio(EXAMPLE)[0]], sep="|")
""".replace("EXAMPLE", repr(str(EXAMPLES / "mixture-dog-bird.flac")))
    labels = [source.label for source in mini.separate_audio(EXAMPLES / "mixture-dog-bird.flac")[0]]
    assert run_python(load, tmp_path, without_package=True).strip().splitlines()[-1] == "|".join(labels)


@pytest.mark.parametrize(
    ("name", "label", "score"),
    [
        ("Farm1.wav", "sheep bleating", 0.9),
        ("Shanty5.wav", "dog barking", 0.9),
        ("SportsCroud1.wav", "people clapping", 0.9),
        ("morning.ogg", "chicken crowing", 0.8),
        ("ship.ogg", "sea waves", 0.9),
        ("Green1.wav", "bird chirping, tweeting", 0.9),
    ],
)
def test_names_in_natural_recordings_what_examples_say(mini, name, label, score):
    sources = mini.separate_audio(EXAMPLES / name, return_audio=False)[0]
    assert label in {source.label for source in sources if source.score > score}
    # Anything else is unknown, but for the chimes under the rooster.
    others = {source.label for source in sources} - {label, None}
    assert others <= ({"church bell ringing"} if name == "morning.ogg" else set())


@pytest.mark.slow
def test_works_from_the_wheel_without_network(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet", str(ROOT)]
    subprocess.run([*build, "--wheel-dir", str(tmp_path)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--target", str(tmp_path / "site")]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    script = (
        "import socket\n"
        "def refuse(*_): raise OSError('no network')\n"
        "socket.socket.connect = refuse\n"
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "import avgas_pipeline\n"
        f"assert avgas_pipeline.__file__.startswith({str(tmp_path)!r})\n"
        "from avgas_pipeline.cli import app\n"
        f"app(['generate', {str(EXAMPLES / 'Farm1.wav')!r}, '--separate', '--out', 'out'])\n"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out/overview.png").exists()
