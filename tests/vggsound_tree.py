"""A small VGGSound: real mp4 files, good ones and one of every kind that has to be skipped."""

import io
import tarfile

import av
import numpy as np


GOOD = {
    "---g-f_I2yQ_000001": ("people marching", "test"),
    "0bC_ef-hij__000030": ("waterfall burbling", "train"),
    "__9O4XZOge4_000030": ("female speech, woman speaking", "train"),
    "a_b_c_d_e_f_000120": ("dog barking", "train"),
    "zzzzzzzzzzz_000000": ("cat meowing", "test"),
}
BAD = {
    "corrupt0000_000010": "broken",
    "silent00000_000010": "silent",
    "nosound0000_000010": "no sound",
    "short000000_000010": "too short",
    "still000000_000010": "still picture",
    "nopicture00_000010": "no picture",
    "cutcutcut00_000010": "broken",
    "missing0000_000010": "missing",
}


def make_clip(seed, seconds=3.0, sound="tones", picture="moving", wave=None):
    """An mp4 with H.264-like video (mpeg4) at 10 frames/s and AAC sound at 44.1 kHz, or a waveform at that rate."""
    rng = np.random.default_rng(seed)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as file:
        video = file.add_stream("mpeg4", rate=10) if picture else None
        audio = file.add_stream("aac", rate=44100, layout="mono") if sound else None
        if video is not None:
            video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
            scene = rng.integers(0, 255, (8, 12, 3)).repeat(8, axis=0).repeat(8, axis=1).astype(np.uint8)
            for number in range(round(10 * seconds)):
                shown = np.roll(scene, 3 * number, axis=1) if picture == "moving" else scene
                # The first half second is black, as many clips begin.
                shown = np.zeros_like(scene) if picture == "moving" and number < 5 else shown
                file.mux(video.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
            file.mux(video.encode(None))
        if audio is not None:
            time = np.arange(round(44100 * seconds)) / 44100
            level = 0.0 if sound == "silence" else 0.3
            if wave is None:
                wave = (level * np.sin(2 * np.pi * (200 + 100 * (seed % 20)) * time)).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
            frame.sample_rate = 44100
            audio.codec_context.open(strict=False)
            resampler = av.AudioResampler("fltp", "mono", 44100, frame_size=audio.codec_context.frame_size)
            for piece in [*resampler.resample(frame), *resampler.resample(None)]:
                file.mux(audio.encode(piece))
            file.mux(audio.encode(None))
    return buffer.getvalue()


def make_clips():
    """File contents by clip id; `missing0000` has none."""
    clips = {name: make_clip(seed) for seed, name in enumerate(GOOD)}
    clips |= {
        "corrupt0000_000010": b"\x00\x00\x00\x18ftypmp42" + bytes(range(256)) * 20,
        "silent00000_000010": make_clip(20, sound="silence"),
        "nosound0000_000010": make_clip(21, sound=None),
        "short000000_000010": make_clip(22, seconds=0.5),
        "still000000_000010": make_clip(23, picture="still"),
        "nopicture00_000010": make_clip(24, picture=None),
        # The index of an mp4 is at its end, so half of one is no use.
        "cutcutcut00_000010": make_clip(25)[:20000],
    }
    return clips


def write_csv(folder, header=False):
    rows = ["ytid,start,class,set"] if header else []
    labels = {**GOOD, **{name: ("thunder", "train") for name in BAD}}
    for name, (label, split) in labels.items():
        quoted = f'"{label}"' if "," in label else label
        rows.append(f"{name[:11]},{int(name[12:])},{quoted},{split}")
    (folder / "vggsound.csv").write_text("\n".join(rows) + "\n")
    return folder / "vggsound.csv"


def write_folder(folder, clips):
    """Videos in subfolders, one of them with a name that is not ASCII, and files that are none of VGGSound's."""
    write_csv(folder)
    for number, (name, content) in enumerate(clips.items()):
        path = folder / ("vidéos" if number % 2 else "b") / f"{name}.mp4"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    (folder / "b" / "holiday in Zürich.mp4").write_bytes(clips["zzzzzzzzzzz_000000"])
    return folder


def write_shards(folder, clips):
    """Two tar.gz shards: the first has a member that leaves the folder, the second is cut short after its clips."""
    folder.mkdir(exist_ok=True)
    write_csv(folder)
    names = list(clips)
    for number, members in enumerate((names[: len(names) // 2], names[len(names) // 2 :])):
        path = folder / f"vggsound_{number:02d}.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            if number == 0:
                add(archive, "../../escape/zzzzzzzzzzz_000000.mp4", b"evil")
            for name in members:
                add(archive, f"scratch/shared/video/{name}.mp4", clips[name])
            if number == 1:
                add(archive, "scratch/shared/video/tail0000000_000000.mp4", np.random.default_rng(0).bytes(400_000))
        if number == 1:
            path.write_bytes(path.read_bytes()[:-150_000])
    return folder


def add(archive, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
