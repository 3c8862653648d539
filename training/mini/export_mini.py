"""
Make the shipped checkpoint of what `train_mini.py` trained: half precision, model card with samples.

    python training/mini/export_mini.py runs/mini/calibrated src/avgas_pipeline/checkpoints/avgas-mini \\
        --reports runs/mini/report-1 runs/mini/report-2 runs/mini/report-3

The reports' tables go into the card.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import torch
from build_mini import LABEL_THRESHOLD
from diffusers import ModelMixin
from results_table import results_table
from trained_on import note

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.data.mixtures import MixtureSampler
from avgas_pipeline.data.plans import read_manifest
from avgas_pipeline.data.soundscapes_mini import load_soundscapes_mini
from avgas_pipeline.files import atomic_folder
from avgas_pipeline.loaders.model_card import create_model_card


CARD = Path(__file__).parents[2] / "model_card/avgas_mini.md"
METADATA = {
    "datasets": ["soundscapes-mini"],
    "license_name": "free-licences-of-its-parts",
    "license_link": "README.md#data-and-licences",
}
# Rows and columns of the samples; side of one, the gap between two, and what is below for its labels, in pixels.
GRID, SIDE, GAP, CAPTION = 8, 160, 12, 34


def export(trained: Path, out: Path, data: Path, reports: Sequence[Path] = ()) -> None:
    """
    Write the checkpoint.

    Args:
        trained (`Path`): Pipeline that `train.py` wrote.
        out (`Path`): Folder, replaced if it is there.
        data (`Path`): soundscapes-mini, for the samples.
        reports (`Sequence[Path]`): Folders that `avgas evaluate` wrote, for the card.
    """
    pipe = AVGASPipeline.from_pretrained(trained)
    mini = AVGASPipeline(**pipe.components, label_threshold=LABEL_THRESHOLD)
    for name, part in mini.components.items():
        if isinstance(part, ModelMixin):
            # Else it would be the folder of this run.
            part.register_to_config(_name_or_path=f"checkpoints/avgas-mini/{name}")
    text = CARD.read_text(encoding="utf-8")
    text = text.replace("MEASURED", "\n\n".join(map(measured, reports)) or "Nothing yet.")
    card = create_model_card(mini, "avgas-mini", license="other", training=text, metadata=METADATA)

    with atomic_folder(out, overwrite=True) as folder:
        mini.to(torch.float16).save_pretrained(folder)
        card.save(folder / "README.md")
        note(folder, data=data)
        # What is drawn is what was saved.
        draw_samples(AVGASPipeline.from_pretrained(folder), data).save(folder / "samples.jpg", quality=90)


def measured(report: Path) -> str:
    """What a report says of a model, with the command that says it."""
    found = json.loads((report / "report.json").read_text(encoding="utf-8"))
    data, settings = found["data"], next(iter(found["systems"].values()))
    command = f"avgas evaluate --model avgas-mini --data data/soundscapes-mini --manifest {data['manifest']}"
    command += " --judge judges/soundscapes-mini --out report"
    for name in list(found["results"]["sound"])[1:]:
        command += f" --baseline {name}" if name == "oracle" else f" --baseline {name}=CHECKPOINT"
    if settings["draw"]:
        drawn = f"; {settings['num_inference_steps']} steps, guidance {settings['guidance_scale']:g}"
    else:
        command, drawn = f"{command} --no-draw", ""
    amount = f"{data['num_soundscapes']} soundscapes of the test split"
    about = f"{amount}, in percent with 95 % intervals (`{command}`{drawn}):"
    return f"{about}\n\n{results_table(found)}"


def draw_samples(pipe: AVGASPipeline, data: Path) -> PIL.Image.Image:
    """Mixed images of the first test mixtures of two sources, with seeds from 0 on, row by row, and what was heard."""
    mixtures = MixtureSampler(*load_soundscapes_mini(data, "test"), sampling_rate=pipe.sampling_rate)
    plans = read_manifest(data / "manifests/test-2.jsonl")[: GRID**2]
    cell = (SIDE + GAP, SIDE + CAPTION + GAP)
    sheet = PIL.Image.new("RGB", (GRID * cell[0] + GAP, GRID * cell[1] + GAP), "white")
    draw, font = PIL.ImageDraw.Draw(sheet), PIL.ImageFont.load_default(12)
    for start in range(0, len(plans), GRID):
        seeds = range(start, start + GRID)
        out = pipe(
            [mixtures.render(plans[number]).waveform for number in seeds],
            sampling_rate=pipe.sampling_rate,
            num_sources=2,
            return_audio=False,
            generator=[torch.Generator().manual_seed(number) for number in seeds],
        )
        for column, (image, sources) in enumerate(zip(out.images, out.sources, strict=True)):
            left, top = GAP + column * cell[0], GAP + start // GRID * cell[1]
            sheet.paste(image.resize((SIDE, SIDE), PIL.Image.Resampling.LANCZOS), (left, top))
            names = "\n".join(source.name[:26] for source in sources)
            draw.multiline_text((left, top + SIDE + 2), names, "black", font, spacing=2)
    return sheet


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trained", type=Path, help="folder of the trained pipeline")
    parser.add_argument("out", type=Path, help="folder of the shipped checkpoint")
    parser.add_argument("--dataset", type=Path, default=Path("data/soundscapes-mini"), help="soundscapes-mini")
    parser.add_argument("--reports", type=Path, nargs="+", default=[], help="folders that avgas evaluate wrote")
    args = parser.parse_args(argv)
    for path in (args.trained, args.dataset, *(report / "report.json" for report in args.reports)):
        if not path.exists():
            parser.error(f"{path}: no such file or folder.")
    export(args.trained, args.out, args.dataset, args.reports)
    print(f"{args.out}: {sum(file.stat().st_size for file in args.out.rglob('*')) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
