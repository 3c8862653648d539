"""The human study: blind pairs, ratings that survive a crash, and a page served for real."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request

import numpy as np
import PIL.Image
import pytest
from evaluation_data import DATA, write_evaluation_inputs
from filelock import FileLock
from gradio_client import Client
from launching import free_port
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support import expected_conditions
from selenium.webdriver.support.wait import WebDriverWait
from typer.testing import CliRunner

from avgas_pipeline.cli import app
from avgas_pipeline.evaluation.ratings import Rating, RatingFile, pairs_for, preference


def rating(rater="ann", number=0, left="ours", right="theirs", choice="left"):
    return Rating(rater, number, left, right, choice)


# -- pairs ----------------------------------------------------------------------------------------------------------


def test_pairs_are_the_raters_own_and_the_same_every_time():
    ann, again, bob = (pairs_for(name, "ours", "theirs", 100, 20) for name in ("ann", "ann", "bob"))
    assert ann == again
    assert ann != bob
    assert {pair.number for pair in ann} == {pair.number for pair in bob}
    assert len({pair.number for pair in ann}) == 20


def test_sides_are_balanced():
    for rater in ("ann", "bob", "eve"):
        pairs = pairs_for(rater, "ours", "theirs", 50, 40)
        assert sum(pair.left == "ours" for pair in pairs) == 20
        assert all({pair.left, pair.right} == {"ours", "theirs"} for pair in pairs)


def test_no_more_pairs_than_soundscapes():
    assert len(pairs_for("ann", "ours", "theirs", 3, 40)) == 3


# -- ratings --------------------------------------------------------------------------------------------------------


def test_ratings_come_back_and_the_last_counts(tmp_path):
    file = RatingFile(tmp_path / "ratings.jsonl")
    assert file.read() == []
    file.add(rating(choice="left"))
    file.add(rating(rater="bob"))
    file.add(rating(left="theirs", right="ours", choice="left"))
    assert {(r.rater, r.preferred) for r in file.read()} == {("ann", "theirs"), ("bob", "ours")}


def test_a_line_cut_short_costs_itself_alone(tmp_path):
    file = RatingFile(tmp_path / "ratings.jsonl")
    file.add(rating(number=0))
    with open(file.path, "a") as text:
        text.write('{"rater": "ann", "numb')
    assert [r.number for r in file.read()] == [0]
    file.add(rating(number=1))
    assert [r.number for r in file.read()] == [0, 1]


def test_a_line_cut_inside_a_character(tmp_path):
    file = RatingFile(tmp_path / "ratings.jsonl")
    file.add(rating(rater="Zo\u00eb\u2028"))
    with open(file.path, "ab") as binary:
        binary.write('{"rater": "Zo\u00eb'.encode()[:-1])
    file.add(rating(rater="bob"))
    assert [r.rater for r in file.read()] == ["Zo\u00eb\u2028", "bob"]


def test_preference_by_hand():
    # Wilson's interval of 8 in 10: (0.8 + z²/20 ± z sqrt(0.016 + z²/400)) / (1 + z²/10) with z = 1.96.
    ratings = [rating(number=number) for number in range(8)]
    ratings += [rating(number=8, left="theirs", right="ours"), rating(number=9, choice="right")]
    ratings += [rating(number=10, choice="equal"), rating(number=11, right="others")]
    result = preference(ratings, "ours", "theirs")
    assert (result.wins, result.losses, result.draws, result.raters) == (8, 2, 1, 1)
    assert (result.share, result.low, result.high) == pytest.approx((0.8, 0.4902, 0.9433), abs=1e-4)
    # 2 (1 + 10 + 45) / 2^10
    assert result.p_value == pytest.approx(112 / 1024)
    assert "preferred in 80.0% [49.0%, 94.3%] of 10 decided ratings" in str(result)
    assert preference(ratings, "theirs", "ours").share == pytest.approx(0.2)


def test_preference_without_decided_ratings():
    assert str(preference([rating(choice="equal")], "ours", "theirs")) == "no decided rating (1 undecided)"


# -- the page -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def report(tmp_path_factory):
    """A report with two systems whose images can be told apart: the second's are black. One for all test processes."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "study"
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / "whole").exists():
            folder.mkdir()
            write_report(folder)
            (folder / "whole").touch()
    return folder / "report"


def write_report(folder):
    write_evaluation_inputs(folder, num_mixtures=5)
    command = ["evaluate", "--model", folder / "model", "--data", DATA, "--judge", folder / "judge", "--steps", 1]
    command += ["--baseline", "single-embedding", "--manifest", folder / "manifest.jsonl", "--out", folder / "report"]
    result = CliRunner().invoke(app, list(map(str, command)))
    assert result.exit_code == 0, result.output
    for path in (folder / "report/systems/single-embedding").rglob("*.png"):
        PIL.Image.new("RGB", (64, 64)).save(path)


class Server:
    def __init__(self, report):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        command = [sys.executable, "-m", "avgas_pipeline", "study", str(report), "--port", str(self.port)]
        environment = {**os.environ, "GRADIO_ANALYTICS_ENABLED": "False"}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(self.url, timeout=5).read()
                return
            except OSError:
                assert self.process.poll() is None, self.process.stdout.read()
                time.sleep(0.2)
        self.process.kill()
        raise TimeoutError("the page did not come up")

    def stop(self, how=signal.SIGINT):
        self.process.send_signal(how)
        return self.process.communicate(timeout=60)[0]


