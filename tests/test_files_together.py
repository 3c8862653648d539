"""Several files that belong together replace earlier ones, whoever is killed in between and whoever else writes."""

import json
import multiprocessing
import os
import signal

import pytest

from avgas_pipeline import files
from avgas_pipeline.data.text_files import read_json
from avgas_pipeline.files import atomic_files, atomic_folder, atomic_path, remove_folder, remove_partial


def write(folder, number, *names):
    """Files with a number in them, and an index of them that has it, too."""
    with atomic_files(folder, "index.json", listed) as new:
        for name in names:
            (new / name).write_text(str(number))
        (new / "index.json").write_text(json.dumps({"number": number, "names": names}))


def listed(index):
    try:
        return read_json(index)["names"]
    except (OSError, ValueError):
        return ()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def whole(folder):
    """Whether the index, if there is one, says of every file what it is, and lists all there are."""
    if not (folder / "index.json").exists():
        return True
    index = read_json(folder / "index.json")
    found = {path.name: path.read_text() for path in folder.iterdir() if path.name[0] != "." and path.suffix == ""}
    return found == dict.fromkeys(index["names"], str(index["number"]))


def in_a_fork(function, *arguments):
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    return process


def killed_at(step, folder, *arguments):
    """Writes, and is killed before a certain change of the folder."""
    count = 0

    def count_down(change):
        def wrapped(*args, **kwargs):
            nonlocal count
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return change(*args, **kwargs)

        return wrapped

    files.os.replace = count_down(os.replace)
    files.Path.unlink = count_down(files.Path.unlink)
    write(folder, *arguments)


@pytest.mark.parametrize("step", range(1, 9))
def test_a_kill_leaves_no_mixture_and_the_next_call_clears_it_away(tmp_path, step):
    write(tmp_path, 1, "a", "b", "c")
    (tmp_path / "mine.txt").write_text("stays")
    process = in_a_fork(killed_at, step, tmp_path, 2, "a", "d", "e")
    process.join()
    assert (process.exitcode == -signal.SIGKILL) == (step < 8) and whole(tmp_path)
    write(tmp_path, 3, "a")
    assert names(tmp_path) == ["a", "index.json", "mine.txt"] and whole(tmp_path)


def test_an_error_leaves_everything_as_it_was(tmp_path):
    write(tmp_path / "old", 1, "a", "b")
    for folder in (tmp_path / "old", tmp_path / "new"):
        with pytest.raises(ZeroDivisionError), atomic_files(folder, "index.json") as new:
            (new / "a").write_text("2")
            raise ZeroDivisionError
    assert names(tmp_path) == ["old"] and names(tmp_path / "old") == ["a", "b", "index.json"]
    assert whole(tmp_path / "old")


def test_a_folder_in_the_way_changes_nothing(tmp_path):
    write(tmp_path, 1, "a", "b")
    (tmp_path / "z").mkdir()
    with pytest.raises(IsADirectoryError, match="z: is a folder"):
        write(tmp_path, 2, "a", "z")
    assert names(tmp_path) == ["a", "b", "index.json", "z"]
    assert (tmp_path / "a").read_text() == "1"


def test_an_index_that_lists_a_folder_removes_none(tmp_path):
    write(tmp_path, 1, "a", "b")
    (tmp_path / "b").unlink()
    (tmp_path / "b").mkdir()
    write(tmp_path, 2, "a")
    assert names(tmp_path) == ["a", "b", "index.json"]


def write_often(folder, number):
    for _ in range(30):
        write(folder, number, "a", f"only-{number}")


def test_two_processes_at_once_give_the_results_of_one(tmp_path):
    processes = [in_a_fork(write_often, tmp_path, number) for number in (1, 2, 3)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert whole(tmp_path) and len(names(tmp_path)) == 3


def begin_and_wait(folder, begun, go_on):
    file, part = atomic_path(folder / "file.txt"), atomic_folder(folder / "folder")
    with file as file, part as part, atomic_files(folder / "many", "index.json") as many:
        for path in (file, part / "x", many / "index.json"):
            path.write_text("x")
        begun.set()
        go_on.wait()


def test_what_a_live_process_writes_is_no_leftover(tmp_path):
    context = multiprocessing.get_context("fork")
    begun, go_on = context.Event(), context.Event()
    process = in_a_fork(begin_and_wait, tmp_path, begun, go_on)
    begun.wait()
    write(tmp_path / "many", 1, "a")
    remove_partial(tmp_path)
    go_on.set()
    process.join()
    assert process.exitcode == 0
    assert names(tmp_path) == ["file.txt", "folder", "many"] and names(tmp_path / "many") == ["a", "index.json"]


def test_leftovers_of_a_dead_process_go_with_the_next_results(tmp_path):
    context = multiprocessing.get_context("fork")
    begun, go_on = context.Event(), context.Event()
    process = in_a_fork(begin_and_wait, tmp_path, begun, go_on)
    begun.wait()
    process.kill()
    process.join()
    assert len(names(tmp_path / "many")) == 1
    write(tmp_path / "many", 1, "a")
    assert names(tmp_path / "many") == ["a", "index.json"]


def remove_partial_often(folder):
    while (folder / "go").exists():
        remove_partial(folder)


def test_cleaning_at_the_same_moment_takes_nothing_away(tmp_path):
    (tmp_path / "go").touch()
    process = in_a_fork(remove_partial_often, tmp_path)
    for number in range(300):
        write(tmp_path / "many", number, "a")
    (tmp_path / "go").unlink()
    process.join()
    assert whole(tmp_path / "many") and names(tmp_path / "many") == ["a", "index.json"]


def test_a_removed_folder_is_gone_at_once(tmp_path):
    (tmp_path / "folder/sub").mkdir(parents=True)
    remove_folder(tmp_path / "folder")
    remove_folder(tmp_path / "folder")
    assert names(tmp_path) == []


def killed_in_removal(folder):
    files.shutil.rmtree = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
    remove_folder(folder)


def test_a_removal_that_is_killed_leaves_no_half_a_folder(tmp_path):
    (tmp_path / "folder").mkdir()
    in_a_fork(killed_in_removal, tmp_path / "folder").join()
    assert not (tmp_path / "folder").exists() and len(names(tmp_path)) == 1
    remove_partial(tmp_path)
    assert names(tmp_path) == []


def test_a_name_as_long_as_can_be(tmp_path):
    path = tmp_path / ("x" * 251 + ".txt")
    with atomic_path(path) as partial:
        partial.write_text("x")
    assert path.read_text() == "x"
