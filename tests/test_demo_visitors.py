"""What a visitor of `avgas demo` leaves behind, and what becomes of their files."""

import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from gradio_client import Client, handle_file
from test_demo import DOG_AND_BIRD, QUICK

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.demo import kept
from avgas_pipeline.demo.hearing import Listener
from avgas_pipeline.demo.kept import Kept, Uploads
from avgas_pipeline.demo.serving import served
from avgas_pipeline.demo.words import plain


SAMPLING = (0, 1, 1, 1)


@pytest.fixture(scope="module")
def listener():
    return Listener(AVGASPipeline.from_pretrained("avgas-mini"), max_duration_s=60)


@pytest.fixture(scope="module")
def page(listener, tmp_path_factory):
    """Its address, and the folder of its files."""
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        # Who left is noticed so soon, in seconds.
        patch.setenv("GRADIO_HEARTBEAT_INTERVAL", "0.5")
        with served(listener, {}, port=0, max_file_mb=2) as url:
            yield url, folder


def visit(url):
    return Client(url, verbose=False, download_files=False)


def hear(client, path=DOG_AND_BIRD):
    return client.predict(handle_file(path), None, None, None, *SAMPLING, api_name="/hear")[0]


def files(folder):
    # Some may go meanwhile.
    found = [Path(place, name) for place, _, names in os.walk(folder) for name in names]
    # gradio leaves empty ones.
    return [path for path in found if path.exists() and not path.name.startswith("tmp")]


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_nothing_of_a_visitor_who_left_stays(page):
    url, folder = page
    visitor, other = visit(url), visit(url)
    assert "dog barking" in hear(visitor)
    visitor.predict(*SAMPLING, api_name="/plan_film")
    for what in ("/film", "/archive"):
        visitor.predict(api_name=what)
    assert "dog barking" in hear(other)
    names = {path.name for path in files(folder)}
    results = {"film.mp4", "captions.srt", "storyboard.png", "mixture-dog-bird.zip"}
    assert results | {DOG_AND_BIRD.name} <= names
    visitor.close()
    wait_until(lambda: not results & {path.name for path in files(folder)})
    # The other one uploaded the same file.
    assert {path.name for path in files(folder)} == {DOG_AND_BIRD.name, "recording"}
    other.close()
    wait_until(lambda: not files(folder))


def test_who_leaves_while_being_heard_is_forgotten(page, listener, monkeypatch):
    url, folder = page
    begun, gone, heard = threading.Event(), threading.Event(), []
    forget, original = Kept.forget, listener.hear

    def slowly(*arguments):
        heard.append(original(*arguments))
        begun.set()
        assert gone.wait(60)
        return heard[0]

    monkeypatch.setattr(listener, "hear", slowly)
    monkeypatch.setattr(Kept, "forget", lambda self, visitor: (forget(self, visitor), gone.set()))
    visitor = visit(url)
    # gradio knows a visitor from their first event on.
    visitor.predict(api_name="/archive")
    visitor.submit(handle_file(DOG_AND_BIRD), None, None, None, *SAMPLING, api_name="/hear")
    assert begun.wait(30)
    visitor.close()
    wait_until(lambda: heard and heard[0].is_closed)
    wait_until(lambda: not files(folder))


def test_who_comes_back_is_kept_again(listener):
    visitors = Kept(2)
    heard = [listener.hear(str(DOG_AND_BIRD), "dogs", QUICK) for _ in range(2)]
    visitors.forget("visitor")
    visitors.put("visitor", heard[0])
    visitors.welcome("visitor")
    visitors.put("visitor", heard[1])
    assert [each.is_closed for each in heard] == [True, False]


