"""`avgas film`: scenes by what is heard, captions that players read, a film with the recording's own sound."""

import hashlib
import json
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from itertools import count, pairwise
from pathlib import Path

import av
import numpy as np
import PIL.Image
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from avgas_pipeline import load_audio
from avgas_pipeline.cli import app
from avgas_pipeline.cli.film import check_out
from avgas_pipeline.film.captions import captions, short_name, to_srt, to_vtt
from avgas_pipeline.film.make import STORYBOARD_PIXELS, Film, save_film, storyboard
from avgas_pipeline.film.scenes import SHORTEST_S, Scene, find_scenes
from avgas_pipeline.film.sound import RATE, sound_frames
from avgas_pipeline.film.video import BAND, FRAME_RATE, SIDE, draw_frame, fit_caption
from avgas_pipeline.pipeline_output import SoundSource


HOP_S = 0.016
CHECKPOINT = Path(__file__).parents[1] / "src/avgas_pipeline/checkpoints/avgas-mini"
DOG_AND_BIRD = "examples/mixture-dog-bird.flac"


def source(label, intervals, duration_s, share=0.8):
    """A source that is heard from second to second."""
    activity = np.zeros(int(np.ceil(duration_s / HOP_S)))
    for start, end in intervals:
        activity[round(start / HOP_S) : round(end / HOP_S)] = share
    return SoundSource(label=label, activity=activity, activity_hop_s=HOP_S)


def film(*arguments):
    result = CliRunner().invoke(app, ["film", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def test_scenes_follow_what_is_heard():
    sources = [source("dog", [(0, 4), (12, 20)], 20), source("rain", [(2.5, 15)], 20)]
    scenes = find_scenes(sources, 20.0)
    planted = [(0, (0,)), (2.5, (0, 1)), (4, (1,)), (12, (0, 1)), (15, (0,))]
    assert [scene.sources for scene in scenes] == [present for _, present in planted]
    for scene, (start, _) in zip(scenes, planted, strict=True):
        assert abs(scene.start_s - start) < 0.5
    assert scenes[-1].end_s == 20.0


def test_silence_is_a_scene_and_a_breath_is_none():
    dog = source("dog", [(0, 3), (3.6, 6), (12, 15)], 15)
    assert [scene.sources for scene in find_scenes([dog], 15.0)] == [(0,), (), (0,)]


def test_a_short_bark_is_shown_for_as_long_as_a_scene():
    dog, rain = source("dog", [(6, 6.6)], 12, share=0.5), source("rain", [(0, 12)], 12, share=0.5)
    scenes = find_scenes([dog, rain], 12.0)
    assert [scene.sources for scene in scenes] == [(1,), (0, 1), (1,)]
    assert scenes[1].end_s - scenes[1].start_s >= SHORTEST_S - HOP_S
    assert scenes[1].start_s < 6.3 < scenes[1].end_s


def test_a_quiet_source_is_heard_where_it_has_most():
    quiet = source("clock", [(4, 8)], 12, share=0.05)
    assert any(scene.sources == (0,) for scene in find_scenes([quiet], 12.0))


def test_sources_that_are_not_drawn_or_have_no_activity():
    unknown = SoundSource(is_drawn=False, activity=np.ones(700), activity_hop_s=HOP_S)
    always = SoundSource(label="rain")
    assert find_scenes([unknown, always], 10.0) == [Scene(0.0, 10.0, (0, 1))]
    assert find_scenes([source("dog", [(0, 1)], 1)], 1.0) == [Scene(0.0, 1.0, (0,))]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=40), min_size=1, max_size=4),
    st.floats(0.1, 30.0),
)
def test_scenes_cover_a_recording_once(shares, duration_s):
    frames = int(np.ceil(duration_s / HOP_S))
    sources = [
        SoundSource(label=str(number), activity=np.resize(np.repeat(share, 20), frames), activity_hop_s=HOP_S)
        for number, share in enumerate(shares)
    ]
    scenes = find_scenes(sources, duration_s)
    assert scenes[0].start_s == 0.0 and scenes[-1].end_s == duration_s
    for one, other in pairwise(scenes):
        assert one.end_s == other.start_s and one.sources != other.sources
    if len(scenes) > 1:
        assert min(scene.end_s - scene.start_s for scene in scenes) > SHORTEST_S - 3 * HOP_S


