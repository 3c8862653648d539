"""What checkpoints say they were trained on, and how avgas-mini's list is made."""

import json
from pathlib import Path

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from trained_on import TABLES, freesound_ids, main, note

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.loaders import trained_on as module
from avgas_pipeline.loaders.trained_on import TRAINED_ON, trained_on


def test_rows_name_recordings_in_three_ways():
    rows = [
        {"id": "baby-crying/esc50-1-211527-A-00", "source_url": "", "path": "004 - Baby cry/1-211527-A.ogg"},
        {"id": "airplane/flyby-00", "source_url": "freesound:568128", "path": "sounds/jet_2.flac"},
        {"id": "mouse-00", "source_url": None, "path": "res/sounds/188043__antumdeluge__mouse.ogg"},
        {"id": "again", "source_url": "freesound:568128"},
        {"id": "cat-00", "source_url": "orangefreesounds:cat-meow", "path": "sounds/44__cat.ogg"},
    ]
    assert freesound_ids(rows) == [188043, 211527, 568128]


def test_avgas_mini_says_what_it_was_trained_on(tmp_path):
    said = trained_on("avgas-mini")["freesound"]
    assert {"211527", "568128", "188043"} <= said
    # The list that comes with it is the one that its tables give.
    assert note(tmp_path, TABLES) == len(said)
    assert trained_on(save(tmp_path))["freesound"] == said


def save(folder):
    """A checkpoint with the list that lies there."""
    text = (folder / TRAINED_ON).read_text()
    AVGASPipeline.from_pretrained("avgas-mini").save_pretrained(folder / "copy")
    # It is not copied with the weights: what is saved may have been trained further.
    assert trained_on(folder / "copy") is None
    (folder / "copy" / TRAINED_ON).write_text(text)
    return folder / "copy"


def test_the_script(tmp_path, capsys):
    main([str(tmp_path)])
    assert f"{len(json.loads((tmp_path / TRAINED_ON).read_text())['freesound'])} recordings" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([str(tmp_path / "gone")])


def test_a_repository_says_it_too(tmp_path, monkeypatch):
    (tmp_path / TRAINED_ON).write_text(json.dumps({"freesound": [7, "8"]}))
    monkeypatch.setattr(module, "hf_hub_download", lambda repository, name: Path(tmp_path, name))
    assert trained_on("someone/model") == {"freesound": frozenset({"7", "8"})}

    def absent(repository, name):
        raise LocalEntryNotFoundError("not there")

    monkeypatch.setattr(module, "hf_hub_download", absent)
    assert trained_on("someone/model") is None
