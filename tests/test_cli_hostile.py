"""`avgas generate` with what users and their shells may give it: odd names, numbers, streams, signals, old files."""

import json
import shutil
import signal
import sys
from pathlib import Path

import forked
import numpy as np
import PIL.Image
import pytest
import soundfile
from sounds import tone
from test_audio_faults import SOUND, write_tracks
from test_cli import fails_with_one_line, files, generate
from tiny import tiny_audio, tiny_components, tiny_separator
from typer.testing import CliRunner

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.cli import app
from avgas_pipeline.pipeline_output import SoundSource
from avgas_pipeline.printable import printable
from avgas_pipeline.results.overview import draw_overview


ESCAPE = "\x1b[31mred\x1b]0;title\x07"
HOSTILE = f"a{ESCAPE}\n\u202eb\u2028c"


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "sea.wav"
    soundfile.write(path, tiny_audio(1.0)[0], 16000)
    return path


@pytest.fixture(scope="module")
def hostile_model(tmp_path_factory):
    """Labels that no file can be named after, and that control a terminal."""
    labels = ["x" * 250, HOSTILE, "\u05e9\u202e$" * 100_000, "$\\frac{", "cost: $5\\$"]
    components = tiny_components()
    components["separator"] = tiny_separator(id2label=dict(enumerate(labels)))
    folder = tmp_path_factory.mktemp("hostile")
    AVGASPipeline(**components).save_pretrained(folder)
    return folder


def real(tmp_path, before, *arguments):
    """The command in a process of its own, after a line of Python."""
    script = tmp_path / "avgas.py"
    imports = "import os, signal, sys, threading, time"
    script.write_text(f"{imports}\n{before}\nfrom avgas_pipeline.cli import main\nmain()\n")
    return forked.run([sys.executable, script, *arguments])


def is_plain(text):
    return not any(ord(letter) < 32 and letter not in "\n\r" for letter in text) and "\u202e" not in text


# -- names and labels -----------------------------------------------------------------------------------------------


def test_printable():
    assert printable("Zo\u00eb \u05e9\u05dc\u05d5\u05dd \u200d") == "Zo\u00eb \u05e9\u05dc\u05d5\u05dd \u200d"
    assert printable(HOSTILE) == r"a\x1b[31mred\x1b]0;title\x07\n\u202eb\u2028c"
    assert printable("caf\udce9\r") == "caf\ufffd\\r"


def test_labels_that_no_file_can_be_named_after(hostile_model, recording, tmp_path):
    result = generate(hostile_model, recording, "--out", tmp_path / "out", "--separate", "--num-sources", "4")
    assert result.exit_code == 0, result.output
    assert is_plain(result.output)
    names = list(files(tmp_path / "out"))
    assert len([name for name in names if name.startswith("source-") and name.endswith(".wav")]) == 4
    assert max(map(len, names)) < 130
    for source in json.loads((tmp_path / "out/sources.json").read_text())["sources"]:
        assert {*source["images"], source["audio"]} <= set(names)


def test_names_do_not_control_the_terminal(checkpoint, recording, tmp_path):
    odd = tmp_path / f"{HOSTILE}.wav"
    odd.write_bytes(recording.read_bytes())
    (tmp_path / f"{HOSTILE}.txt").write_text("no sound")
    result = generate(checkpoint, odd, tmp_path / f"{HOSTILE}.txt", tmp_path / ESCAPE, "--out", tmp_path / "out")
    assert result.exit_code == 2 and is_plain(result.output), result.output
    assert rf"{printable(HOSTILE)}.wav: " in result.stdout
    cut = tmp_path / f"{ESCAPE}.mp3"
    fails_with_one_line(generate(checkpoint, cut, "--out", tmp_path / "out"), printable(cut.name))
    fails_with_one_line(generate(checkpoint, odd, "--out", tmp_path / "o", "--weight", f"{ESCAPE}=1"))


def test_whatever_is_printed_does_not_control_the_terminal(hostile_model, tmp_path):
    """Errors of the command line and other commands' lines, too."""
    for arguments in (["info", hostile_model], ["info", f"./{ESCAPE}"], ["generate", f"--{ESCAPE}"]):
        result = real(tmp_path, "", *arguments)
        assert result.returncode in (0, 2) and is_plain(result.stdout + result.stderr)
        assert "red" in result.stdout + result.stderr


@pytest.mark.parametrize("text", [HOSTILE, "$", r"\$x$", "x" * 100_000, "a b " * 100_000, "\ud800", "\x00", " ", ""])
def test_overview_of_any_name_and_label(text):
    image = PIL.Image.new("RGB", (64, 64))
    source = SoundSource(label=text, activity=np.ones(10, np.float32), activity_hop_s=0.1, images=[image])
    overview = draw_overview(tone(1.0, 16000), 16000, [image], [source], title=text)
    assert 500 < max(overview.size) < 3000