def test_unknown_sounds_have_a_caption_and_no_picture():
    unknown = SoundSource(label_probs=np.ones(3) / 3, is_drawn=False, activity=np.ones(700), activity_hop_s=HOP_S)
    dog = source("dog barking", [(4, 9)], 11)
    scenes = find_scenes([unknown, dog], 11.0)
    texts = [text for _, _, text in captions(scenes, [unknown, dog])]
    assert texts == ["[unknown sound]", "[unknown sound continues] [dog barking]", "[unknown sound continues]"]
    made = Film(scenes, [unknown, dog], {(1,): PIL.Image.new("RGB", (64, 64), "red")})
    assert np.asarray(made.still(1))[:SIDE, :, 0].mean() > 200 > np.asarray(made.still(0))[:SIDE, :, 0].mean()
    assert np.asarray(made.still(0))[SIDE:].max() > 200


def test_a_storyboard_of_many_scenes_is_no_larger():
    dog = SoundSource(label="dog barking", activity=np.ones(700), activity_hop_s=HOP_S)
    pictures = {(0,): PIL.Image.new("RGB", (64, 64), "red")}
    few, many = (
        storyboard(Film([Scene(second, second + 1, (0,)) for second in range(count)], [dog], pictures))
        for count in (5, 450)
    )
    assert few.width == 4 * 264 + 8 and many.width * many.height < 1.2 * STORYBOARD_PIXELS


def test_captions_say_what_comes_and_what_goes_on():
    sources = [SoundSource(label="vehicle horn, car horn, honking"), SoundSource(label="raining")]
    scenes = [Scene(0, 2, (0,)), Scene(2, 3725.5, (0, 1)), Scene(3725.5, 3730, ()), Scene(3730, 3732, (1,))]
    cues = captions(scenes, sources)
    assert [text for _, _, text in cues] == ["[vehicle horn]", "[vehicle horn continues] [raining]", "[raining]"]
    assert "00:00:02.000 --> 01:02:05.500\n[vehicle horn continues] [raining]\n" in to_vtt(cues)
    assert to_srt(cues).startswith("1\n00:00:00,000 --> 00:00:02,000\n[vehicle horn]\n\n2\n")
    assert "&lt;b&gt; &amp;" in to_vtt([(0, 1, "<b> &")])


def read_subtitles(path):
    """As FFmpeg reads them: start and end, in seconds, and text."""
    with av.open(str(path)) as container:
        return [
            (
                float(packet.pts * packet.time_base),
                float((packet.pts + packet.duration) * packet.time_base),
                bytes(packet),
            )
            for packet in container.demux()
            if packet.size
        ]


LABELS = json.loads((CHECKPOINT / "separator/config.json").read_text())["id2label"].values()
LONGEST = sorted((SoundSource(label=label) for label in LABELS), key=lambda one: -len(short_name(one)))[:8]
LONG_CAPTIONS = [
    *(f"[perhaps {short_name(each)} continues]" for each in LONGEST),
    " ".join(f"[{short_name(each)} continues]" for each in LONGEST[:3]),
    " ".join(f"[source number {number} is heard continues]" for number in range(8)),
    "[a very long label of a vocabulary of one's own which goes on and on until the very end of it all]",
]


@pytest.mark.parametrize("text", LONG_CAPTIONS)
def test_long_captions_are_written_whole(text):
    lines, font = fit_caption(text)
    assert " ".join(lines) == text
    assert len(lines) * sum(font.getmetrics()) < BAND
    assert all(font.getlength(line) <= SIDE for line in lines)


def test_captions_are_broken_between_sources_if_they_can():
    lines, _ = fit_caption("[church bell ringing continues] [people whispering]")
    assert lines == ["[church bell ringing continues]", "[people whispering]"]


@pytest.mark.parametrize("text", ["[sound] " * 200, f"[{'x' * 3000}]", f"[{'x' * 300}] [dog barking]"])
def test_what_is_left_out_is_marked(text):
    lines, font = fit_caption(text)
    assert "…" in "".join(lines) and len(lines) * sum(font.getmetrics()) < BAND
    assert all(0 < font.getlength(line) <= SIDE for line in lines)


def test_frames_have_captions_that_fit():
    for picture, text in ((PIL.Image.new("RGB", (256, 256), "red"), LONG_CAPTIONS[-3]), (None, ""), (None, "x" * 999)):
        frame = np.asarray(draw_frame(picture, text))
        assert frame.shape == (SIDE + BAND, SIDE, 3)
        band = frame[SIDE:].max(axis=2) > 100
        assert band.any() and not band[:, :4].any() and not band[:, -4:].any()
        assert not band[:2].any() and not band[-2:].any()


@pytest.fixture(scope="module")
def dog_and_bird(tmp_path_factory):
    folder = tmp_path_factory.mktemp("film")
    film(DOG_AND_BIRD, "--out", folder / "film.mp4", "--storyboard")
    return folder


