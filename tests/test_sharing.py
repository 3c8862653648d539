"""Round trips of checkpoints, each in a fresh process."""

import json
import shutil
from copy import deepcopy

import numpy as np
import pytest
import torch
from drawing import draw
from hub_server import run_hub, run_python
from tiny import LABELS, tiny_audio, tiny_components

from avgas_pipeline import AVGASPipeline, create_model_card, export_remote_code


IMPORTS = "from diffusers import DiffusionPipeline\nfrom avgas_pipeline import AVGASPipeline"
REMOTE_LOAD = """
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained("{name}", trust_remote_code=True)
"""

# Loads with `load`, draws `tiny_audio()` and keeps what came out.
SCRIPT = """
import numpy as np, torch
{load}
pipe.set_progress_bar_config(disable=True)
out = pipe(np.load("audio.npy"), 16000, separate=True, num_inference_steps=3, output_type="np",
           generator=torch.manual_seed(0))
np.save("images.npy", np.concatenate([out.images, *[source.images for source in out.sources[0]]]))
print(type(pipe).__name__, type(pipe).__module__, *[source.label for source in out.sources[0]], sep="|")
"""


@pytest.fixture
def expected(pipe):
    out = draw(pipe, separate=True)
    return np.concatenate([out.images, *[source.images for source in out.sources[0]]])


def draws_the_same(load, folder, expected, **process):
    np.save(folder / "audio.npy", tiny_audio()[0])
    report = run_python(SCRIPT.format(load=load), folder, **process)
    # One thread or two may round differently; the same machine and settings do not.
    assert np.abs(np.load(folder / "images.npy") - expected).max() < 1e-6
    return report.strip().splitlines()[-1].split("|")


@pytest.fixture
def hub(checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "hub" / "someone" / "tiny")
    with run_hub(tmp_path / "hub") as url:
        yield url


@pytest.mark.parametrize("loader", ["AVGASPipeline", "DiffusionPipeline"])
def test_local_folder(loader, checkpoint, tmp_path, expected):
    load = f"{IMPORTS}\npipe = {loader}.from_pretrained({str(checkpoint)!r})"
    assert draws_the_same(load, tmp_path, expected)[:2] == ["AVGASPipeline", "avgas_pipeline.pipeline_avgas"]


@pytest.mark.parametrize("loader", ["AVGASPipeline", "DiffusionPipeline"])
@pytest.mark.slow
def test_hub(loader, hub, tmp_path, expected):
    load = f"{IMPORTS}\npipe = {loader}.from_pretrained('someone/tiny')"
    assert draws_the_same(load, tmp_path, expected, endpoint=hub)[0] == "AVGASPipeline"


@pytest.mark.slow
def test_push_then_pull(hub, checkpoint, tmp_path, expected):
    push = f"""
from avgas_pipeline import AVGASPipeline
pipe = AVGASPipeline.from_pretrained({str(checkpoint)!r})
pipe.push_to_hub("user/pushed", token="hf_x")
"""
    run_python(push, tmp_path, endpoint=hub)
    card = (tmp_path / "hub/user/pushed/README.md").read_text(encoding="utf-8")
    assert "library_name: diffusers" in card and 'AVGASPipeline.from_pretrained("user/pushed")' in card
    assert all(label in card for label in LABELS)
    files = {path.name for path in (tmp_path / "hub/user/pushed").rglob("*") if path.is_file()}
    assert not any(name.endswith((".bin", ".pt", ".ckpt")) for name in files)
    load = "from avgas_pipeline import AVGASPipeline\npipe = AVGASPipeline.from_pretrained('user/pushed')"
    draws_the_same(load, tmp_path, expected, endpoint=hub)


@pytest.mark.slow
def test_an_existing_card_is_kept(hub, checkpoint, tmp_path):
    folder = tmp_path / "hub/user/mine"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# My own words\n")
    push = f"""
from avgas_pipeline import AVGASPipeline
pipe = AVGASPipeline.from_pretrained({str(checkpoint)!r})
pipe.save_pretrained("saved", push_to_hub=True, repo_id="user/mine", token="hf_x")
"""
    run_python(push, tmp_path, endpoint=hub)
    assert "My own words" in (folder / "README.md").read_text()
    assert (folder / "model_index.json").exists()


@pytest.mark.slow
def test_remote_code_from_a_folder_without_the_package(checkpoint, tmp_path, expected):
    export_remote_code(checkpoint, tmp_path / "remote")
    load = REMOTE_LOAD.format(name="remote")
    report = draws_the_same(load, tmp_path, expected, without_package=True)
    assert report[0] == "AVGASPipeline" and report[1].startswith("diffusers_modules.")


