"""
Write the recordings that are for measuring only, and manifests of them: each alone, and mixtures of two.

    python training/mini/make_wild.py more-sounds/train.parquet --groups more-sounds/evaluation_groups.txt \\
        --output_dir runs/wild
    avgas evaluate --model avgas-mini --data runs/wild --split train --manifest runs/wild/single.jsonl --no-draw \\
        --out runs/wild-report

The table has `id`, `label`, `source_group` and `audio`; `groups` are the source groups to take, one a line.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset, Features, Value

from avgas_pipeline.data.mixtures import MixtureSampler
from avgas_pipeline.data.plans import write_manifest
from avgas_pipeline.files import atomic_folder


COLUMNS = ("id", "label", "source_group", "audio")
FEATURES = Features({**{name: Value("string") for name in COLUMNS[:-1]}, "audio": Value("binary")})
NUM_PAIRS = 500


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="a Parquet table of clips")
    parser.add_argument("--groups", type=Path, required=True, help="a text file of source groups")
    parser.add_argument("--seed", type=int, default=0, help="of the mixtures")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/wild"))
    args = parser.parse_args(argv)
    for path in (args.table, args.groups):
        if not path.is_file():
            parser.error(f"{path}: no such file.")
    groups = set(args.groups.read_text(encoding="utf-8").split("\n")) - {""}
    table = Dataset.from_parquet(str(args.table))
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        parser.error(f"{args.table}: has no column {missing[0]!r}.")
    chosen = [number for number, group in enumerate(table["source_group"]) if group in groups]
    if not chosen:
        parser.error(f"{args.groups}: names no source group of {args.table}.")
    rows = [dict(row) for row in table.select(chosen).select_columns(list(COLUMNS))]
    for row in rows:
        if isinstance(row["audio"], dict):
            row["audio"] = row["audio"]["bytes"]
    sampler = MixtureSampler(rows, seed=args.seed, target=None)
    with atomic_folder(args.output_dir) as folder:
        Dataset.from_list(rows, features=FEATURES).to_parquet(folder / "train.parquet")
        write_manifest([sampler.plan_single(row["id"]) for row in rows], folder / "single.jsonl")
        write_manifest([sampler.plan(number, num_sources=2) for number in range(NUM_PAIRS)], folder / "pairs.jsonl")
    print(f"{args.output_dir}: {len(rows)} clips of {len({row['label'] for row in rows})} labels, {NUM_PAIRS} pairs")


if __name__ == "__main__":
    main()
