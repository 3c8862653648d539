"""Files and folders appear whole or not at all, whoever is interrupted and whoever else writes."""

import multiprocessing
import os
import signal

import PIL.Image
import pytest

from avgas_pipeline.files import atomic_folder, atomic_path, remove_partial, write_bytes, write_text


class Interrupted(Exception):
    pass


def everything(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


# -- files ----------------------------------------------------------------------------------------------------------


def test_text_and_bytes_into_folders_that_are_made(tmp_path):
    write_text(tmp_path / "a/b/text.txt", "Zoë\n")
    write_bytes(str(tmp_path / "a/data.bin"), b"\x00\xff")
    assert (tmp_path / "a/b/text.txt").read_bytes() == "Zoë\n".encode()
    assert (tmp_path / "a/data.bin").read_bytes() == b"\x00\xff"
    assert everything(tmp_path) == ["a", "a/b", "a/b/text.txt", "a/data.bin"]


def test_text_that_is_not_unicode(tmp_path):
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "name.txt", "caf\udce9")
    assert everything(tmp_path) == []
    write_text(tmp_path / "name.txt", "caf\udce9", errors="backslashreplace")
    assert (tmp_path / "name.txt").read_text() == r"caf\udce9"


@pytest.mark.parametrize("error", [Interrupted, KeyboardInterrupt])
def test_an_interrupted_write_leaves_nothing_of_itself_and_the_old_file(tmp_path, error):
    for before in ([], ["file"]):
        with pytest.raises(error), atomic_path(tmp_path / "file") as partial:
            partial.write_text("half")
            raise error
        assert everything(tmp_path) == before
        write_text(tmp_path / "file", "old")
    assert (tmp_path / "file").read_text() == "old"


def test_the_old_file_stays_until_the_end(tmp_path):
    write_text(tmp_path / "file", "old")
    with atomic_path(tmp_path / "file") as partial:
        partial.write_text("new")
        assert (tmp_path / "file").read_text() == "old"
    assert (tmp_path / "file").read_text() == "new"
    assert everything(tmp_path) == ["file"]


def test_the_suffix_says_what_is_written(tmp_path):
    with atomic_path(tmp_path / "picture.png") as partial:
        PIL.Image.new("RGB", (4, 4)).save(partial)
    assert PIL.Image.open(tmp_path / "picture.png").format == "PNG"


def write_often(path, letter):
    for _ in range(100):
        write_text(path, letter * 100_000)


def test_processes_that_write_one_file_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_often, args=(tmp_path / "file", letter)) for letter in "ab"]
    for writer in writers:
        writer.start()
    while not (tmp_path / "file").exists():
        pass
    while any(writer.is_alive() for writer in writers):
        text = (tmp_path / "file").read_text()
        assert text in ("a" * 100_000, "b" * 100_000)
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert everything(tmp_path) == ["file"]


# -- folders --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exists", [False, True], ids=["new", "empty"])
def test_a_folder_appears_with_all_that_is_in_it(tmp_path, exists):
    path = tmp_path / "deep/folder"
    if exists:
        path.mkdir(parents=True)
    with atomic_folder(path) as partial:
        (partial / "sub").mkdir()
        (partial / "sub/file").write_text("x")
        assert not exists or not any(path.iterdir())
    assert everything(tmp_path) == ["deep", "deep/folder", "deep/folder/sub", "deep/folder/sub/file"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_interrupted_folder_leaves_nothing_of_itself_and_the_old_one(tmp_path, overwrite):
    if overwrite:
        write_text(tmp_path / "folder/old", "")
    before = everything(tmp_path)
    with pytest.raises(Interrupted), atomic_folder(tmp_path / "folder", overwrite=overwrite) as partial:
        (partial / "new").touch()
        raise Interrupted
    assert everything(tmp_path) == before


def test_a_folder_that_holds_something_is_replaced_only_where_asked_for(tmp_path):
    write_text(tmp_path / "folder/old", "")
    with pytest.raises(FileExistsError, match="folder: exists already"), atomic_folder(tmp_path / "folder"):
        pytest.fail("the work began")
    assert everything(tmp_path) == ["folder", "folder/old"]
    with atomic_folder(tmp_path / "folder", overwrite=True) as partial:
        (partial / "new").touch()
    assert everything(tmp_path) == ["folder", "folder/new"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_is_not_replaced_by_a_folder(tmp_path, overwrite):
    write_text(tmp_path / "file", "x")
    with pytest.raises(FileExistsError), atomic_folder(tmp_path / "file", overwrite=overwrite):
        pytest.fail("the work began")
    assert everything(tmp_path) == ["file"]


# -- what killed processes leave ------------------------------------------------------------------------------------


def begin_and_die(folder):
    with atomic_path(folder / "a/file") as file, atomic_folder(folder / "folder") as partial:
        file.write_text("half")
        (partial / "half").touch()
        os.kill(os.getpid(), signal.SIGKILL)


def test_leftovers_of_killed_processes_are_removed_and_nothing_else(tmp_path):
    write_text(tmp_path / "a/whole", "x")
    process = multiprocessing.get_context("fork").Process(target=begin_and_die, args=(tmp_path,))
    process.start()
    process.join()
    assert len(everything(tmp_path)) == 5
    remove_partial(tmp_path)
    assert everything(tmp_path) == ["a", "a/whole"]