@pytest.mark.slow
def test_what_was_loaded_with_remote_code_is_not_saved_half(checkpoint, tmp_path):
    export_remote_code(checkpoint, tmp_path / "remote")
    script = (
        REMOTE_LOAD.format(name="remote")
        + """
try:
    pipe.save_pretrained("again")
except ValueError as error:
    print(error)
"""
    )
    assert "trust_remote_code" in run_python(script, tmp_path, without_package=True)
    assert not (tmp_path / "again").exists()


@pytest.mark.slow
def test_remote_code_from_the_hub_without_the_package(hub, checkpoint, tmp_path, expected):
    export_remote_code(checkpoint, tmp_path / "hub/someone/remote")
    load = REMOTE_LOAD.format(name="someone/remote")
    draws_the_same(load, tmp_path, expected, endpoint=hub, without_package=True)


def test_remote_code_refuses_to_overwrite_and_leaves_nothing_half_written(checkpoint, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/precious.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="full"):
        export_remote_code(checkpoint, tmp_path / "full")
    with pytest.raises(FileNotFoundError):
        export_remote_code(tmp_path / "full", tmp_path / "new")
    assert {path.name for path in tmp_path.iterdir()} == {"full"}


def test_variant_and_dtype_round_trip(pipe, tmp_path):
    pipe.save_pretrained(tmp_path, variant="fp16")
    dtypes = {"separator": torch.float32, "default": torch.bfloat16}
    loaded = AVGASPipeline.from_pretrained(tmp_path, variant="fp16", dtype=dtypes)
    assert loaded.separator.dtype == torch.float32 and loaded.unet.dtype == torch.bfloat16


def test_half_precision_files_are_loaded_as_float32(pipe, tmp_path):
    components = {name: deepcopy(part) for name, part in pipe.components.items()}
    AVGASPipeline(**components).to(torch.float16).save_pretrained(tmp_path)
    loaded = AVGASPipeline.from_pretrained(tmp_path)
    models = [part for part in loaded.components.values() if isinstance(part, torch.nn.Module)]
    assert len(models) == 4 and {part.dtype for part in models} == {torch.float32}


def test_model_index_names_the_package_not_its_files(checkpoint):
    index = json.loads((checkpoint / "model_index.json").read_text())
    assert index["separator"] == ["avgas_pipeline", "AudioVisualSeparator"]
    assert index["_class_name"] == "AVGASPipeline"
    assert index["text_encoder"] == [None, None]


def test_card_states_only_what_the_checkpoint_says(pipe):
    card = create_model_card(pipe, "user/name")
    assert "4 slots, 2 condition tokens per source" in card.text
    assert "windows of 1.28 s" in card.text and "64x64 pixels" in card.text
    assert "Not stated by the author" in card.text
    assert card.data.license is None
    assert create_model_card(pipe, "user/name", license="apache-2.0").data.license == "apache-2.0"


# -- folders that can't be loaded -----------------------------------------------------------------------------------


@pytest.fixture
def copy(checkpoint, tmp_path):
    return shutil.copytree(checkpoint, tmp_path / "copy")


def test_a_folder_without_weights(copy):
    (copy / "unet/diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"unet: has no weights"):
        AVGASPipeline.from_pretrained(copy)


@pytest.mark.parametrize("name", ["unet", "audio_encoder"])
def test_a_folder_with_pickled_weights_only(copy, name):
    (weights,) = (copy / name).glob("*.safetensors")
    model = tiny_components()[name]
    weights.unlink()
    torch.save(model.state_dict(), weights.with_suffix(".bin"))
    with pytest.raises(ValueError, match="pickled"):
        AVGASPipeline.from_pretrained(copy)
    with pytest.raises(ValueError, match="use_safetensors"):
        AVGASPipeline.from_pretrained(copy, use_safetensors=False)


def test_nothing_is_ever_pickled(pipe, tmp_path):
    pipe.save_pretrained(tmp_path, safe_serialization=False)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 4
    assert not [path for suffix in ("bin", "pt", "pth", "ckpt") for path in tmp_path.rglob(f"*.{suffix}")]
    assert np.array_equal(draw(AVGASPipeline.from_pretrained(tmp_path)).images, draw(pipe).images)


def test_a_component_that_is_passed_needs_no_files(copy, components):
    shutil.rmtree(copy / "unet")
    with pytest.raises(FileNotFoundError, match="unet"):
        AVGASPipeline.from_pretrained(copy)
    assert AVGASPipeline.from_pretrained(copy, unet=components["unet"]).unet is components["unet"]
    assert AVGASPipeline.from_pretrained(copy, unet=None).unet is None


def test_other_bad_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        AVGASPipeline.from_pretrained(tmp_path / "missing")
    with pytest.raises(FileNotFoundError, match=r"model_index\.json"):
        AVGASPipeline.from_pretrained(tmp_path)
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        AVGASPipeline.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is a file"):
        AVGASPipeline.from_pretrained(tmp_path / "model_index.json")
