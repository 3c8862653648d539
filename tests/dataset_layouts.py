"""Small data sets in the layouts that people have, of real files."""

import csv
import io
import json
import tarfile
import zipfile

import numpy as np
import PIL.Image
import soundfile
from datasets import Audio, ClassLabel, Dataset, Features, Image, List, Value, Video
from typer.testing import CliRunner
from vggsound_tree import add, make_clip

from avgas_pipeline.cli import app
from avgas_pipeline.data.layouts.columns import ColumnMap
from avgas_pipeline.data.layouts.detect import read_layout


# Clips of different sounds, by VGGSound's names of clips.
CLIPS = {
    "---g-f_I2yQ_000001": "people marching",
    "0bC_ef-hij__000030": "waterfall burbling",
    "a_b_c_d_e_f_000120": "dog barking",
}
NAMES = sorted(set(CLIPS.values()))


def make_sound(seed, rate=44100, seconds=2.0):
    """A WAV file's bytes."""
    time = np.arange(round(rate * seconds)) / rate
    buffer = io.BytesIO()
    soundfile.write(buffer, 0.3 * np.sin(2 * np.pi * (300 + 150 * seed) * time), rate, format="WAV")
    return buffer.getvalue()


def make_picture(seed):
    """A PNG file's bytes."""
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (40, 30), (40 * seed, 200, 20)).save(buffer, "PNG")
    return buffer.getvalue()


def to_parquet(rows, features, path):
    """As `datasets` writes media that it was given as files: encoding samples would need torchcodec."""
    stored = {"bytes": Value("binary"), "path": Value("string")}
    media = (Audio, Video, Image)
    plain = {name: stored if isinstance(feature, media) else feature for name, feature in features.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_dict(rows, features=Features(plain)).cast(Features(features)).to_parquet(path)


def write(path, content):
    """A file, and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def folder_per_clip(folder):
    """`metadata.csv` and `video/<clip>/video.mp4`."""
    rows = [("file_name", "text")]
    for seed, (name, label) in enumerate(CLIPS.items()):
        write(folder / "video" / name / "video.mp4", make_clip(seed))
        rows.append((f"video/{name}/video.mp4", label))
    with (folder / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return {name: [label] for name, label in CLIPS.items()}


def parquet_with_video(folder):
    """A split `test` with `video`, `audio` and numbers of labels, without ids."""
    features = {"video": Video(), "audio": Audio(), "label": ClassLabel(names=NAMES)}
    rows = {
        "video": [{"bytes": make_clip(seed), "path": None} for seed in range(3)],
        "audio": [{"bytes": make_sound(seed), "path": "a.wav"} for seed in range(3)],
        "label": [NAMES.index(label) for label in CLIPS.values()],
    }
    to_parquet(rows, features, folder / "test-00000-of-00001.parquet")
    return {f"test-00000-{number:06d}": [label] for number, label in enumerate(CLIPS.values())}


def audioset(folder):
    """AudioSet's Parquet: sounds with machine ids and names of several labels."""
    audio, labels = Audio(), List(Value("string"))
    features = {"video_id": Value("string"), "audio": audio, "labels": labels, "human_labels": labels}
    names = [["Dog", "Bark"], ["Rain"], ["Speech", "Music"]]
    rows = {
        "video_id": [name[:11] for name in CLIPS],
        "audio": [{"bytes": make_sound(seed), "path": "a.flac"} for seed in range(3)],
        "labels": [["/m/0bt9lr", "/m/05tny_"], ["/m/06mb1"], ["/m/09x0r", "/m/04rlf"]],
        "human_labels": names,
    }
    to_parquet(rows, features, folder / "train-00000-of-00001.parquet")
    return {name[:11]: list(each) for name, each in zip(CLIPS, names, strict=True)}


def parquet_with_pictures(folder):
    """Sounds and pictures, and columns with names of their own."""
    features = {"name": Value("string"), "sound": Audio(), "photo": Image(), "what": Value("string")}
    rows = {
        "name": list(CLIPS),
        "sound": [{"bytes": make_sound(seed), "path": "a.wav"} for seed in range(3)],
        "photo": [{"bytes": make_picture(seed), "path": None} for seed in range(3)],
        "what": list(CLIPS.values()),
    }
    to_parquet(rows, features, folder / "train.parquet")
    return {name: [label] for name, label in CLIPS.items()}


def class_folders(folder):
    """Folders of labels with sounds, a video, and a sound with its picture; one label has the name of a split."""
    write(folder / "train horning" / "a.wav", make_sound(0))
    write(folder / "dog barking" / "b.mp4", make_clip(1))
    write(folder / "sea waves" / "c.flac", make_sound(2))
    write(folder / "sea waves" / "c.png", make_picture(2))
    return {"train horning/a": ["train horning"], "dog barking/b": ["dog barking"], "sea waves/c": ["sea waves"]}


def zip_of_class_folders(folder):
    """The same in an archive, with splits."""
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / "clips.zip", "w") as archive:
        archive.writestr("clips/train/dog barking/b.mp4", make_clip(1))
        archive.writestr("clips/train/sea waves/c.wav", make_sound(2))
        archive.writestr("clips/test/dog barking/d.wav", make_sound(3))
    return {
        "clips/clips/train/dog barking/b": ["dog barking"],
        "clips/clips/train/sea waves/c": ["sea waves"],
        "clips/clips/test/dog barking/d": ["dog barking"],
    }


