"""The microphone of a real browser, which hears a file, is drawn again and again."""

import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from browsers import open_browser, wait
from selenium.webdriver.common.by import By
from test_demo import DOG_AND_BIRD

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.demo import live_tab, live_window
from avgas_pipeline.demo.hearing import Listener
from avgas_pipeline.demo.serving import served


@pytest.fixture(scope="module")
def windows():
    """Those of all microphones."""
    made = []

    class NotedWindow(live_window.LiveWindow):
        def __init__(self, listener):
            super().__init__(listener)
            made.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live_tab, "LiveWindow", NotedWindow)
        yield made


@pytest.fixture(scope="module")
def url(windows):
    with served(Listener(AVGASPipeline.from_pretrained("avgas-mini")), {}, port=0) as address:
        yield address


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    samples, rate = soundfile.read(DOG_AND_BIRD)
    path = tmp_path_factory.mktemp("microphone") / "sound.wav"
    soundfile.write(path, np.tile(samples, 6), rate, subtype="PCM_16")
    with open_browser(microphone=path) as driver:
        yield driver


def rate(browser):
    found = re.search(r"([\d.]+) pictures a second", text(browser))
    return float(found[1]) if found else 0.0


def text(browser):
    return browser.find_element(By.ID, "live-said").text + browser.find_element(By.ID, "live").text


@pytest.mark.slow
def test_the_microphone_is_drawn_again_and_again(url, browser):
    browser.get(url)
    tab = wait(browser, lambda page: page.find_elements(By.XPATH, "//button[@role='tab'][contains(., 'Live')]"))
    tab[0].click()
    wait(browser, lambda page: page.find_element(By.CSS_SELECTOR, "#live-microphone button.record-button")).click()
    wait(browser, lambda page: page.find_elements(By.CSS_SELECTOR, "#live img"))
    wait(browser, lambda page: "dog barking" in text(page) or "bird chirping" in text(page))
    # Several pictures, and both of what the microphone hears.
    wait(browser, lambda page: rate(page) >= 0.5)
    wait(browser, lambda page: "dog barking" in text(page) and "bird chirping" in text(page))
    # Screen readers say what is heard, and not each picture.
    assert browser.find_elements(By.CSS_SELECTOR, "#live-said [role=status]")
    assert not browser.find_elements(By.CSS_SELECTOR, "#live [role=status]")
    assert browser.find_element(By.CSS_SELECTOR, "#live img").get_attribute("alt").startswith("Drawing of ")


@pytest.mark.slow
def test_it_stops_when_nobody_looks(url, browser, windows):
    script = """
        Object.defineProperty(document, "hidden", {value: true, configurable: true});
        document.dispatchEvent(new Event("visibilitychange"));
    """
    browser.execute_script(script)
    wait(browser, lambda page: page.find_elements(By.CSS_SELECTOR, "#live-microphone button.record-button"))

    def is_still(page):
        before = text(page)
        time.sleep(4)
        return text(page) == before

    wait(browser, is_still)
    assert len(windows) == 1 and windows[0].is_closed


@pytest.mark.slow
def test_it_ends_by_itself_and_keeps_no_voice(url, browser, windows, monkeypatch):
    monkeypatch.setattr(live_window, "LIMIT_S", 4.0)
    browser.execute_script("Object.defineProperty(document, 'hidden', {value: false, configurable: true});")
    browser.find_element(By.CSS_SELECTOR, "#live-microphone button.record-button").click()
    wait(browser, lambda page: page.find_elements(By.CSS_SELECTOR, "#live-microphone button.stop-button"))
    wait(browser, lambda page: "ended by itself" in text(page))
    wait(browser, lambda page: page.find_elements(By.CSS_SELECTOR, "#live-microphone button.record-button"))
    assert windows[-1].is_closed
    # What is on its way when it ends, or was passed over.
    wait(browser, lambda _: not list(Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*.wav")))


@pytest.mark.slow
def test_the_voice_of_who_leaves_is_gone(url, browser, windows):
    browser.get(url)
    wait(browser, lambda page: page.find_elements(By.XPATH, "//button[@role='tab'][contains(., 'Live')]"))[0].click()
    wait(browser, lambda page: page.find_element(By.CSS_SELECTOR, "#live-microphone button.record-button")).click()
    wait(browser, lambda page: page.find_elements(By.CSS_SELECTOR, "#live img"))
    assert not windows[-1].is_closed
    browser.get("about:blank")
    wait(browser, lambda _: windows[-1].is_closed)
