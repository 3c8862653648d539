"""What is imported when: help and usage errors come without torch, and diffusers knows our classes all the same."""

import ast
import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import run_hub, run_python

import avgas_pipeline


COMMANDS = ("generate", "info", "export-remote-code", "prepare", "evaluate", "study")
GENERATE = ("generate", "here.wav", "--out", "out")
EVALUATE = ("evaluate", "--out", "out", "--data", "data")

# Runs the command as it is installed, then tells what was imported.
SCRIPT = """
import sys
from avgas_pipeline.cli import main
try:
    main()
finally:
    print("imported:", *{"torch", "diffusers", "transformers", "datasets"} & set(sys.modules), file=sys.stderr)
"""


def answer(folder, *arguments):
    """Exit code and text of a command, which has to come without the libraries that take seconds."""
    result = subprocess.run([sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, cwd=folder)
    *lines, imported = result.stderr.splitlines()
    assert imported == "imported:", result.stderr
    return result.returncode, result.stdout + "\n".join(lines)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "here.wav").touch()
    (tmp_path / "data").mkdir()
    (tmp_path / "data/vggsound.csv").write_text("no id,0,no label,test\n")
    return tmp_path


@pytest.mark.parametrize("arguments", [(), *((command,) for command in COMMANDS)], ids=" ".join)
def test_help_without_torch(arguments, folder):
    code, text = answer(folder, *arguments, "--help")
    assert code == 0 and "Usage" in text and "Traceback" not in text


