"""A small data set of tones with coloured shapes, and an untrained checkpoint for its labels."""

import io

import numpy as np
import PIL.Image
import PIL.ImageDraw
import soundfile
from datasets import Dataset
from tiny import save_tiny_judge, tiny_ast, tiny_components, tiny_separator

from avgas_pipeline import AVGASPipeline


# Tones apart from each other, so that masks can separate them.
CLASSES = {
    "cat meowing": (900, "red"),
    "dog barking": (400, "green"),
    "raining": (5000, "blue"),
    "sea waves": (2200, "black"),
    "thunder": (150, "orange"),
}


def write_clips(folder, groups_per_label=3):
    """Parquet of clips with pictures of their own."""
    rows = []
    for number, (label, (frequency, colour)) in enumerate(CLASSES.items()):
        for group in range(groups_per_label):
            rng = np.random.default_rng([number, group])
            time = np.arange(16000 * 2) / 16000
            tone = np.sin(2 * np.pi * frequency * (1 + 0.03 * group) * time + rng.uniform(0, 6))
            wave = 0.3 * tone * (0.6 + 0.4 * np.sin(2 * np.pi * rng.uniform(1, 4) * time))
            rows.append(
                {
                    "id": f"{label}-{group}",
                    "label": label,
                    "source_group": f"{label}-{group}",
                    "audio": encode_sound(wave + 0.001 * rng.standard_normal(len(wave))),
                    "image": encode_picture(colour, group),
                }
            )
    folder.mkdir(parents=True, exist_ok=True)
    Dataset.from_list(rows).to_parquet(folder / "train-0.parquet")
    return folder


def encode_sound(wave):
    buffer = io.BytesIO()
    soundfile.write(buffer, wave.astype(np.float32), 16000, format="FLAC")
    return buffer.getvalue()


def encode_picture(colour, group):
    picture = PIL.Image.new("RGBA", (64, 64))
    draw = PIL.ImageDraw.Draw(picture)
    shape = (draw.ellipse, draw.rectangle, draw.rounded_rectangle)[group % 3]
    shape((4, 4 + 4 * group, 60, 60 - 4 * group), fill=colour)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def write_checkpoint(folder, **separator):
    """An untrained pipeline with AST, for the labels above, and masks fine enough to separate them."""
    components = tiny_components()
    encoder, extractor = tiny_ast()
    settings = {"hidden_dim": 32, "mask_channels": 16, "num_mask_bands": 48, "n_fft": 512, "hop_length": 128}
    settings |= {"id2label": dict(enumerate(CLASSES)), "num_slots": 3, "visual_embed_dim": 16, **separator}
    components |= {"audio_encoder": encoder, "audio_feature_extractor": extractor}
    components["separator"] = tiny_separator(**settings)
    AVGASPipeline(**components).save_pretrained(folder)
    return folder


def write_training_inputs(folder):
    """`clips`, `untrained` and `image-encoder`."""
    write_clips(folder / "clips")
    write_checkpoint(folder / "untrained")
    save_tiny_judge(folder / "image-encoder", list(CLASSES))
    return folder