@pytest.fixture
def served(report, tmp_path):
    copy = shutil.copytree(report, tmp_path / "report")
    server = Server(copy)
    yield server, copy
    if server.process.poll() is None:
        server.stop(signal.SIGKILL)


def is_black(path):
    with PIL.Image.open(path) as image:
        return np.asarray(image.convert("RGB")).max() < 8


def test_rating_blind_to_the_end_prints_the_preference(served):
    server, folder = served
    client = Client(server.url, verbose=False)
    shown, progress, sound, left, right = client.predict("ann", api_name="/begin")
    for number in range(1, 6):
        assert progress == f"Pair {number} of 5"
        assert os.path.getsize(sound["value"]) > 16000
        assert is_black(left) != is_black(right)
        assert "model" not in left and "single" not in left
        choice = "right" if is_black(left) else "left"
        shown, progress, sound, left, right = client.predict(shown, api_name=f"/choose_{choice}")
    assert progress == "That was all. Thank you!"

    output = server.stop()
    assert "model against single-embedding: preferred in 100.0% [56.6%, 100.0%] of 5 decided ratings" in output
    assert "Traceback" not in output
    lines = [json.loads(line) for line in (folder / "ratings.jsonl").read_text().splitlines()]
    assert len(lines) == 5
    assert {line["left"] for line in lines} == {"model", "single-embedding"}
    assert len({line["drawings"] for line in lines}) == 1

    printed = CliRunner().invoke(app, ["study", str(folder), "--results"])
    assert "preferred in 100.0%" in printed.output


@pytest.mark.slow
def test_killed_study_keeps_ratings_and_goes_on(served):
    server, folder = served
    client = Client(server.url, verbose=False)
    shown = client.predict("ann", api_name="/begin")[0]
    shown = client.predict(shown, api_name="/choose_left")[0]
    client.predict(shown, api_name="/choose_equal")
    server.stop(signal.SIGKILL)
    again = Server(folder)
    client = Client(again.url, verbose=False)
    assert client.predict("ann", api_name="/begin")[1] == "Pair 3 of 5"
    assert client.predict("bob", api_name="/begin")[1] == "Pair 1 of 5"
    again.stop()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--against", "nobody"], "has no system 'nobody' besides 'model', but single-embedding"),
        (["--against", "model"], "has no system 'model' besides"),
    ],
)
def test_unknown_system(report, options, word):
    result = CliRunner().invoke(app, ["study", str(report), "--results", *options])
    assert result.exit_code == 2
    assert word in result.stderr


def test_no_report(tmp_path):
    result = CliRunner().invoke(app, ["study", str(tmp_path), "--results"])
    assert result.exit_code == 2
    assert "report.json: no such file; `avgas evaluate` writes it" in result.stderr


# -- in a browser ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromedriver") is None, reason="needs Debian's chromium-driver")
@pytest.mark.slow
def test_in_a_browser(served, tmp_path):
    server, folder = served
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1200,1000"):
        options.add_argument(argument)
    options.binary_location = shutil.which("chromium")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    wait = WebDriverWait(driver, 30)

    def click(element_id):
        wait.until(expected_conditions.element_to_be_clickable((By.ID, element_id))).click()

    def progress(text):
        wait.until(expected_conditions.text_to_be_present_in_element((By.ID, "progress"), text))

    try:
        driver.get(server.url)
        wait.until(
            expected_conditions.visibility_of_element_located((By.CSS_SELECTOR, "#rater textarea, #rater input"))
        )
        driver.find_element(By.CSS_SELECTOR, "#rater textarea, #rater input").send_keys("eve")
        click("begin")
        progress("Pair 1 of 5")
        for side in ("left", "right"):
            shown = f"#{side} img"
            wait.until(lambda page, shown=shown: page.find_elements(By.CSS_SELECTOR, shown))
            wait.until(
                lambda page, shown=shown: page.execute_script(f"return document.querySelector('{shown}').naturalWidth")
            )
        page_text = driver.page_source
        assert "single-embedding" not in page_text
        assert not driver.find_elements(By.CSS_SELECTOR, ".error, .toast-wrap .error")
        driver.save_screenshot(str(tmp_path / "page.png"))
        # Two quick clicks rate one pair, not two.
        button = driver.find_element(By.ID, "choose-left")
        driver.execute_script("arguments[0].click(); arguments[0].click();", button)
        progress("Pair 2 of 5")
        for number in range(3, 6):
            click("choose-right")
            progress(f"Pair {number} of 5")
        click("choose-equal")
        progress("That was all. Thank you!")
        assert not driver.find_elements(By.ID, "choose-equal")
    finally:
        driver.quit()
    lines = [json.loads(line) for line in (folder / "ratings.jsonl").read_text().splitlines()]
    assert [line["choice"] for line in lines] == ["left", "right", "right", "right", "equal"]
    assert len({line["number"] for line in lines}) == 5