def test_version_without_torch(folder):
    assert answer(folder, "--version") == (0, f"{avgas_pipeline.__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("draw",), "draw"),
        (("--nonsense",), "--nonsense"),
        (("generate",), "audio"),
        ((*GENERATE, "--nonsense"), "--nonsense"),
        ((*GENERATE, "--steps", "0"), "--steps"),
        ((*GENERATE, "--dtype", "int3"), "--dtype"),
        ((*GENERATE, "--weight", "raining"), "LABEL=NUMBER"),
        ((*GENERATE, "--weight", "raining=much"), "LABEL=NUMBER"),
        ((*GENERATE, "--negative-audio", "gone.wav"), "gone.wav: no such file"),
        ((*GENERATE, "--lora", "./gone"), "./gone: no such file or folder"),
        ((*GENERATE, "--model", "./gone"), "./gone: no such folder"),
        ((*GENERATE, "--model", "/gone/model"), "/gone/model: no such folder"),
        ((*GENERATE, "--model", "data"), "data: not a pipeline checkpoint"),
        (("generate", "gone.wav", "--out", "out"), "gone.wav: no such file"),
        (("generate", "a.wav", "b.wav", "--out", "out"), "a.wav, b.wav: no such file"),
        (("info", "./gone"), "./gone: no such folder"),
        (("export-remote-code", "./gone", "out"), "./gone: no such folder"),
        (("prepare", "gone", "--out", "out"), "gone: no such folder"),
        (("prepare", "data", "--out", "out"), "line 1"),
        (("prepare", "data", "--out", "out", "--csv", "gone.csv"), "gone.csv: no such file"),
        (("prepare", "data", "--out", "out", "--moments", "gone.json"), "gone.json: no such file"),
        (("prepare", "data", "--out", "out", "--format", "zip"), "--format"),
        (("prepare", "data", "--out", "out", "--engine", "steam"), "--engine"),
        (EVALUATE, "--judge"),
        ((*EVALUATE, "--judge", "./gone"), "./gone: no such file or folder"),
        ((*EVALUATE, "--no-draw", "--data", "./gone"), "./gone: no such file or folder"),
        ((*EVALUATE, "--no-draw", "--manifest", "gone.jsonl"), "gone.jsonl: no such file"),
        ((*EVALUATE, "--no-draw", "--model", "./gone"), "./gone: no such folder"),
        ((*EVALUATE, "--judge", "judge", "--images", "them=gone"), "gone: no such folder"),
        (("study", "gone"), "gone: no such folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_usage_errors_without_torch(arguments, word, folder):
    code, text = answer(folder, *arguments)
    assert code == 2 and word in text and "Traceback" not in text
    assert not (folder / "out").exists()


def test_the_package_alone_imports_no_torch(tmp_path):
    script = """
import sys, avgas_pipeline
assert not {"torch", "diffusers", "transformers", "numpy"} & set(sys.modules)
assert set(avgas_pipeline.__all__) <= set(dir(avgas_pipeline))
assert not hasattr(avgas_pipeline, "nonsense")
"""
    run_python(script, tmp_path)


def test_all_names_come_when_asked_for_and_quietly(tmp_path):
    script = "from avgas_pipeline import *\nprint(AVGASPipeline.__name__, load_audio.__name__, SoundSource.__name__)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert (result.stdout, result.stderr) == ("AVGASPipeline load_audio SoundSource\n", "")


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(avgas_pipeline.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {}
    for node in block.body:
        module = importlib.import_module(f".{node.module}", avgas_pipeline.__name__)
        seen |= {alias.name: getattr(module, alias.name) for alias in node.names}
    assert seen == {name: getattr(avgas_pipeline, name) for name in avgas_pipeline.__all__}


# -- diffusers knows our classes ------------------------------------------------------------------------------------


@pytest.fixture
def hub(checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "hub" / "someone" / "tiny")
    with run_hub(tmp_path / "hub") as url:
        yield url


LOAD = """
assert "avgas_pipeline.pipeline_avgas" not in sys.modules
print(type(DiffusionPipeline.from_pretrained("someone/tiny")).__module__)
"""


@pytest.mark.slow
def test_registers_when_diffusers_is_imported_later(hub, tmp_path):
    script = f"import sys, avgas_pipeline\nfrom diffusers import DiffusionPipeline\n{LOAD}"
    assert run_python(script, tmp_path, endpoint=hub) == "avgas_pipeline.pipeline_avgas\n"


@pytest.mark.slow
def test_registers_while_another_thread_imports_diffusers(hub, tmp_path):
    script = f"""
import importlib, sys, threading, time
tables = "diffusers.pipelines.pipeline_loading_utils"
other = threading.Thread(target=importlib.import_module, args=(tables,))
other.start()
while tables not in sys.modules:
    time.sleep(0.001)
assert not hasattr(sys.modules[tables], "LOADABLE_CLASSES")
import avgas_pipeline
other.join()
from diffusers import DiffusionPipeline
{LOAD}"""
    assert run_python(script, tmp_path, endpoint=hub) == "avgas_pipeline.pipeline_avgas\n"


@pytest.mark.slow
def test_a_version_of_diffusers_that_does_not_fit_is_named(checkpoint, tmp_path):
    script = f"""
import avgas_pipeline, diffusers
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from diffusers.pipelines import pipeline_loading_utils

def error_of(action):
    try:
        action()
    except ImportError as error:
        print(error)

# What our pipeline takes from diffusers' has another name.
interrupt = StableDiffusionPipeline.interrupt
del StableDiffusionPipeline.interrupt
error_of(lambda: avgas_pipeline.AVGASPipeline)
error_of(lambda: DiffusionPipeline.from_pretrained({str(checkpoint)!r}))
StableDiffusionPipeline.interrupt = interrupt
# The tables have another name.
del pipeline_loading_utils.LOADABLE_CLASSES
error_of(lambda: avgas_pipeline.AVGASPipeline)
"""
    first, second, third = run_python(script, tmp_path).splitlines()
    assert "interrupt" in first and "interrupt" in second
    assert "diffusers" in third and "use a tested version" in third


# -- OpenMP ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({}, {"OMP_WAIT_POLICY": "PASSIVE"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
        ({"GOMP_SPINCOUNT": "1000"}, {"GOMP_SPINCOUNT": "1000"}),
        ({"KMP_BLOCKTIME": "10"}, {"KMP_BLOCKTIME": "10"}),
    ],
)
def test_threads_wait_passively_unless_the_user_says_otherwise(own, expected, tmp_path):
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    environment = {name: value for name, value in os.environ.items() if name not in names} | own
    script = f"""
import json, os, sys
from avgas_pipeline.cli import main
try:
    main()
finally:
    # OpenMP reads them when torch is imported.
    assert "torch" not in sys.modules
    print(json.dumps({{name: os.environ[name] for name in {names} if name in os.environ}}))
"""
    command = [sys.executable, "-c", script, "--version"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert json.loads(result.stdout.splitlines()[-1]) == expected
