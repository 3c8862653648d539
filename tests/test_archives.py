"""Archives and folders that hold something else than videos of a sensible size."""

import gzip
import io
import os
import shutil
import subprocess
import tarfile

import pytest
from vggsound_tree import GOOD, add

from avgas_pipeline.data.archives import read_shard
from avgas_pipeline.data.builder import VGGSound
from avgas_pipeline.data.layouts.vggsound import find_shards, find_videos
from avgas_pipeline.data.report import SkipReport
from avgas_pipeline.data.video import MAX_VIDEO_BYTES, SkipClipError, read_video_clip


FIRST, SECOND, *_ = GOOD


class Zeros(io.RawIOBase):
    """Zeros without end."""

    def read(self, size=-1):
        return bytes(size)


def member(name, size=0, kind=tarfile.REGTYPE):
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, "x" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
    return info


def read(path):
    """What is read of an archive, and what was left out."""
    skipped = SkipReport()
    found = dict(read_shard(str(path), set(GOOD), skipped))
    return found, {entry["clip"]: entry["reason"] for entry in skipped.entries}


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs tar")
@pytest.mark.parametrize("form", ["gnu", "pax", "pax --sparse-version=0.1", "pax --sparse-version=0.0"])
def test_sparse_members_are_refused(form, tmp_path):
    with open(tmp_path / f"{FIRST}.mp4", "wb") as file:
        file.truncate(4 * 2**30)
    (tmp_path / f"{SECOND}.mp4").write_bytes(b"video")
    command = f"tar --sparse --format={form} -cf a.tar ./{FIRST}.mp4 ./{SECOND}.mp4"
    subprocess.run(command.split(), cwd=tmp_path, check=True)
    (tmp_path / f"{FIRST}.mp4").unlink()
    assert (tmp_path / "a.tar").stat().st_size < 50_000
    assert read(tmp_path / "a.tar") == ({SECOND: b"video"}, {FIRST: "sparse"})


def test_members_above_the_limit_are_left_out(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(member(f"{FIRST}.mp4", MAX_VIDEO_BYTES + 1), Zeros())
        add(archive, f"{SECOND}.mp4", b"video")
    assert read(tmp_path / "a.tar") == ({SECOND: b"video"}, {FIRST: "too large"})


def test_a_member_that_claims_more_than_there_is(tmp_path):
    (tmp_path / "a.tar").write_bytes(member(f"{FIRST}.mp4", 8 * 2**30).tobuf(tarfile.GNU_FORMAT) + bytes(2000))
    assert read(tmp_path / "a.tar") == ({}, {FIRST: "too large", "a.tar": "damaged shard"})


@pytest.mark.parametrize("name", [f"{FIRST}.mp4", "notes.bin"])
def test_an_archive_that_decompresses_to_much_more_ends(name, tmp_path):
    with (
        gzip.open(tmp_path / "a.tar.gz", "wb", 9) as file,
        tarfile.open(fileobj=file, mode="w|") as archive,
    ):
        add(archive, f"{SECOND}.mp4", b"video")
        archive.addfile(member(name, 150 * 2**20), Zeros())
        add(archive, "a_b_c_d_e_f_000120.mp4", b"behind")
    found, skipped = read(tmp_path / "a.tar.gz")
    assert found == {SECOND: b"video"} and skipped["a.tar.gz"] == "damaged shard"
    assert skipped.get(FIRST) == ("too large" if FIRST in name else None)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_header_is_not_read_without_end(kind, tmp_path):
    size = 100 * 2**20
    with gzip.open(tmp_path / "a.tar.gz", "wb", 1) as file:
        file.write(member("x", size, kind).tobuf(tarfile.GNU_FORMAT) + bytes(size))
        file.write(member(f"{FIRST}.mp4").tobuf(tarfile.GNU_FORMAT))
    assert read(tmp_path / "a.tar.gz") == ({}, {"a.tar.gz": "damaged shard"})


def test_damage_that_tarfile_has_no_error_for(tmp_path):
    info = member(f"{FIRST}.mp4", 5)
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "many"}
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, io.BytesIO(b"video"))
    assert read(tmp_path / "a.tar") == ({}, {"a.tar": "damaged shard"})


@pytest.mark.parametrize("kind", ["FIFOTYPE", "CHRTYPE", "BLKTYPE", "DIRTYPE", "SYMTYPE", "LNKTYPE"])
def test_members_that_are_no_files_are_passed_over(kind, tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(member(f"{FIRST}.mp4", 0, getattr(tarfile, kind)))
        add(archive, f"{SECOND}.mp4", b"video")
    assert read(tmp_path / "a.tar") == ({SECOND: b"video"}, {})


def test_names_that_are_not_text_are_reported(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        add(archive, f"../\udcff/{FIRST}.mp4", b"video")
    skipped = SkipReport(tmp_path / "report.jsonl")
    assert list(read_shard(str(tmp_path / "a.tar"), {FIRST}, skipped)) == []
    assert f"../\\udcff/{FIRST}.mp4" in (tmp_path / "report.jsonl").read_text().replace("\\\\", "\\")


def test_an_archive_of_videos_that_are_no_clips_says_so(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        add(archive, f"{FIRST[:11]}.mp4", b"video")
    skipped = SkipReport()
    assert list(read_shard(str(tmp_path / "a.tar"), {FIRST}, skipped)) == []
    assert "holds 1 videos, none named <id>_<start>" in skipped.entries[0]["detail"]


def test_pipes_folders_and_dead_links_in_a_folder_are_passed_over(clips, tmp_path):
    (tmp_path / "vggsound.csv").write_text("".join(f"{name[:11]},{name[12:]},thunder,train\n" for name in GOOD))
    (tmp_path / f"{FIRST}.mp4").write_bytes(clips[FIRST])
    first, *others = set(GOOD) - {FIRST}
    os.mkfifo(tmp_path / f"{first}.mp4")
    (tmp_path / f"{others[0]}.mp4").mkdir()
    (tmp_path / f"{others[1]}.mp4").symlink_to(tmp_path / "gone.mp4")
    os.mkfifo(tmp_path / "pipe.tar")
    (tmp_path / "folder.tar").mkdir()
    assert find_shards(tmp_path) == []
    assert find_videos(tmp_path) == {FIRST: [str(tmp_path / f"{FIRST}.mp4")]}
    builder = VGGSound(data_dir=str(tmp_path))
    assert [row["id"] for row in builder.as_streaming_dataset("train")] == [FIRST]
    assert builder.skipped.counts == {"missing": 4}


def test_files_above_the_limit_are_left_out(tmp_path):
    with open(tmp_path / "large.mp4", "wb") as file:
        file.truncate(MAX_VIDEO_BYTES + 1)
    with pytest.raises(SkipClipError) as error:
        read_video_clip(tmp_path / "large.mp4")
    assert error.value.reason == "too large"
