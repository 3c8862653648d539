"""The dataset checker names whatever it can't read, and goes on."""

import check_dataset
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from sounds import tone

from avgas_pipeline.data.soundscapes_mini import find_soundscapes_mini


@pytest.fixture
def tables():
    """A sound and a picture of every split."""
    names = [(kind, split) for kind in ("audio", "images") for split in ("train", "test")]
    return {
        (kind, split): pq.read_table(find_soundscapes_mini() / kind / f"{split}.parquet").slice(0, 1).to_pylist()
        for kind, split in names
    }


def check(tables, folder):
    for (kind, split), rows in tables.items():
        (folder / kind).mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), folder / kind / f"{split}.parquet")
    return check_dataset.main([str(folder)])


@pytest.mark.parametrize("duration", [None, float("nan"), float("inf")])
def test_a_duration_that_is_none(tables, tmp_path, capsys, duration):
    soundfile.write(tmp_path / "tone.wav", tone(1.0, 16000), 16000)
    tables["audio", "train"][0] |= {"audio": (tmp_path / "tone.wav").read_bytes(), "duration": duration}
    assert check(tables, tmp_path / "data") == 1
    assert "is 1.00 s long, but `duration` says" in capsys.readouterr().out


def refused(tables, folder, capsys, *words):
    with pytest.raises(SystemExit) as stopped:
        check(tables, folder)
    assert stopped.value.code == 2
    *_, line = capsys.readouterr().err.splitlines()
    for word in words:
        assert word in line


def test_tables_that_are_missing_or_damaged(tables, tmp_path, capsys):
    rows = tables["images", "test"]
    rows[0].pop("license")
    refused(tables, tmp_path, capsys, "images/test.parquet: ", "no column 'license'")
    del tables["images", "test"]
    (tmp_path / "images/test.parquet").write_bytes(b"no table")
    refused(tables, tmp_path, capsys, "images/test.parquet: ")
    (tmp_path / "images/test.parquet").unlink()
    refused(tables, tmp_path, capsys, "images/test.parquet: no such file")