def test_a_film_has_pictures_and_its_own_sound(dog_and_bird):
    original, rate = soundfile.read(DOG_AND_BIRD)
    with av.open(str(dog_and_bird / "film.mp4")) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec.name, audio.codec.name) == ("h264", "aac")
        assert (video.width, video.height, video.average_rate) == (SIDE, SIDE + BAND, FRAME_RATE)
        assert container.duration / av.time_base == pytest.approx(len(original) / rate, abs=0.1)
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == round(len(original) / rate * FRAME_RATE)
    assert np.abs(frames[0].astype(float) - frames[-1]).mean() > 2
    with av.open(str(dog_and_bird / "film.mp4")) as container:
        resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
        blocks = [block.to_ndarray()[0] for frame in container.decode(audio=0) for block in resampler.resample(frame)]
    sound = np.concatenate(blocks)[: len(original)]
    spectrum = np.fft.rfft(original, 2 * len(original)).conj() * np.fft.rfft(sound, 2 * len(original))
    correlation = np.fft.irfft(spectrum)
    lag = int(correlation.argmax())
    assert min(lag, 2 * len(original) - lag) <= 1
    assert correlation.max() / (np.linalg.norm(original) * np.linalg.norm(sound)) > 0.95


def test_captions_lie_beside_it(dog_and_bird):
    for name in ("captions.vtt", "captions.srt"):
        cues = read_subtitles(dog_and_bird / name)
        assert cues[0][0] == 0.0 and cues[-1][1] == pytest.approx(5.0, abs=0.01)
        assert b"[dog barking" in b"".join(text for _, _, text in cues)
    board = PIL.Image.open(dog_and_bird / "storyboard.png")
    assert board.width > board.height


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes(dog_and_bird, tmp_path):
    film(DOG_AND_BIRD, "--out", tmp_path / "film.mp4", "--storyboard")
    digests = [hashlib.sha256((folder / "film.mp4").read_bytes()).hexdigest() for folder in (dog_and_bird, tmp_path)]
    assert digests[0] == digests[1]
    film(DOG_AND_BIRD, "--out", tmp_path / "film.mp4", "--seed", 1)
    assert not (tmp_path / "storyboard.png").exists()
    assert (tmp_path / "film.mp4").read_bytes() != (dog_and_bird / "film.mp4").read_bytes()


@pytest.mark.slow
def test_a_killed_film_leaves_nothing_and_can_be_made_again(dog_and_bird, tmp_path):
    command = [sys.executable, "-m", "avgas_pipeline", "film", DOG_AND_BIRD, "--out", str(tmp_path / "film.mp4")]
    command.append("--storyboard")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(tmp_path.glob(".partial-*/film.mp4")):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "film.mp4").exists()
    film(DOG_AND_BIRD, "--out", tmp_path / "film.mp4", "--storyboard")
    assert (tmp_path / "film.mp4").read_bytes() == (dog_and_bird / "film.mp4").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {*NAMES}


