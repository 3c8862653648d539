"""Makes diffusers load this package's classes by name, from a folder and from the Hub, once it is imported."""

from types import ModuleType

import diffusers


COMPONENTS = ("AudioVisualSeparator", "WhisperAudioEncoder", "YamnetEncoder", "YamnetFeatureExtractor")


def register(package: ModuleType) -> None:
    """
    Enter the package's own components in diffusers' tables of loadable classes, and the pipeline in its namespace.

    Checkpoints then name them `["avgas_pipeline", class]`, whatever file they are defined in. `package` has to expose
    `AVGASPipeline` and every component class at top level.

    Raises:
        ImportError: If this version of diffusers keeps the tables elsewhere.
    """
    try:
        from diffusers.pipelines.pipeline_loading_utils import ALL_IMPORTABLE_CLASSES, LOADABLE_CLASSES
    except ImportError as error:
        raise ImportError(
            f"avgas_pipeline can't register its classes with diffusers {diffusers.__version__}; use a tested version."
        ) from error
    methods = ["save_pretrained", "from_pretrained"]
    components = dict.fromkeys(COMPONENTS, methods)
    LOADABLE_CLASSES[package.__name__] = components
    ALL_IMPORTABLE_CLASSES.update(components)
    diffusers.AVGASPipeline = package.AVGASPipeline