def test_long_names_of_several_files(checkpoint, recording, tmp_path):
    twins = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        twins.append(tmp_path / folder / ("\u00eb" * 125 + ".wav"))
        twins[-1].write_bytes(recording.read_bytes())
    result = generate(checkpoint, *twins, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "out").iterdir())) == 2


# -- standard input, addresses, tracks ------------------------------------------------------------------------------


def test_standard_input(checkpoint, recording, tmp_path):
    runner = CliRunner()

    def piped(data, *arguments):
        command = ["generate", *map(str, arguments), "--model", str(checkpoint), "--steps", "2"]
        return runner.invoke(app, command, input=data)

    assert generate(checkpoint, recording, "--out", tmp_path / "file").exit_code == 0
    result = piped(recording.read_bytes(), "-", "--out", tmp_path / "one")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("standard input: ")
    assert files(tmp_path / "one")["mixed.png"] == files(tmp_path / "file")["mixed.png"]
    assert json.loads((tmp_path / "one/sources.json").read_text())["audio"] == "stdin"
    result = piped(recording.read_bytes(), recording, "-", "--out", tmp_path / "two")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["sea", "stdin"]
    for data in (b"", b"no sound"):
        fails_with_one_line(piped(data, "-", "--out", tmp_path / "bad"), "standard input: ")
    fails_with_one_line(piped(b"", "-", "-", "--out", tmp_path / "bad"), "give `-` once")
    assert not (tmp_path / "bad").exists()


def test_standard_input_that_is_closed(checkpoint, tmp_path):
    result = real(tmp_path, "sys.stdin = None", "generate", "-", "--out", tmp_path / "out", "--model", checkpoint)
    assert result.returncode == 2 and "standard input: is closed" in result.stderr


@pytest.mark.parametrize(
    "address", ["https://x.org/a.wav", "http://x/a.wav", "s3://bucket/a.wav", "hf://datasets/a.wav"]
)
def test_addresses_have_to_be_downloaded(checkpoint, recording, tmp_path, address):
    out = ["--out", tmp_path / "out"]
    fails_with_one_line(generate(checkpoint, address, *out), address, "download it first")
    fails_with_one_line(generate(checkpoint, recording, "--negative-audio", address, *out), "download it first")
    result = generate(checkpoint, recording, address, *out)
    assert result.exit_code == 2 and f"skipped: {address}: " in result.stderr and "no such file" not in result.stderr
    assert "download it first" in result.stderr and (tmp_path / "out/sea/mixed.png").exists()
    evaluate = ["evaluate", "--no-draw", "--out", str(tmp_path / "e"), "--data"]
    fails_with_one_line(CliRunner().invoke(app, [*evaluate, f"{address}/deep/er"]), "download it first")
    fails_with_one_line(CliRunner().invoke(app, [*evaluate, "x", "--manifest", address]), "download it first")


def test_audio_track(checkpoint, tmp_path):
    import av

    path = tmp_path / "two.mka"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("flac", rate=16000, layout="mono") for _ in range(2)]
        for number, stream in enumerate(streams):
            samples = (tiny_audio(1.0, seed=number)[0] * 20000).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(samples, "s16", "mono")
            frame.sample_rate, frame.pts = 16000, 0
            for packet in (*stream.encode(frame), *stream.encode()):
                container.mux(packet)
    drawn = []
    for track in (0, 1):
        out = tmp_path / str(track)
        assert generate(checkpoint, path, "--out", out, "--audio-track", track).exit_code == 0
        drawn.append(files(out)["mixed.png"])
    assert drawn[0] != drawn[1]
    fails_with_one_line(generate(checkpoint, path, "--out", tmp_path / "x", "--audio-track", "2"), "two.mka")
    assert generate(checkpoint, path, "--out", tmp_path / "x", "--audio-track", "-1").exit_code == 2


# -- numbers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("--guidance", ["nan", "inf", "-1", "1e300"]),
        ("--max-duration", ["nan", "-1", "0", "-inf"]),
        ("--weight", ["sea=nan", "sea=inf", "sea=-1", "sea=1e300", "sea=1e999"]),
        ("--steps", ["-1", "1000000000000", "1" * 400, "nan"]),
        ("--seed", ["-1", "1" * 400]),
        ("--num-images", ["-1", "1000000000000"]),
        ("--num-sources", ["-1", "1000000000000"]),
        ("--audio-track", ["-1", "nan", "1" * 400]),
    ],
)
def test_numbers_that_can_not_be(checkpoint, recording, tmp_path, option, values):
    for value in values:
        result = generate(checkpoint, recording, "--out", tmp_path / "out", option, value)
        assert result.exit_code == 2, (value, result.output)
        assert "Traceback" not in result.output and "rror" in result.stderr
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [["--guidance", "nan"], ["--presence-threshold", "nan"], ["--guidance", "-inf"]])
def test_evaluations_with_numbers_that_can_not_be(tmp_path, options):
    command = ["evaluate", "--no-draw", "--data", str(tmp_path), "--out", str(tmp_path / "out"), *options]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2 and options[0] in result.stderr
    assert not (tmp_path / "out").exists()


