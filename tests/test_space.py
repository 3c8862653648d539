"""What a Hub Space needs is written, and starts by itself; the notebook runs from top to bottom."""

import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import nbformat
import pytest
from gradio_client import Client, handle_file
from launching import free_port
from nbclient import NotebookClient
from packaging.requirements import Requirement


ROOT = Path(__file__).parents[1]
# A Space has a copy of the package, and installs only what it needs.
NOT_INSTALLED = """
import importlib.metadata as metadata
find = metadata.Distribution.from_name
metadata.Distribution.from_name = classmethod(lambda kind, name: find(name.replace("avgas", "no-such")))
"""


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    out = tmp_path_factory.mktemp("hub") / "space"
    command = [sys.executable, ROOT / "space/assemble.py", out]
    subprocess.run(command, check=True)
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 2 and "exists already" in again.stderr
    return out


@pytest.mark.slow
def test_it_has_card_requirements_and_examples(space):
    card = (space / "README.md").read_text(encoding="utf-8")
    assert "sdk: gradio" in card and "app_file: app.py" in card
    first, *others = (space / "requirements.txt").read_text().splitlines()
    assert first.startswith("--extra-index-url")
    names = {Requirement(line).name for line in others}
    assert {"torch", "diffusers", "transformers", "gradio"} <= names and "ray" not in names
    assert (space / "examples/mixture-dog-bird.flac").exists()


@pytest.mark.slow
def test_it_starts_by_itself(space):
    port = free_port()
    environment = {**os.environ, "GRADIO_SERVER_PORT": str(port), "PYTHONSAFEPATH": ""}
    # Isolated from the checkout: only the folder's own package is found first.
    script = f"import sys; sys.path.insert(0, {str(space)!r}); import runpy; runpy.run_path('app.py')"
    script = NOT_INSTALLED + script
    process = subprocess.Popen([sys.executable, "-c", script], cwd=space, env=environment)
    try:
        url = f"http://127.0.0.1:{port}/"
        for _ in range(240):
            try:
                request = urllib.request.Request(url, headers={"Host": "someone-soundscapes.hf.space"})
                assert urllib.request.urlopen(request, timeout=5).status == 200
                break
            except (urllib.error.URLError, ConnectionError):
                assert process.poll() is None
                time.sleep(0.5)
        client = Client(url, verbose=False)
        recording = handle_file(space / "examples/Farm1.wav")
        status = client.predict(recording, None, None, None, 0, 1, 1, 1, api_name="/hear")[0]
        assert "sheep bleating" in status
        status, archive = client.predict(api_name="/archive")
        assert "Saved as one ZIP file" in status and "mixed.png" in zipfile.ZipFile(archive["value"]).namelist()
    finally:
        process.terminate()
        process.wait()


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(tmp_path):
    for path in (ROOT / "examples").iterdir():
        shutil.copy(path, tmp_path)
    notebook = nbformat.read(tmp_path / "soundscapes.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    kinds = [kind for cell in notebook.cells for output in cell.get("outputs", ()) for kind in output.get("data", ())]
    # Mixed, two separated, three with weights, a diagram and a storyboard.
    assert kinds.count("image/png") == 8
