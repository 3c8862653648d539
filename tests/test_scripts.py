"""Training scripts in a fresh interpreter, which other tests mostly spare themselves."""

import subprocess
import sys

import pytest
from training_runs import TRAINING


SCRIPTS = [path for path in sorted(TRAINING.glob("*.py")) if "__main__" in path.read_text(encoding="utf-8")]


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_help(script, tmp_path):
    result = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "usage" in result.stdout and "Traceback" not in result.stderr
