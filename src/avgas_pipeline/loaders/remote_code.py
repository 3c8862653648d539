"""A second flavour of a checkpoint that carries the pipeline's code, for people who do not pip install it."""

import ast
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import snapshot_download

from ..files import atomic_folder
from .folders import check_folder, locate, read_components


_PACKAGE = Path(__file__).parents[1]
_PIPELINE = "pipeline_avgas"
_CARD = """# With its code inside

This copy of the checkpoint carries the code that runs it, so that `avgas-pipeline` need not be installed. diffusers
runs that code only if you say so, after you have read it:

```python
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("THIS_REPOSITORY_OR_FOLDER", trust_remote_code=True)
out = pipe("recording.wav", separate=True)
```

It needs what the code imports: `pip install diffusers transformers accelerate av soundfile soxr scipy`, and `peft` for
LoRA. `out.save`, `out.overview` and players in notebooks need `avgas-pipeline`. It can't be saved again or loaded by
`from_pipe`, and the command `avgas` does not load it; these need the checkpoint that it was exported from.
"""


def export_remote_code(model: str | os.PathLike, output_dir: str | os.PathLike) -> Path:
    """
    Copy a checkpoint and put the pipeline's code into it.

    The result loads with nothing but diffusers and the pipeline's dependencies installed:
    `DiffusionPipeline.from_pretrained(output_dir, trust_remote_code=True)`. Publish it as a repository or revision of
    its own: where the code files are, people who did install the package have to pass `trust_remote_code` as well.

    Args:
        model (`str` or `os.PathLike`): A checkpoint folder, or a Hub repository.
        output_dir (`str` or `os.PathLike`): Folder to make; written under a temporary name and renamed.

    Returns:
        `Path`: The folder.

    Raises:
        FileNotFoundError: If the checkpoint does not exist or is incomplete.
        FileExistsError: If `output_dir` exists and is not empty.
        ValueError: If the checkpoint's weights are pickled only.
    """
    source = locate(model)
    with atomic_folder(output_dir) as partial:
        if not os.path.isdir(source):
            source = snapshot_download(source)
            check_folder(Path(source))
        shutil.copytree(source, partial, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".git", ".cache"))
        _write_code(partial)
        _write_card(partial)
    return Path(output_dir)


def _write_card(folder: Path) -> None:
    """Says above all else in the card, behind its metadata, how this flavour is loaded."""
    path = folder / "README.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    match = re.match(r"---\n.*?\n---\n", text, re.DOTALL)
    metadata = match[0] if match else ""
    path.write_text(f"{metadata}\n{_CARD}\n{text[len(metadata) :].lstrip()}", encoding="utf-8")


def _write_code(folder: Path) -> None:
    modules = _needed_modules(_PIPELINE)
    for module in modules:
        name = "pipeline" if module == _PIPELINE else _flat_name(module)
        code = _flatten_imports(module)
        if module == _PIPELINE:
            # The component's class comes from a file of its own, so it is another class of the same name.
            code = code.replace("separator: AudioVisualSeparator", "separator: ModelMixin")
            code = code.replace("from diffusers import ", "from diffusers import ModelMixin, ", 1)
            # diffusers copies only the modules that the pipeline's own file imports.
            names = [_flat_name(needed) for needed in modules if needed != module]
            code += "".join(f"from .{name} import __name__ as _{name}  # noqa: E402, F401\n" for name in names)
        (folder / f"{name}.py").write_text(code, encoding="utf-8")

    index_path = folder / "model_index.json"
    for component, (library, class_name) in read_components(index_path).items():
        if library != _PACKAGE.name:
            continue
        candidates = (module for module in sorted(_PACKAGE.glob("models/*.py")) if _defines(module, class_name))
        module = next(candidates, None)
        if module is None:
            raise ValueError(f"{index_path}: this package has no class {class_name!r}.")
        # diffusers looks for a component's class in a file named after its library, inside its folder, and downloads
        # that one alone.
        path = folder / component / f"{_PACKAGE.name}.py"
        path.write_text(_in_one_file(f"models.{module.stem}"), encoding="utf-8")
    index = json.loads(index_path.read_text(encoding="utf-8"))
    index["_class_name"] = ["pipeline", "AVGASPipeline"]
    index_path.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _needed_modules(module: str) -> list[str]:
    """`module`, dotted and without the package's name, and all of this package that it imports, directly or not."""
    found = [module]
    for name in found:
        found += [target for _, target in _relative_imports(name) if target not in found]
    return found


def _relative_imports(module: str) -> Iterator[tuple[ast.ImportFrom, str]]:
    """Every `from .… import …` of a module, with the module of this package that it means."""
    folders = module.split(".")[:-1]
    for node in ast.walk(ast.parse(_read(module))):
        if isinstance(node, ast.ImportFrom) and node.level:
            parents = folders[: len(folders) - node.level + 1]
            yield node, ".".join([*parents, node.module])


def _flatten_imports(module: str) -> str:
    """A module's code for a folder without subfolders, since diffusers copies none: siblings by their flat names."""
    lines = _read(module).splitlines(keepends=True)
    for node, target in _relative_imports(module):
        line = lines[node.lineno - 1]
        own = f"from {'.' * node.level}{node.module} import"
        lines[node.lineno - 1] = line.replace(own, f"from .{_flat_name(target)} import", 1)
    return "".join(lines)


def _in_one_file(module: str) -> str:
    """A module's code, after that of all it needs."""
    return "\n\n".join(_without_imports(needed) for needed in reversed(_needed_modules(module)))


def _without_imports(module: str) -> str:
    """A module's code without the imports of others of this package."""
    lines = _read(module).splitlines(keepends=True)
    for node, _ in _relative_imports(module):
        lines[node.lineno - 1 : node.end_lineno] = [""] * (node.end_lineno - node.lineno + 1)
    return "".join(lines)


def _read(module: str) -> str:
    return _PACKAGE.joinpath(*module.split(".")).with_suffix(".py").read_text(encoding="utf-8")


def _flat_name(module: str) -> str:
    # A module must not be called like a component's folder.
    return f"avgas_{module.replace('.', '_')}"


def _defines(path: Path, class_name: str) -> bool:
    return f"class {class_name}(" in path.read_text(encoding="utf-8")
