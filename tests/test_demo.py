"""`avgas demo`: a recording is heard once and drawn as often as its sliders move, in a real browser."""

import http.client
import importlib.metadata
import io
import json
import re
import socket
import zipfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import gradio as gr
import numpy as np
import PIL.Image
import psutil
import pytest
import soundfile
from axe_core_python.selenium import Axe
from browsers import open_browser, wait
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from typer.testing import CliRunner

import avgas_pipeline
from avgas_pipeline import AVGASPipeline
from avgas_pipeline.cli import app
from avgas_pipeline.demo import live_tab, live_window, serving
from avgas_pipeline.demo.hearing import UNWANTED, Listener, Sampling
from avgas_pipeline.demo.kept import Kept
from avgas_pipeline.demo.live_tab import read_block
from avgas_pipeline.demo.live_window import LiveWindow
from avgas_pipeline.demo.serving import MAX_BODY_BYTES, AddressError, find_examples, free_port, served
from avgas_pipeline.demo.words import plain
from avgas_pipeline.pipeline_output import AVGASPipelineOutput


EXAMPLES = Path(__file__).parents[1] / "examples"
DOG_AND_BIRD = EXAMPLES / "mixture-dog-bird.flac"
QUICK = Sampling(seed=0, num_inference_steps=1, guidance_scale=1.0)


@pytest.fixture(scope="module")
def listener():
    return Listener(AVGASPipeline.from_pretrained("avgas-mini"), max_duration_s=60)


@pytest.fixture(scope="module")
def url(listener):
    with served(listener, find_examples(), port=0, max_file_mb=2) as address:
        yield address


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    folder = tmp_path_factory.mktemp("downloads")
    with open_browser(downloads=folder) as driver:
        driver.downloads = folder
        yield driver


def text_of(browser, name):
    return browser.find_element(By.ID, name).text


def picture_of(browser, name):
    return browser.find_element(By.CSS_SELECTOR, f"#{name} img").get_attribute("src")


def choose(browser, example):
    field = browser.find_element(By.CSS_SELECTOR, "#example input")
    field.click()
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(example, Keys.ENTER)
    browser.find_element(By.ID, "go").click()


def test_a_recording_is_heard_once_and_drawn_again(listener, url, browser, monkeypatch):
    encode, encoded = listener.pipe.encode_audio, []
    monkeypatch.setattr(listener.pipe, "encode_audio", lambda *a, **k: encoded.append(a) or encode(*a, **k))
    browser.get(url)
    wait(browser, lambda page: page.find_elements(By.ID, "go"))
    choose(browser, "mixture-dog-bird")
    wait(browser, lambda page: "dog barking" in text_of(page, "status"))
    assert "bird chirping" in text_of(browser, "card-0") + text_of(browser, "card-1")
    assert browser.find_element(By.CSS_SELECTOR, "#mixed img").get_attribute("alt").startswith("Drawing of ")
    assert browser.find_elements(By.CSS_SELECTOR, "#card-0 audio[aria-label]")
    before = picture_of(browser, "mixed")
    slider = browser.find_element(By.CSS_SELECTOR, "#weight-0 input[type=range]")
    slider.send_keys(Keys.HOME)
    wait(browser, lambda page: picture_of(page, "mixed") != before)
    lighter = picture_of(browser, "mixed")
    browser.find_element(By.CSS_SELECTOR, "#mute-1 input").click()
    wait(browser, lambda page: picture_of(page, "mixed") != lighter)
    assert len(encoded) == 1
    # It is written after the picture.
    wait(browser, lambda page: page.find_element(By.ID, "download").is_displayed())
    browser.find_element(By.ID, "download").click()
    (path,) = wait(browser, lambda page: list(page.downloads.glob("*.zip")))
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        assert {"mixed.png", "overview.png", "sources.json"} <= names
        sounds = [name for name in names if name.endswith(".wav")]
        assert sounds and soundfile.read(io.BytesIO(archive.read(sounds[0])))[0].size


def test_the_one_that_was_chosen_last_is_heard(url, browser):
    browser.find_element(By.CSS_SELECTOR, "#recording input[type=file]").send_keys(str(EXAMPLES / "Farm1.wav"))
    wait(browser, lambda page: page.find_element(By.CSS_SELECTOR, "#example input").get_attribute("value") == "")
    browser.find_element(By.ID, "go").click()
    wait(browser, lambda page: "sheep bleating" in text_of(page, "status"))
    choose(browser, "mixture-dog-bird")
    wait(browser, lambda page: "dog barking" in text_of(page, "status"))


