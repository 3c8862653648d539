"""
Write the folder of a Hub Space: this folder's app and card, the package, the example recordings, and the list of what
the package needs.

    python space/assemble.py runs/space
    hf repos create USER/soundscapes --type space --space-sdk gradio
    hf upload USER/soundscapes runs/space --repo-type space
"""

import argparse
import shutil
from collections.abc import Sequence
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement

import avgas_pipeline
from avgas_pipeline.demo.serving import EXAMPLES
from avgas_pipeline.files import atomic_folder, write_text


SPACE = Path(__file__).parent
PACKAGE = Path(avgas_pipeline.__file__).parent
EXTRA = "demo"
# Its torch is a quarter as large as the one with CUDA.
CPU_INDEX = "--extra-index-url https://download.pytorch.org/whl/cpu"
LEFT_OUT = shutil.ignore_patterns("__pycache__")


def requirements() -> list[str]:
    """Of the package and its extra, as pip reads them; Spaces have gradio already."""
    needed = map(Requirement, requires("avgas-pipeline") or [])
    chosen = [each for each in needed if each.marker is None or each.marker.evaluate({"extra": EXTRA})]
    return sorted(f"{each.name}{each.specifier}" for each in chosen)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="Folder that is written; it must not exist.")
    args = parser.parse_args(argv)
    if args.out.exists():
        parser.error(f"{args.out} exists already.")
    with atomic_folder(args.out) as folder:
        for name in ("app.py", "README.md"):
            shutil.copyfile(SPACE / name, folder / name)
        shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=LEFT_OUT)
        shutil.copytree(EXAMPLES, folder / "examples", ignore=LEFT_OUT)
        write_text(folder / "requirements.txt", "\n".join([CPU_INDEX, *requirements()]) + "\n")
    print(f"{args.out}: a Space of {avgas_pipeline.__version__}")


if __name__ == "__main__":
    main()