def test_what_was_done_with_a_recording_is_said(checkpoint, tmp_path):
    gaps = write_tracks(tmp_path / "gaps.mkv", [[(0, SOUND), (3.5, SOUND)]])
    tracks = write_tracks(tmp_path / "tracks.mkv", [[(0, SOUND)], [(0, SOUND)]])
    soundfile.write(tmp_path / "stereo.wav", np.stack([tone(), -tone()], axis=1), 16000)
    for path, said in ((gaps, "filled with silence"), (tracks, "audio tracks"), (tmp_path / "stereo.wav", "cancel")):
        result = generate(checkpoint, path, "--out", tmp_path / "out", "--num-sources", "1")
        assert result.exit_code == 0, result.output
        (warning,) = [line for line in result.stderr.splitlines() if line.startswith("avgas: warning: ")]
        assert said in warning


# -- what was there before ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "junk",
    [
        b"[]",
        b"3",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"mixed": ' + b"[" * 100_000,
        b'{"mixed": "x", "sources": {"images": 1}}',
        b'{"mixed": ["\\ud800", 3, null, "../mine.txt", "mine.txt"], "sources": [{"images": ["source-1-/../x"]}]}',
        b'{"mixed": [], "sources": [null]}',
    ],
    ids=range(9),
)
def test_earlier_results_of_any_shape(checkpoint, recording, tmp_path, junk):
    out = tmp_path / "out"
    out.mkdir()
    for path in (tmp_path / "mine.txt", out / "mine.txt"):
        path.write_text("mine")
    (out / "sources.json").write_bytes(junk)
    result = generate(checkpoint, recording, "--out", out)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "mine.txt").exists() and (out / "mine.txt").exists()
    assert json.loads((out / "sources.json").read_text())["mixed"] == ["mixed.png"]


def test_results_of_a_name_that_is_no_text_are_removed_when_outdated(checkpoint, recording, tmp_path):
    copy = shutil.copy(recording, tmp_path / "caf\udce9.wav")
    out = tmp_path / "out"
    for number in ("2", "1"):
        result = generate(checkpoint, copy, "--out", out, "--num-sources", number)
        assert result.exit_code == 0, result.output
        assert any(out.glob("source-2-*")) == (number == "2")


# -- streams and signals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "before",
    [
        "os.dup2(os.open('/dev/full', os.O_WRONLY), 2)",
        "ends = os.pipe(); os.dup2(ends[1], 2); os.close(ends[0]); os.close(ends[1])",
        "os.close(2); sys.stderr = None",
    ],
    ids=["full", "broken pipe", "closed"],
)
def test_standard_error_that_takes_nothing(checkpoint, recording, tmp_path, before):
    out = tmp_path / "out"
    command = ["generate", recording, tmp_path / "sea.wav", "--out", out, "--model", checkpoint, "--steps", "2"]
    result = real(tmp_path, before, *command)
    assert result.returncode == 0
    assert result.stdout.count("overview.png") == 2
    assert sorted(path.name for path in out.iterdir()) == ["sea", "sea-2"]


def test_standard_output_that_takes_nothing_is_one_line(checkpoint, recording, tmp_path):
    before = "os.dup2(os.open('/dev/full', os.O_WRONLY), 1)"
    command = ["generate", recording, "--out", tmp_path / "out", "--model", checkpoint, "--steps", "2"]
    result = real(tmp_path, before, *command)
    errors = [line for line in result.stderr.splitlines() if line.startswith("avgas: error: ")]
    assert len(errors) == 1 and "standard output: No space left" in errors[0] and "Traceback" not in result.stderr
    assert (tmp_path / "out/sources.json").exists()


WHEN = {
    "loading": "os.path.isdir(out)",
    "writing": "any(Path(out).glob('.partial-*'))",
}


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("when", WHEN)
def test_a_signal_leaves_nothing(checkpoint, recording, tmp_path, name, when):
    out = tmp_path / "deep/out"
    before = f"""
from pathlib import Path
out = {str(out)!r}
def end():
    while not ({WHEN[when]}):
        time.sleep(0.0005)
    os.kill(os.getpid(), signal.{name})
threading.Thread(target=end, daemon=True).start()
"""
    result = real(tmp_path, before, "generate", recording, "--out", out, "--model", checkpoint, "--steps", "2")
    assert result.returncode == 128 + getattr(signal, name), result.stderr
    assert "Traceback" not in result.stderr
    # What was written whole when the signal came stays.
    if not (when == "writing" and (out / "sources.json").exists()):
        assert not (tmp_path / "deep").exists()
    assert not any(tmp_path.rglob(".partial*"))


def test_a_hangup_is_ignored_after_nohup(checkpoint, recording, tmp_path):
    before = "signal.signal(signal.SIGHUP, signal.SIG_IGN); threading.Timer(0.2, os.kill, (os.getpid(), 1)).start()"
    result = real(tmp_path, before, "generate", recording, "--out", tmp_path / "out", "--model", checkpoint)
    assert result.returncode == 0, result.stderr
    assert Path(tmp_path, "out/sources.json").exists()