def test_what_is_heard_outlives_its_upload(listener, tmp_path):
    path = tmp_path / "upload.flac"
    shutil.copy(DOG_AND_BIRD, path)
    heard = listener.hear(str(path), "dogs", QUICK, within=tmp_path)
    path.unlink()
    listener.plan_film(heard, QUICK)
    assert heard.archive().exists() and listener.film(heard)[0].exists()
    first, second = heard.archive(), heard.archive()
    assert first != second and not first.exists() and second.exists()
    heard.close()
    assert not list(tmp_path.iterdir())


def test_a_recording_that_cannot_be_heard_leaves_nothing(listener, tmp_path):
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
    with pytest.raises(ValueError):
        listener.hear(str(tmp_path / "silent.wav"), "silent.wav", QUICK, within=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["silent.wav"]
    with pytest.raises(FileNotFoundError) as raised:
        listener.hear(str(tmp_path / "gone.wav"), "gone.wav", QUICK)
    assert plain(raised.value, "gone.wav", 60) == "gone.wav: is not there any more; choose it once more."


def test_errors_do_not_say_where_files_lie(listener, tmp_path):
    heard = listener.hear(str(DOG_AND_BIRD), "dogs", QUICK)
    shutil.rmtree(heard.folder)
    for make in (heard.archive, lambda: listener.plan_film(heard, QUICK) or listener.film(heard)):
        with pytest.raises(OSError) as raised:
            make()
        assert str(heard.folder) not in plain(raised.value, "dogs", 60)
    full = OSError(28, "No space left on device", "/srv/own/file")
    assert plain(full, "dogs", 60) == "dogs: can't be kept here (No space left on device)."


def test_results_that_are_late_do_not_stay(listener, tmp_path, monkeypatch):
    heard = listener.hear(str(DOG_AND_BIRD), "dogs", QUICK, within=tmp_path)
    with heard.results("film") as folder:
        heard.close()
        folder.mkdir(parents=True)
        (folder / "film.mp4").write_bytes(b"film")
    assert not list(tmp_path.iterdir())


def test_uploads_are_removed_with_the_last_who_has_them(tmp_path):
    page, outside = tmp_path / "page", tmp_path / "own.wav"
    uploads, path = Uploads(page), page / "digest" / "sound.wav"
    path.parent.mkdir(parents=True)
    for each in (path, outside):
        each.write_bytes(b"sound")
    uploads.add("first", str(path), None, str(outside))
    uploads.add("second", str(path))
    uploads.forget("first")
    assert path.exists() and outside.exists()
    uploads.forget("second")
    assert not path.parent.exists() and page.exists()


def test_blocks_that_nobody_asked_for_are_swept(tmp_path, monkeypatch):
    old, new, known, other = (tmp_path / name for name in ("1/audio.wav", "2/audio.wav", "3/audio.wav", "4/dogs.wav"))
    for path in (old, new, known, other):
        path.parent.mkdir()
        path.write_bytes(b"sound")
        if path != new:
            os.utime(path, (0, 0))
    monkeypatch.setattr(kept, "PASSED_OVER_S", 5.0)
    uploads = Uploads(tmp_path)
    uploads.add("visitor", str(known))
    uploads.sweep()
    assert not old.exists() and all(path.exists() for path in (new, known, other))
    monkeypatch.setattr(kept, "PASSED_OVER_S", 0.0)
    uploads.sweep_soon()
    wait_until(lambda: not new.exists())
    assert known.exists() and other.exists()


def test_others_are_heard_while_a_film_is_written(page, listener, monkeypatch):
    url, _ = page
    written, film = threading.Event(), listener.film

    def slowly(heard):
        assert written.wait(60)
        return film(heard)

    monkeypatch.setattr(listener, "film", slowly)
    visitor, other = visit(url), visit(url)
    hear(visitor)
    visitor.predict(*SAMPLING, api_name="/plan_film")
    job = visitor.submit(api_name="/film")
    try:
        assert "dog barking" in hear(other) and not job.done()
    finally:
        written.set()
    assert "The film is below" in job.result()[0]
    visitor.close()
    other.close()
