"""Documentation that can go stale: links, quoted messages, commands, make targets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jmp_lib.__main__ import parser

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NOT_OURS = ("No matching distribution found for torch", "No module named 'jmp_lib'", "No such kernel named python3",
            "CUDA out of memory")
each = pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)


@each
def test_links_and_pictures_lead_to_files(page):
    named = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()) + re.findall(r'src="([^"]+)"', page.read_text())
    files = [name for name in named if not name.startswith("http")]
    assert not [name for name in files if not (page.parent / name).exists()]


def test_quoted_messages_are_those_of_the_code():
    code = "\n".join(path.read_text() for path in [*(ROOT / "jmp_lib").rglob("*.py"), ROOT / "Makefile"])
    joined = re.sub(r'"\s*\n\s*f?"', "", code)  # texts over several lines
    quoted = re.findall(r"^### `(.+)`$", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)
    assert len(quoted) >= 15
    assert not [words for words in quoted if words not in joined and words not in NOT_OURS]


@each
def test_commands_exist(page):
    known = next(a for a in parser()._actions if getattr(a, "choices", None) and "reproduce" in a.choices).choices
    used = set(re.findall(r"-m jmp_lib ([a-z][\w-]*)", page.read_text()))
    assert not used - set(known)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert not set(re.findall(r"(?:^|`)make ([a-z][a-z-]*)", page.read_text(), re.MULTILINE)) - targets


@each
def test_lines_of_text_stay_readable(page):
    lines = [line for line in page.read_text().splitlines() if not line.startswith(("|", "    ", "!", "Speed-up"))]
    assert all(len(line) <= 130 for line in lines), [line for line in lines if len(line) > 130]