def test_each_picture_and_sound_is_saved_by_its_name(url, browser):
    label = browser.find_element(By.CSS_SELECTOR, "#card-0 h2").text.split(",")[0].replace(" ", "-")
    for button in browser.find_elements(By.CSS_SELECTOR, "#card-0 .avgas-save"):
        button.click()
    (picture,) = wait(browser, lambda page: list(page.downloads.glob(f"{label}*.png")))
    (sound,) = wait(browser, lambda page: list(page.downloads.glob(f"{label}*.mp3")))
    assert PIL.Image.open(picture).size == (256, 256)
    assert np.abs(soundfile.read(sound)[0]).max() > 0.01


def test_a_film_is_made(url, browser):
    browser.find_element(By.ID, "make-film").click()
    video = wait(browser, lambda page: page.find_elements(By.CSS_SELECTOR, "#film video"))[0]
    wait(browser, lambda page: page.execute_script("return arguments[0].duration", video))
    assert browser.execute_script("return arguments[0].duration", video) == pytest.approx(5, abs=0.1)
    files = browser.find_element(By.ID, "film-files").text
    assert all(part in files for part in ("captions", ".vtt", ".srt", "storyboard"))


def test_axe_finds_no_serious_fault(url, browser):
    for tab in ("Live", "A recording"):
        browser.find_element(By.XPATH, f"//button[@role='tab'][contains(., '{tab}')]").click()
        found = Axe().run(browser)["violations"]
        serious = [each for each in found if each["impact"] in ("serious", "critical")]
        assert not serious, [(each["id"], [node["html"][:200] for node in each["nodes"]]) for each in serious]


def test_controls_have_labels_and_pictures_have_words(url, browser):
    for field in browser.find_elements(By.CSS_SELECTOR, "input, select, textarea"):
        if field.is_displayed():
            name = field.accessible_name
            assert name, field.get_attribute("outerHTML")[:200]
    for picture in browser.find_elements(By.TAG_NAME, "img"):
        assert picture.get_attribute("alt") is not None


def test_a_silent_recording_is_said_plainly(listener, tmp_path):
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
    with pytest.raises(ValueError) as raised:
        listener.hear(str(tmp_path / "silent.wav"), "silent.wav", QUICK)
    assert plain(raised.value, "silent.wav", 60) == "silent.wav: this recording is silent."
    with pytest.raises(ValueError) as raised:
        listener.hear(str(DOG_AND_BIRD), "silent-forest.flac", QUICK, negative=str(tmp_path / "silent.wav"))
    assert plain(raised.value, "silent-forest.flac", 60) == f"{UNWANTED}: this recording is silent."
    heard = listener.hear(str(DOG_AND_BIRD), "dogs", QUICK)
    with pytest.raises(ValueError) as raised:
        listener.draw(heard, [0.0, 0.0], QUICK)
    assert plain(raised.value, "dogs", 60) == "Every sound is muted, so nothing is left to draw."
    assert plain(ValueError("Soundscape 0: is damaged."), "dogs", 60) == "is damaged."
    soundfile.write(tmp_path / "long.wav", np.zeros(61 * 8000), 8000)
    with pytest.raises(ValueError) as raised:
        listener.hear(str(tmp_path / "long.wav"), "silent-forest.wav", QUICK)
    said = plain(raised.value, "silent-forest.wav", 600)
    assert said.startswith("silent-forest.wav: is longer than 10 minutes, the most")
    with pytest.raises(ValueError) as raised:
        listener.hear(str(DOG_AND_BIRD), "dogs", QUICK, negative=str(tmp_path / "long.wav"))
    assert plain(raised.value, "dogs", 600).startswith(f"{UNWANTED}: is longer than")


def test_sources_are_drawn_again_in_another_way(listener):
    heard = listener.hear(str(DOG_AND_BIRD), "dogs", QUICK)
    before = [np.asarray(source.images[0]) for source in heard.sources]
    assert not listener.draw(heard, [0.5, 1.0], QUICK)
    assert listener.draw(heard, [0.0, 1.0], replace(QUICK, seed=5))
    names = [source.name for source in heard.sources]
    fresh = listener.hear(str(DOG_AND_BIRD), "dogs", replace(QUICK, seed=5))
    assert names == [source.name for source in fresh.sources] and heard.weights == [0.0, 1.0]
    for source, other, old in zip(heard.sources, fresh.sources, before, strict=True):
        np.testing.assert_array_equal(source.images[0], other.images[0])
        assert np.abs(np.asarray(source.images[0]) - old.astype(float)).mean() > 0


