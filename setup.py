import runpy
from pathlib import Path

from setuptools import find_packages, setup


VERSION_FILE = Path(__file__).with_name("src") / "avgas_pipeline/version.py"

evaluation = ["torchmetrics>=1.6", "datasets>=4.0"]
# Training validates with the evaluation's metrics.
train = [*evaluation, "jsonargparse>=4.53", "pyyaml", "tensorboard", "threadpoolctl>=3.0"]
demo = ["gradio>=6.0"]
ray = ["ray[data]>=2.40", "datasets>=4.0"]
tools = [
    "axe-core-python>=0.1",
    "hypothesis>=6.100",
    "ipykernel>=6.29",
    "nbclient>=0.10",
    "psutil>=5.9",
    "pytest>=8.0",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.5",
    "resvg-py>=0.2",
    "ruff>=0.6",
    "selenium>=4.20",
    "torchsde>=0.2.6",
]
dev = [*train, *demo, *ray, *tools]

setup(
    name="avgas-pipeline",
    version=runpy.run_path(str(VERSION_FILE))["VERSION"],
    description="See what a soundscape sounds like: separate its sources and draw them with diffusion.",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    keywords="audio-to-image diffusion sound-separation soundscape diffusers av-gas",
    package_dir={"": "src", "avgas_pipeline.model_card": "model_card"},
    packages=[*find_packages("src"), "avgas_pipeline.model_card"],
    package_data={
        "avgas_pipeline": ["checkpoints/*/*", "checkpoints/*/*/*", "demo/*.css", "data/*.csv"],
        "avgas_pipeline.model_card": ["*.md", "*.csv"],
    },
    python_requires=">=3.10",
    install_requires=[
        "accelerate>=1.0",
        "av>=14.0",
        "diffusers>=0.42",
        "filelock>=3.12",
        "huggingface_hub>=1.0",
        "jinja2>=3.0",
        "matplotlib>=3.8",
        "numpy>=1.26",
        "peft>=0.17",
        "pillow>=10.0",
        "safetensors>=0.4",
        "scipy>=1.11",
        "soundfile>=0.12",
        "soxr>=0.5",
        "torch>=2.6",
        "transformers>=5.0",
        "typer>=0.12",
        "wrapt>=1.16",
    ],
    extras_require={"train": train, "eval": evaluation, "demo": demo, "ray": ray, "dev": dev},
    entry_points={"console_scripts": ["avgas=avgas_pipeline.cli:main"]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3",
        "Topic :: Multimedia :: Sound/Audio :: Analysis",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
