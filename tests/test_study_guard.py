"""The study's page is asked for little, under its own names alone; and the files it reads may hold anything."""

import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import socket
import threading
import urllib.error
import urllib.request
from contextlib import suppress

import httpx
import pytest
from gradio_client import Client
from test_study import Server, rating, report  # noqa: F401 - a fixture
from typer.testing import CliRunner

from avgas_pipeline.cli import app
from avgas_pipeline.evaluation.ratings import RatingFile, pairs_for
from avgas_pipeline.web.page_guard import MAX_BODY_BYTES, PageGuard


@pytest.fixture(scope="module")
def page(report, tmp_path_factory):  # noqa: F811
    """A page that all tests of this file share, and its report's folder."""
    copy = shutil.copytree(report, tmp_path_factory.mktemp("guarded") / "report")
    server = Server(copy)
    yield server, copy
    server.stop()


# -- requests -------------------------------------------------------------------------------------------------------


def begin(server, name):
    return httpx.post(f"{server.url}gradio_api/call/begin", json={"data": [name]}, timeout=60)


def test_a_huge_request_is_refused_unread(page):
    server, _ = page
    for content in (b"x" * 60_000_000, b"x" * (MAX_BODY_BYTES + 1), [b"x" * 1000] * 10_000):
        for path in ("gradio_api/call/begin", "gradio_api/upload", "gradio_api/queue/join", "nowhere"):
            # The connection may be closed while the rest is still sent.
            with suppress(httpx.TransportError):
                sent = content if isinstance(content, bytes) else iter(content)
                assert httpx.post(server.url + path, content=sent, timeout=60).status_code == 413
    with open(f"/proc/{server.process.pid}/status") as status:
        memory = next(line for line in status if line.startswith("VmHWM"))
    assert int(memory.split()[1]) < 2_000_000


@pytest.mark.parametrize("length", ["-1", "x", "1" * 5000, "\u0663"])
def test_lengths_that_are_none(page, length):
    server, _ = page
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        head = f"POST /gradio_api/call/begin HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(100).startswith((b"HTTP/1.1 400", b"HTTP/1.1 413"))


def test_names_have_a_limit(page):
    server, _ = page
    client = Client(server.url, verbose=False)
    with pytest.raises(Exception, match="at most 100 characters"):
        client.predict("x" * 101, api_name="/begin")
    assert client.predict("x" * 100, api_name="/begin")[1] == "Pair 1 of 5"
    for name in (None, 3, ["a"], {"a": 1}, "\x00\x1b[31m"):
        assert client.predict(name, api_name="/begin")[1] == "Pair 1 of 5"


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 60_000, b'{"data": 3}', b'{"data": []}', b"null"])
def test_junk_does_not_stop_the_page(page, body):
    server, _ = page
    httpx.post(f"{server.url}gradio_api/call/begin", content=body, headers={"content-type": "application/json"})
    assert Client(server.url, verbose=False).predict("after junk", api_name="/begin")[1] == "Pair 1 of 5"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:7860", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:7860", 200),
        ("localhost.", 200),
        ("evil.example", 400),
        ("localhost.evil.example", 400),
        ("evil.example@localhost", 400),
        ("10.0.0.1", 400),
        ("127.0.0.1.nip.io", 400),
        ("localhost:80:80", 400),
        ("", 400),
    ],
)
def test_only_its_own_names(page, host, status):
    request = urllib.request.Request(page[0].url, headers={"Host": host})
    try:
        assert urllib.request.urlopen(request, timeout=20).status == status
    except urllib.error.HTTPError as error:
        assert error.code == status


@pytest.mark.parametrize(
    ("served", "host", "is_own"),
    [
        ("192.168.1.5", "192.168.1.5:7860", True),
        ("192.168.1.5", "192.168.1.6", False),
        ("Studio.example", "studio.EXAMPLE:7860", True),
        ("[::1]", "[::1]", True),
        ("0.0.0.0", "192.168.1.5", True),
        ("0.0.0.0", "[fe80::1]:7860", True),
        ("0.0.0.0", socket.gethostname(), True),
        ("0.0.0.0", "evil.example", False),
        ("::", "10.0.0.1", True),
        ("127.0.0.1", socket.gethostname() + "x", False),
    ],
)
def test_names_of_an_address(served, host, is_own):
    assert PageGuard(None, served)._is_own(host) == is_own