def test_recordings_are_forgotten(listener):
    kept, heard = Kept(2), [listener.hear(str(DOG_AND_BIRD), "dogs", QUICK) for _ in range(4)]
    folders = [each.folder for each in heard]
    kept.put("first", heard[0])
    kept.put("first", heard[1])
    assert [each.is_closed for each in heard] == [True, False, False, False]
    kept.put("second", heard[2])
    kept.forget("second")
    kept.forget("nobody")
    assert [each.is_closed for each in heard] == [True, False, True, False]
    kept.put("third", heard[3])
    kept.put("fourth", listener.hear(str(DOG_AND_BIRD), "dogs", QUICK))
    assert [folder.exists() for folder in folders] == [False, False, False, True]


def test_visitors_have_their_own(listener):
    heard = [listener.hear(str(path), path.name, QUICK) for path in (DOG_AND_BIRD, EXAMPLES / "Farm1.wav")]
    assert {source.name for source in heard[1].sources} == {"sheep bleating"}
    archives = [each.archive() for each in heard]
    assert archives[0] != archives[1]
    for each, path in zip(heard, archives, strict=True):
        each.close()
        assert not path.exists()


def test_the_microphone_is_drawn_again_and_again(listener, monkeypatch):
    samples, rate = soundfile.read(DOG_AND_BIRD, dtype="float32")
    window, found = LiveWindow(listener), set()
    assert window.draw(0) == (None, [])
    for start in range(0, len(samples), rate // 2):
        window.add(rate, samples[start : start + rate // 2])
        image, sources = window.draw(0)
        found |= {source.name for source in sources}
        assert image is None or image.size == listener.pipe.default_size[::-1]
    assert {"dog barking", "bird chirping, tweeting"} <= found
    assert not window.is_news
    window.add(rate, np.zeros(5 * rate, np.float32))
    assert window.is_news
    with pytest.raises(ValueError, match="silent"):
        window.draw(0)
    monkeypatch.setattr(live_window, "LIMIT_S", 0.0)
    window.add(rate, samples)
    assert window.is_over and not window.is_news


def test_a_voice_is_not_kept_when_listening_stops(listener):
    window = LiveWindow(listener)
    window.add(16000, np.ones(16000, np.float32))
    window.close()
    assert not window.is_news and window.draw(0) == (None, [])
    # What is on its way.
    window.add(16000, np.ones(16000, np.float32))
    assert window.draw(0) == (None, [])


def test_the_rate_is_that_of_the_last_seconds(listener, monkeypatch):
    clock, window = [100.0], LiveWindow(listener)
    monkeypatch.setattr(live_window.time, "monotonic", lambda: clock[0])
    assert window.pictures_per_second() == 0
    monkeypatch.setattr(listener, "quick_pipe", FakePipe())
    window.add(16000, np.ones(16000, np.float32))
    # Four a second, and one every two seconds.
    for pause, count, rate in ((0.25, 41, 4.0), (2.0, 10, 0.5)):
        for _ in range(count):
            clock[0] += pause
            window.draw(0)
        assert window.pictures_per_second() == pytest.approx(rate, abs=0.11)
    clock[0] += 10
    assert window.pictures_per_second() == 0


class FakePipe:
    def encode_audio(self, *_, **__):
        return {}

    def __call__(self, **_):
        return AVGASPipelineOutput(images=[None], sources=[[]])


def test_what_is_said_is_new(listener):
    window = LiveWindow(listener)
    assert "dog, rain" in live_tab._said(window, "dog", "rain")
    assert live_tab._said(window, "rain", "dog") == gr.skip()
    assert 'role="status"' in live_tab._said(window, "rain") and "dog" in live_tab._said(window, "dog", "rain")


def test_only_short_wav_files_are_read_as_blocks_of_a_microphone(tmp_path, monkeypatch):
    path = tmp_path / "block.wav"
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (4800, 2)).astype(np.float32)
    soundfile.write(path, samples, 48000, format="WAV", subtype="PCM_16")
    rate, block = read_block(str(path))
    assert rate == 48000
    np.testing.assert_allclose(block, samples.mean(axis=1), atol=1e-4)
    monkeypatch.setattr(soundfile, "read", None)
    for seconds, rate, kind, word in (
        (11, 8000, ("WAV", "PCM_16"), "too long"),
        (1, 400_000, ("WAV", "PCM_16"), "too long"),
        (60, 48000, ("WAV", "PCM_16"), "too large"),
        (1, 8000, ("WAV", "IMA_ADPCM"), "not WAV"),
        (3600, 8000, ("FLAC", "PCM_16"), "not WAV"),
        (1, 8000, ("AIFF", "PCM_16"), "not WAV"),
    ):
        soundfile.write(path, np.zeros(seconds * rate, np.int16), rate, format=kind[0], subtype=kind[1])
        with pytest.raises(ValueError, match=word):
            read_block(str(path))


def ask(url, path, body=b"", headers=()):
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
    try:
        connection.request("POST" if body else "GET", path, body or None, dict(headers))
        return connection.getresponse().status
    finally:
        connection.close()


def test_results_are_written_where_the_package_is_not_installed(listener, monkeypatch):
    """As in a Space, which has a copy of it."""
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version(name.replace("avgas", "no-such")))
    heard = listener.hear(str(DOG_AND_BIRD), "dogs", QUICK)
    with zipfile.ZipFile(heard.archive()) as archive:
        assert json.loads(archive.read("sources.json"))["version"] == avgas_pipeline.__version__
    listener.plan_film(heard, QUICK)
    assert listener.film(heard)[0].exists()


def test_what_is_too_much_is_refused(url):
    assert ask(url, "/") == 200
    assert ask(url, "/gradio_api/queue/join", b"x" * (MAX_BODY_BYTES + 1)) == 413
    assert ask(url, "/gradio_api/upload", b"x" * 4_000_000, {"Content-Type": "multipart/form-data; boundary=x"}) == 413
    assert ask(url, "/", headers={"Host": "elsewhere.example"}) == 400
    parts = (b"x" * 100_000 for _ in range(60))
    kind = {"Content-Type": "multipart/form-data; boundary=x", "Transfer-Encoding": "chunked"}
    try:
        refused = ask(url, "/gradio_api/upload", parts, kind) == 413
    except ConnectionError:
        # It hung up before all was sent.
        refused = True
    assert refused
    assert ask(url, "/") == 200
    for path in ("/gradio_api/file=/etc/passwd", "/file=/etc/passwd", "/gradio_api/file=../../etc/passwd"):
        assert ask(url, path) in (403, 404)


def test_nothing_is_fetched_from_an_address(url):
    """gradio would, of any size, and for anybody."""
    file = {"path": "http://127.0.0.1:9/large.wav", "meta": {"_type": "gradio.FileData"}}
    for path in ("HTTPS://example.org/x.wav", " http://127.0.0.1:9/x.wav", "file:///etc/passwd"):
        body = json.dumps({"data": [[{"more": {**file, "path": path}}]], "session_hash": "x"}).encode()
        for route in ("/gradio_api/queue/join", "/gradio_api/run/hear", "/gradio_api/call/hear"):
            assert ask(url, route, body, {"Content-Type": "application/json"}) == 400


def test_two_gigabytes_and_a_hundred_open_connections_do_no_harm(url):
    parts = urlsplit(url)
    memory = psutil.Process().memory_info().rss
    two_gigabytes = {"Content-Type": "multipart/form-data; boundary=x", "Content-Length": str(2 << 30)}
    for path in ("/gradio_api/upload", "/gradio_api/queue/join"):
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
        connection.putrequest("POST", path)
        for name, value in two_gigabytes.items():
            connection.putheader(name, value)
        connection.endheaders(b"--x")
        assert connection.getresponse().status == 413
        connection.close()
    with ExitStack() as stack:
        for _ in range(100):
            opened = stack.enter_context(socket.create_connection((parts.hostname, parts.port), timeout=30))
            opened.sendall(b"POST /gradio_api/queue/join HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n")
        assert ask(url, "/") == 200
    assert ask(url, "/gradio_api/queue/join", b"x" * 100_000_000) == 413
    assert psutil.Process().memory_info().rss - memory < 300 << 20


def test_a_port_that_is_free_is_found():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        with pytest.raises(AddressError, match="in use"):
            free_port("127.0.0.1", taken)
        assert free_port("127.0.0.1", 0) not in (0, taken)
        result = CliRunner().invoke(app, ["demo", "--port", str(taken)])
    assert result.exit_code == 2 and f"--port {taken}: can't be had (Address already in use)" in result.output
    with pytest.raises(AddressError):
        free_port("no-such-host.invalid", 0)


def test_another_error_is_none_of_the_port(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(serving, "build_page", full)
    result = CliRunner().invoke(app, ["demo", "--port", "0"])
    assert result.exit_code != 0 and "can't be had" not in result.output


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--style", "a sketch of {}"), "--style is for --painter"),
        (("--model", "no/such/folder"), "no/such/folder"),
        (("--max-file", "0"), "--max-file"),
    ],
)
def test_wrong_use_is_one_line(arguments, word):
    result = CliRunner().invoke(app, ["demo", *arguments])
    assert result.exit_code == 2 and word in result.output and not re.search("Traceback", result.output)