def onset_s(wave, rate, floor_db=-25.0):
    """Where a sound begins to be heard: its level over 50 ms, below that of its loudest moment."""
    block = rate // 20
    level = np.sqrt(np.square(wave[: len(wave) // block * block].reshape(-1, block)).mean(axis=1))
    return float(np.argmax(level >= level.max() * 10 ** (floor_db / 20))) * block / rate


@pytest.mark.slow
def test_ten_minutes_of_all_examples(tmp_path):
    """Nearly every sound begins with a picture within half a second, and the film is as long as the recording."""
    rate = 16000
    examples = sorted(path for path in Path("examples").iterdir() if path.suffix in (".wav", ".flac", ".ogg"))
    waves = [load_audio(path, target_sampling_rate=rate) for path in examples]
    pieces, planted, length = [], [], 0
    for number in count():
        if length >= 600 * rate:
            break
        wave, pause = waves[number % len(waves)], np.zeros(3 * rate, dtype=np.float32)
        planted.append(length / rate + onset_s(wave, rate))
        pieces += [wave, pause]
        length += len(wave) + len(pause)
    whole = np.concatenate(pieces)[: 600 * rate]
    planted = [start for start in planted if start < 600 - SHORTEST_S]
    soundfile.write(tmp_path / "ten.wav", whole, rate)
    film(tmp_path / "ten.wav", "--out", tmp_path / "film.mp4")
    cues = read_subtitles(tmp_path / "captions.vtt")
    starts = np.array([start for start, _, _ in cues])
    late = [start for start in planted if np.abs(starts - start).min() > 0.5]
    # Of eighty-six, three are not, where a sound goes on from window to window as another one.
    assert len(late) <= 0.05 * len(planted)
    with av.open(str(tmp_path / "film.mp4")) as container:
        assert container.duration / av.time_base == pytest.approx(600, abs=0.1)
        lengths = [float(stream.duration * stream.time_base) for stream in container.streams]
    assert lengths == pytest.approx([600, 600], abs=0.1)


def test_a_recording_is_read_piece_by_piece(tmp_path):
    """Its samples are where they were, of one channel as of two."""
    rate = 48000
    noise = 0.2 * np.random.default_rng(0).standard_normal((3 * rate, 2)).astype(np.float32)
    for channels in (1, 2):
        soundfile.write(tmp_path / "noise.wav", noise[:, :channels], rate, subtype="FLOAT")
        frames = [frame.to_ndarray() for frame in sound_frames(tmp_path / "noise.wav", 3.0, None, 60, "noise")]
        assert len(frames) > 3
        np.testing.assert_array_equal(np.concatenate(frames, axis=1), noise.T[np.arange(2) % channels])


def test_a_stereo_recording_stays_in_stereo(tmp_path):
    rate = 22050
    time_s = np.arange(3 * rate) / rate
    left = 0.4 * np.sign(np.sin(2 * np.pi * 440 * time_s)) * (np.sin(2 * np.pi * 3 * time_s) > 0)
    soundfile.write(tmp_path / "left.wav", np.stack([left, 0 * left], axis=1), rate)
    film(tmp_path / "left.wav", "--out", tmp_path / "film.mp4", "--steps", 1)
    with av.open(str(tmp_path / "film.mp4")) as container:
        assert container.streams.audio[0].rate == RATE
        sound = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    assert np.abs(sound[0]).mean() > 20 * np.abs(sound[1]).mean()


def test_one_damaged_frame_does_not_end_the_sound(tmp_path):
    rate = 44100
    soundfile.write(tmp_path / "whole.mp3", 0.2 * np.random.default_rng(0).standard_normal((8 * rate, 2)), rate)
    broken = bytearray((tmp_path / "whole.mp3").read_bytes())
    broken[len(broken) // 4 : len(broken) // 4 + 40] = bytes(40)
    # A name with a colon is no address.
    path = tmp_path / "2024-01-01T07:30:00.mp3"
    path.write_bytes(bytes(broken))
    with pytest.warns(UserWarning, match="damaged"):
        duration_s = len(load_audio(path)) / 16000
    sound = np.concatenate([f.to_ndarray() for f in sound_frames(path, duration_s, None, 60, "noise")], axis=1)
    assert np.abs(sound[:, -2 * RATE : -RATE // 2]).mean() > 0.05
    assert np.abs(sound[0] - sound[1]).mean() > 0.05


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3"])
def test_a_damaged_stereo_recording_is_heard_as_far_as_it_goes(tmp_path, suffix):
    rate = 22050
    noise = 0.2 * np.random.default_rng(0).standard_normal((4 * rate, 2))
    path = tmp_path / f"damaged.{suffix}"
    soundfile.write(path, noise, rate)
    whole = path.read_bytes()
    broken = bytearray(whole[: len(whole) * 3 // 4])
    broken[len(broken) // 2 : len(broken) // 2 + 200] = bytes(200)
    path.write_bytes(bytes(broken))
    with pytest.warns(UserWarning) if suffix != "wav" else nullcontext():
        frames = list(sound_frames(path, 4.0, None, 60, path.name))
        load_audio(path)
    assert sum(frame.samples for frame in frames) == 4 * RATE
    sound = np.concatenate([frame.to_ndarray() for frame in frames], axis=1)
    assert np.abs(sound[:, RATE // 2 : RATE]).mean() > 0.05


NAMES = ("captions.srt", "captions.vtt", "film.mp4", "storyboard.png")


def copied(films, folder):
    for name in NAMES:
        (folder / name).write_bytes((films / name).read_bytes())
    return folder


def quick_film(out, with_storyboard=False, label="dog barking"):
    """Half a second of it, by hand."""
    made = Film([Scene(0.0, 0.5, (0,))], [SoundSource(label=label)], {(0,): PIL.Image.new("RGB", (64, 64), "red")})
    check_out(Path(DOG_AND_BIRD), out, with_storyboard)
    save_film(made, DOG_AND_BIRD, out, with_storyboard)


def test_a_film_in_place_of_another_takes_its_files_with_it(tmp_path):
    quick_film(tmp_path / "film.mp4", with_storyboard=True)
    assert {path.name for path in tmp_path.iterdir()} == {*NAMES}
    (tmp_path / "notes.txt").write_text("mine")
    quick_film(tmp_path / "film.mp4", label="cat")
    assert {path.name for path in tmp_path.iterdir()} == {*NAMES, "notes.txt"} - {"storyboard.png"}
    assert "[cat]" in (tmp_path / "captions.vtt").read_text()
    # Another's, which the film has not.
    (tmp_path / "storyboard.png").write_bytes(b"mine")
    quick_film(tmp_path / "film.mp4")
    assert (tmp_path / "storyboard.png").read_bytes() == b"mine"


def test_names_with_colons_are_no_addresses(tmp_path, monkeypatch):
    (tmp_path / "examples").symlink_to(Path("examples").resolve())
    monkeypatch.chdir(tmp_path)
    for label in ("dog", "cat"):
        quick_film(Path("take:1", "12:30.mp4"), with_storyboard=label == "dog", label=label)
    assert {path.name for path in Path("take:1").iterdir()} == {"12:30.mp4", "captions.vtt", "captions.srt"}
    assert "[cat]" in Path("take:1/captions.vtt").read_text()


@pytest.mark.parametrize("name", ["captions.vtt", "captions.srt", "storyboard.png"])
@pytest.mark.parametrize("has_film", [False, True])
def test_files_that_no_film_has_written_stay(tmp_path, name, has_film):
    if has_film:
        quick_film(tmp_path / "film.mp4", with_storyboard=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match=f"{name} in this folder is of no film"):
        quick_film(tmp_path / "film.mp4", with_storyboard=True)
    assert (tmp_path / name).read_text() == "mine"


def test_two_films_do_not_replace_each_others_captions(tmp_path):
    quick_film(tmp_path / "one.mp4")
    (tmp_path / "one.mp4").rename(tmp_path / "moved.mp4")
    with pytest.raises(ValueError, match=r"the captions of moved\.mp4 are in this folder"):
        quick_film(tmp_path / "one.mp4", label="cat")
    (tmp_path / "captions.vtt").unlink()
    (tmp_path / "captions.srt").unlink()
    quick_film(tmp_path / "one.mp4", label="cat")
    # Both films are there, and the captions are those of one.
    with pytest.raises(ValueError, match=r"the captions of one\.mp4 are in this folder"):
        quick_film(tmp_path / "moved.mp4")


@pytest.mark.parametrize("is_moved", [False, True])
def test_what_a_killed_film_left_is_made_again(dog_and_bird, tmp_path, is_moved):
    """Killed before its files were moved to where an old film has just gone from, or between them."""
    copied(dog_and_bird, tmp_path)
    partial = tmp_path / ".partial-0"
    partial.mkdir()
    (tmp_path / "film.mp4").rename(partial / ("film.mp4" if is_moved else ".outdated"))
    check_out(tmp_path / "recording.wav", tmp_path / "film.mp4")


def test_nothing_else_is_replaced(dog_and_bird, tmp_path):
    own = tmp_path / "film.mp4"
    own.write_bytes((dog_and_bird / "film.mp4").read_bytes())
    before = own.read_bytes()
    result = CliRunner().invoke(app, ["film", str(own), "--out", str(own)])
    assert result.exit_code == 2 and "is the recording itself" in result.output and own.read_bytes() == before
    result = CliRunner().invoke(app, ["film", DOG_AND_BIRD, "--out", str(dog_and_bird / "other.mp4")])
    assert result.exit_code == 2 and "the captions of film.mp4 are in this folder" in result.output


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((DOG_AND_BIRD, "--out", "film.avi"), "has to end with .mp4"),
        (("-", "--out", "film.mp4"), "standard input"),
        (("gone.wav", "--out", "film.mp4"), "gone.wav"),
        (("examples", "--out", "film.mp4"), "is a folder"),
        (("silent.wav", "--out", "film.mp4"), "silent.wav: is silent.\n"),
        ((DOG_AND_BIRD, "--out", "film.mp4", "--max-duration", "2"), "longer"),
    ],
)
def test_wrong_use_is_one_line(arguments, word, tmp_path, monkeypatch):
    arguments = [argument.replace("film.", f"{tmp_path}/film.") for argument in arguments]
    if arguments[0] == "silent.wav":
        arguments[0] = str(tmp_path.parent / "silent.wav")
        soundfile.write(arguments[0], np.zeros(32000), 16000)
    result = CliRunner().invoke(app, ["film", *arguments])
    assert result.exit_code == 2 and word in result.output
    assert not list(tmp_path.iterdir())
