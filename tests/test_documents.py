"""What the documents point to is there."""

import re
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("*/*/README.md")]
DOCUMENTS = sorted(path for path in DOCUMENTS if not any(part.startswith(".") for part in path.parts[1:]))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_to_files(path):
    links = re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link and not link.startswith("mailto:")]
    assert [link for link in local if not (path.parent / link).exists()] == []


def test_every_test_that_shows_reliability_exists():
    file, missing, found = None, [], 0
    for cell in re.findall(
        r"\| ([^|]*) \|$", (ROOT / "docs/reliability.md").read_text(encoding="utf-8"), re.MULTILINE
    ):
        for name in re.findall(r"`([^`]+)`", cell):
            if name.endswith(".py") or "::" in name:
                file = name.split("::")[0]
            test = name.split("::")[-1]
            path = ROOT / "tests" / file
            if not path.is_file() or (test != file and f"def {test}(" not in path.read_text(encoding="utf-8")):
                missing.append(name)
            found += 1
    assert missing == [] and found > 40
