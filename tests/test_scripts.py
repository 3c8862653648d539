"""Training scripts in processes of their own, which other tests mostly spare themselves."""

import subprocess
import sys

import forked
import pytest
from training_runs import TRAINING


SCRIPTS = [
    path for path in sorted(TRAINING.glob("**/*.py")) if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
]


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_help(script, tmp_path):
    result = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "usage" in result.stdout and "Traceback" not in result.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_wrong_use_ends_with_one_line(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = forked.run([sys.executable, script, "--no_such_option", "1"])
    assert result.returncode == 2
    assert "error: " in result.stderr.splitlines()[-1] and "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())
