"""Debian's chromium, headless, as tests of web pages want it."""

import shutil
from contextlib import contextmanager

import pytest
from selenium import webdriver
from selenium.webdriver.support.wait import WebDriverWait


@contextmanager
def open_browser(downloads=None, microphone=None, size=(1280, 1400), is_dark=False):
    """A browser; `microphone` is a WAV file that it hears again and again."""
    if shutil.which("chromedriver") is None:
        pytest.skip("needs Debian's chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    arguments.append(f"--window-size={size[0]},{size[1]}")
    if is_dark:
        arguments.append("--force-dark-mode")
    if microphone is not None:
        arguments += ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        arguments.append(f"--use-file-for-fake-audio-capture={microphone}")
    for argument in arguments:
        options.add_argument(argument)
    if downloads is not None:
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


def wait(browser, condition, seconds=60):
    """What a condition gives once it is true."""
    return WebDriverWait(browser, seconds).until(condition)
