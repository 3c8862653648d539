"""The walls of docs/architecture.md: which folder may import which, and how large a module may be."""

import ast
from pathlib import Path

import diffusers.pipelines
import pytest


ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src/avgas_pipeline"
TRAINING = ROOT / "training"
# A folder, or a module at the top, and what it may import beside itself.
BOTTOM = {"errors", "files", "audio"}
MODELS = BOTTOM | {"models"}
OUTPUT = {"errors", "pipeline_output"}
SEPARATION = MODELS | OUTPUT | {"separation"}
LOADERS = MODELS | {"loaders", "model_card"}
PAINTING = {"prompts", "weighted_prompts", "painting"}
PIPELINE = (
    SEPARATION
    | LOADERS
    | PAINTING
    | {"composition", "conditioning", "denoising", "exclusive", "input_checks", "layout", "pipeline_avgas", "settings"}
)
DATA = BOTTOM | {"data", "sounds"}
MAY_IMPORT = {
    "errors": set(),
    "files": set(),
    "audio": {"errors", "files"},
    "models": BOTTOM,
    "pipeline_output": set(),
    "separation": SEPARATION,
    "conditioning": OUTPUT,
    "composition": {"conditioning", "layout"},
    "layout": set(),
    "settings": MODELS,
    "denoising": {"conditioning", "models"},
    "exclusive": set(),
    "input_checks": BOTTOM | OUTPUT,
    "loaders": LOADERS,
    "prompts": OUTPUT | {"conditioning", "loaders"},
    "weighted_prompts": set(),
    "painting": BOTTOM | OUTPUT | PAINTING | {"conditioning", "exclusive", "input_checks", "loaders"},
    "pipeline_avgas": PIPELINE,
    "metrics": {"files", "metrics"},
    "data": DATA,
    "evaluation": PIPELINE | DATA | {"metrics", "evaluation", "version", "web"},
    "printable": set(),
    "version": set(),
    "notices": set(),
    "results": BOTTOM | OUTPUT | {"printable", "results", "version"},
    "web": {"web"},
    "film": PIPELINE | {"film"},
    "demo": PIPELINE | {"demo", "film", "printable", "results", "web"},
    "cli": PIPELINE
    | DATA
    | {"metrics", "evaluation", "film", "demo", "printable", "results", "notices", "version", "cli"},
    # The package's own front door, and `python -m avgas_pipeline`.
    "__init__": PIPELINE | {"version"},
    "__main__": {"cli"},
}


def place(parts):
    """The folder of a dotted module of the package, or its own name at the top; `sounds` stands for itself."""
    return "sounds" if parts == ["loaders", "sounds"] else parts[0] if parts else "__init__"


def imports(path):
    """Modules of the package that a file imports, as lists of their parts."""
    folders = list(path.relative_to(PACKAGE).parts[:-1]) if PACKAGE in path.parents else []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            parents = folders[: len(folders) - node.level + 1]
            yield [*parents, *((node.module or "").split(".") if node.module else [])]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE.name:
            yield node.module.split(".")[1:]
        elif isinstance(node, ast.Import):
            yield from (name.name.split(".")[1:] for name in node.names if name.name.split(".")[0] == PACKAGE.name)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    own = list(path.relative_to(PACKAGE).with_suffix("").parts)
    allowed = MAY_IMPORT[own[0]] | {own[0]}
    if "loaders" in allowed:
        allowed = allowed | {"sounds"}
    reached = {place(parts) for parts in imports(path)}
    assert reached <= allowed, f"{path.relative_to(ROOT)} imports {sorted(reached - allowed)}"


def test_every_folder_has_a_place():
    found = {path.relative_to(PACKAGE).with_suffix("").parts[0] for path in PACKAGE.rglob("*.py")}
    assert found == set(MAY_IMPORT)


@pytest.mark.parametrize("name", ["models", "audio", "separation", "loaders"])
def test_nothing_is_imported_from_a_folder(name):
    """Remote code is a flat folder, so its modules are imported one by one."""
    for path in PACKAGE.rglob("*.py"):
        assert [name] not in list(imports(path)), path
    assert "import" not in (PACKAGE / name / "__init__.py").read_text(encoding="utf-8")


def test_no_folder_is_named_like_a_pipeline_of_diffusers():
    """diffusers would take the package's classes for those of that pipeline."""
    folders = [path.name for path in PACKAGE.iterdir() if path.is_dir()]
    assert not [name for name in (PACKAGE.name, *folders) if hasattr(diffusers.pipelines, name)]


def test_the_library_of_training_imports_no_script():
    scripts = {path.stem for path in (*TRAINING.glob("*.py"), *TRAINING.glob("mini/*.py"))}
    for path in (TRAINING / "avgas_training").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [name.name for name in node.names] if isinstance(node, ast.Import) else []
            assert not scripts & {name.split(".")[0] for name in names}, path


def test_modules_are_small():
    limits = {"pipeline_avgas.py": 700}
    for path in (*PACKAGE.rglob("*.py"), *TRAINING.rglob("*.py")):
        count = len(path.read_text(encoding="utf-8").splitlines())
        assert count <= limits.get(path.name, 500), f"{path.relative_to(ROOT)} has {count} lines"


def test_the_map_names_every_folder():
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    for path in PACKAGE.iterdir():
        if path.is_dir() and not path.name.startswith("_"):
            assert f"`{path.name}/`" in text