def audiofolder(folder):
    """`metadata.jsonl` in folders of splits."""
    for split, seed in (("train", 0), ("test", 1)):
        write(folder / split / f"{split}-{seed}.wav", make_sound(seed))
        row = {"file_name": f"{split}-{seed}.wav", "label": "dog barking", "more": [1]}
        (folder / split / "metadata.jsonl").write_text(json.dumps(row) + "\n")
    return {"train/train-0": ["dog barking"], "test/test-1": ["dog barking"]}


def webdataset(folder):
    """A tar archive of sounds, pictures and labels by keys."""
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / "train-000.tar", "w") as archive:
        for seed, (name, label) in enumerate(CLIPS.items()):
            for suffix, content in (("flac", make_sound(seed)), ("jpg", make_picture(seed)), ("txt", label.encode())):
                add(archive, f"clip_{name}.{suffix}", content)
    return {f"clip_{name}": [label] for name, label in CLIPS.items()}


def to_zip(path, members):
    """A ZIP archive of files by name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def to_tar(path, members):
    """A tar archive of files by name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            add(archive, name, content)


def esc50(folder):
    """`meta/esc50.csv` and `audio`."""
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    expected = {}
    for seed, category in enumerate(("dog", "sea_waves", "crackling_fire")):
        name = f"{seed % 5 + 1}-10{seed}-A-{seed}"
        write(folder / "audio" / f"{name}.wav", make_sound(seed))
        rows.append(f"{name}.wav,{seed % 5 + 1},{seed},{category},False,10{seed},A")
        expected[name] = [category.replace("_", " ")]
    write(folder / "meta/esc50.csv", "\n".join(rows).encode())
    return expected


def fsd50k(folder):
    """Ground truth and sounds of both parts."""
    write(folder / "FSD50K.dev_audio/64760.wav", make_sound(0))
    write(folder / "FSD50K.dev_audio/16399.wav", make_sound(1))
    write(folder / "FSD50K.eval_audio/37199.wav", make_sound(2))
    rows = ["fname,labels,mids,split", '64760,"Electric_guitar,Music","/m/02sgy,/m/04rlf",train']
    rows.append("16399,Bark,/m/05tny_,val")
    write(folder / "FSD50K.ground_truth/dev.csv", "\n".join(rows).encode())
    write(folder / "FSD50K.ground_truth/eval.csv", b"fname,labels,mids\n37199,Rain,/m/06mb1\n")
    return {"64760": ["Electric guitar", "Music"], "16399": ["Bark"], "37199": ["Rain"]}


# What writes each, the layout that it is, and the columns that have to be said.
LAYOUTS = {
    "folder per clip": (folder_per_clip, "metadata", None),
    "Parquet with video": (parquet_with_video, "table", None),
    "AudioSet": (audioset, "table", None),
    "Parquet with pictures": (parquet_with_pictures, "table", "id=name,audio=sound,image=photo,label=what"),
    "class folders": (class_folders, "class-folders", None),
    "ZIP archive": (zip_of_class_folders, "class-folders", None),
    "audiofolder": (audiofolder, "metadata", None),
    "WebDataset": (webdataset, "table", None),
    "ESC-50": (esc50, "esc50", None),
    "FSD50K": (fsd50k, "fsd50k", None),
}


def prepare(folder, out, columns, *options):
    arguments = ["prepare", str(folder), "--out", str(out), *options]
    return CliRunner().invoke(app, arguments + ([] if columns is None else ["--columns", columns]))


def splits_of(folder, columns):
    return sorted({part.split or "train" for part in read_layout(folder, None, ColumnMap.parse(columns)).parts})