@pytest.mark.slow
def test_twenty_raters_at_once(page):
    server, folder = page
    failures = []

    def rate(name):
        try:
            client = Client(server.url, verbose=False, httpx_kwargs={"timeout": 120})
            shown = client.predict(name, api_name="/begin")[0]
            client.predict(shown, api_name="/choose_left")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=rate, args=(f"rater {number}",)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    raters = {json.loads(line)["rater"] for line in (folder / "ratings.jsonl").read_text().splitlines()}
    assert {f"rater {number}" for number in range(20)} <= raters


def test_the_limit_leaves_room_for_the_pages_own_requests():
    data = {"data": ["\u05e9" * 100, 10**9, None], "session_hash": "x" * 20}
    assert len(json.dumps(data)) < MAX_BODY_BYTES / 10


# -- raters ---------------------------------------------------------------------------------------------------------


def test_the_order_is_a_raters_own_whatever_the_name():
    names = ["x" * 1_000_000, "\ud800", "", "a b", "a"]
    orders = [pairs_for(name, "ours", "theirs", 100, 20) for name in names]
    assert len({tuple(order) for order in orders}) == len(names)
    # A space between names is no separator.
    assert pairs_for("a", "b c", "d", 100, 20) != pairs_for("a b", "c", "d", 100, 20)


# -- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "junk",
    [b"\xff\xfe", b"[" * 100_000, b"[]", b"3", b'{"rater": []}', b"some text", json.dumps({"rater": "a"}).encode()],
    ids=range(7),
)
def test_ratings_of_junk_are_named(report, tmp_path, junk):  # noqa: F811
    file = RatingFile(tmp_path / "ratings.jsonl")
    file.add(rating())
    with open(file.path, "ab") as binary:
        binary.write(junk + b"\n")
    with pytest.raises(ValueError, match=r"ratings\.jsonl, line 2: not a rating"):
        file.read()
    folder = shutil.copytree(report, tmp_path / "report")
    shutil.copy(file.path, folder / "ratings.jsonl")
    for options in (["--results"], []):
        result = CliRunner().invoke(app, ["study", str(folder), *options])
        assert result.exit_code == 2 and "line 2: not a rating" in result.stderr and "Traceback" not in result.output


@pytest.mark.parametrize("wrong", [{"number": [1]}, {"left": {}}, {"choice": "neither"}, {"number": True}])
def test_ratings_with_wrong_values_are_named(tmp_path, wrong):
    values = {"rater": "ann", "number": 1, "left": "a", "right": "b", "choice": "left", **wrong}
    (tmp_path / "ratings.jsonl").write_text(json.dumps(values))
    with pytest.raises(ValueError, match="line 1: not a rating"):
        RatingFile(tmp_path / "ratings.jsonl").read()


def test_zeros_and_beginnings_cost_no_other_rating(tmp_path):
    file = RatingFile(tmp_path / "ratings.jsonl")
    file.path.write_bytes(b"\x00" * 100 + b"\n" + b'{"rat\n' + b'{"rater": "an\n')
    file.add(rating())
    assert file.read() == [rating()]


def add_to_a_full_disk(file):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.path.stat().st_size + 20, resource.RLIM_INFINITY))
    try:
        file.add(rating(number=1))
    except OSError:
        os._exit(7)


def test_a_rating_that_is_not_on_disk_is_not_acknowledged(tmp_path):
    file = RatingFile(tmp_path / "ratings.jsonl")
    file.add(rating())
    process = multiprocessing.get_context("fork").Process(target=add_to_a_full_disk, args=(file,))
    process.start()
    process.join()
    assert process.exitcode == 7
    file.add(rating(number=2))
    assert [each.number for each in file.read()] == [0, 2]


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"\xff",
        b"[" * 100_000,
        b"[]",
        b"{}",
        b'{"data": {}, "systems": {}}',
        b'{"data": {"data": "x", "sha256": "x", "image_size": 1}, "systems": ["a", "b"]}',
        b'{"data": {"data": "x", "sha256": "x", "image_size": "big"}, "systems": {"a": {}, "b": {}}}',
        b'{"data": {"data": "x", "sha256": "x", "image_size": 1}, "systems": {"a": {"images": 3}, "b": {}}}',
    ],
    ids=range(9),
)
def test_reports_of_junk_are_named(tmp_path, junk):
    (tmp_path / "report.json").write_bytes(junk)
    for options in (["--results"], []):
        result = CliRunner().invoke(app, ["study", str(tmp_path), *options])
        assert result.exit_code == 2 and "Traceback" not in result.output
        name = re.escape(str(tmp_path / "report.json"))
        assert re.match(rf"avgas: error: {name}(, line 1)?: (not|is not in UTF-8)", result.stderr)
