"""Makes diffusers load this package's classes by name, from a folder and from the Hub."""

import sys
from contextlib import suppress
from types import ModuleType

from wrapt import register_post_import_hook


COMPONENTS = ("AudioVisualSeparator", "WhisperAudioEncoder", "YamnetEncoder", "YamnetFeatureExtractor")


def register(package: ModuleType) -> None:
    """
    Enter the package's own components in diffusers' tables of loadable classes, and the pipeline in its namespace: at
    once if diffusers' pipelines are imported already, otherwise as soon as they are.

    Checkpoints then name them `["avgas_pipeline", class]`, whatever file they are defined in. `package` has to expose
    `AVGASPipeline` and every component class at top level; it is asked for one when diffusers loads it.

    Where a version of diffusers keeps the tables elsewhere, diffusers works as without this package, and importing the
    package's pipeline raises an `ImportError`.
    """

    def enter(_: ModuleType) -> None:
        with suppress(ImportError):
            _enter_components(package)
            _enter_pipeline(package)

    register_post_import_hook(enter, "diffusers.pipelines.pipeline_loading_utils")
    register_post_import_hook(lambda _: _enter_components(package), f"{package.__name__}.pipeline_avgas")


def _enter_components(package: ModuleType) -> None:
    try:
        # Waits for another thread that is in the middle of importing it.
        from diffusers.pipelines.pipeline_loading_utils import ALL_IMPORTABLE_CLASSES, LOADABLE_CLASSES
    except ImportError as error:
        version = sys.modules["diffusers"].__version__
        raise ImportError(
            f"{package.__name__} can't register its classes with diffusers {version}; use a tested version."
        ) from error
    components = {name: ["save_pretrained", "from_pretrained"] for name in COMPONENTS}
    LOADABLE_CLASSES[package.__name__] = components
    ALL_IMPORTABLE_CLASSES.update(components)


def _enter_pipeline(package: ModuleType) -> None:
    diffusers = sys.modules["diffusers"]

    class DiffusersWithAVGAS(type(diffusers)):
        # A property, since the pipeline can't be imported yet: it needs what diffusers is about to define.
        @property
        def AVGASPipeline(self) -> type:
            return package.AVGASPipeline

    diffusers.__class__ = DiffusersWithAVGAS
