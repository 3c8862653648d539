"""An evaluation that is ended by a signal, and one that finds junk where an earlier one was."""

import json
import shutil
import signal
import sys

import forked
import PIL.Image
import pytest
from evaluation_data import arguments, drawn, fails, report_of, run, write_evaluation_inputs

from avgas_pipeline.evaluation.drawing_folder import check_settings
from avgas_pipeline.evaluation.image_folder import ImageFolderSystem


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Read-only by convention."""
    return write_evaluation_inputs(tmp_path_factory.mktemp("evaluation"), num_mixtures=4)


@pytest.fixture(scope="module")
def done(inputs, tmp_path_factory):
    """Read-only by convention."""
    out = tmp_path_factory.mktemp("done") / "out"
    assert run(inputs, out).exit_code == 0
    return out


def process(tmp_path, before, command):
    """The command in a process of its own, after some lines of Python."""
    imports = "import os, signal, sys, threading, time\nfrom pathlib import Path"
    (tmp_path / "avgas.py").write_text(f"{imports}\n{before}\nfrom avgas_pipeline.cli import main\nmain()\n")
    return forked.run([sys.executable, tmp_path / "avgas.py", *command])


def test_a_signal_leaves_whole_batches_alone(inputs, tmp_path):
    out = tmp_path / "out"
    before = f"""
def end():
    folder = Path({str(out)!r}, "systems/model")
    while not (folder / "00000").exists() or not any(folder.glob(".partial-*")):
        time.sleep(0.0002)
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=end, daemon=True).start()
"""
    result = process(tmp_path, before, arguments(inputs, out))
    assert result.returncode == 128 + signal.SIGTERM and "Traceback" not in result.stderr
    assert not list(out.rglob(".partial-*")) and len(drawn(out)) == 1
    assert run(inputs, out).exit_code == 0
    assert len(drawn(out)) == 2


def test_an_error_leaves_no_empty_folder(inputs, tmp_path):
    fails(run(inputs, tmp_path / "deep/out", judge=tmp_path), "config")
    assert not (tmp_path / "deep").exists()


def test_full_standard_error_does_not_stop_drawing(inputs, tmp_path):
    before = "os.dup2(os.open('/dev/full', os.O_WRONLY), 2)"
    assert process(tmp_path, before, arguments(inputs, tmp_path / "out")).returncode == 0
    assert report_of(tmp_path / "out")


JUNK = {"empty": b"", "deep": b"[" * 100_000, "list": b"[]", "number": b"3", "binary": b"\xff\x00"}


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
def test_settings_of_junk_are_named(tmp_path, junk):
    path = tmp_path / "settings.json"
    path.write_bytes(junk)
    with pytest.raises(ValueError, match=r"settings\.json(, line 1)?: (not|is not in UTF-8)"):
        check_settings(path, {"seed": 0})
    assert path.read_bytes() == junk


def test_settings_need_not_be_unicode(tmp_path):
    for _ in range(2):
        check_settings(tmp_path / "settings.json", {"text": "caf\udce9"})


@pytest.mark.parametrize("name", ["settings.json", "systems/model/system.json", "systems/model/00002/records.json"])
def test_files_of_junk_are_named(inputs, done, tmp_path, name):
    out = shutil.copytree(done, tmp_path / "out")
    values = json.loads((out / name).read_text())
    for junk in (JUNK["deep"], b"[]"):
        (out / name).write_bytes(junk)
        fails(run(inputs, out), str(out / name), ": not")
    if isinstance(values, list):
        for wrong in ([values[0]], [3, 4], [{**values[0], "labels": 3}, values[1]], [{}, {}], [*values, values[0]]):
            (out / name).write_text(json.dumps(wrong))
            fails(run(inputs, out), f"{out / name}: not the records of 2 drawings")


def test_an_old_report_of_junk_is_replaced(inputs, done, tmp_path):
    out = shutil.copytree(done, tmp_path / "out")
    for name in ("report.json", "report.md", "values.json"):
        (out / name).write_bytes(JUNK["deep"])
    (out / ".partial-0123").mkdir()
    (out / ".partial-0123/report.json").write_bytes(JUNK["deep"])
    assert run(inputs, out).exit_code == 0
    for name in ("report.json", "report.md", "values.json"):
        assert (out / name).read_bytes() == (done / name).read_bytes()
    assert not (out / ".partial-0123").exists()


def test_pictures_of_junk_are_named(tmp_path):
    PIL.Image.effect_noise((64, 64), 50).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    huge = whole[:16] + b"\x00\x00\xff\xff" * 2 + whole[24:]
    for number, junk in enumerate((b"", b"text", whole[:200], whole[:60] + b"\xff" * 400 + whole[460:], huge)):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "00000.png").write_bytes(junk)
        with pytest.raises(ValueError, match=r"00000\.png: not an image, or damaged"):
            ImageFolderSystem("x", folder, 1).verify()
