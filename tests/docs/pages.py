"""Reads the documentation: its pages, links, blocks of code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *(ROOT / "tests" / name for name in ("README.md", "upgrade/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]

_BLOCK = re.compile(r"^```(\w*)[ ]?(.*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")
_INLINE = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True)
class Block:
    """A block of code. ``marks`` is what stands behind the language: ``sql runnable``."""

    page: Path
    language: str
    marks: str
    code: str

    @property
    def name(self) -> str:
        """For the report of a test."""
        return f"{self.page.relative_to(ROOT)}: {self.code.strip().splitlines()[0][:50]}"


def text(page: Path) -> str:
    return page.read_text("utf-8")


def blocks(page: Path) -> list[Block]:
    return [Block(page, *found) for found in _BLOCK.findall(text(page))]


def prose(page: Path) -> str:
    """The page without its blocks of code."""
    return _BLOCK.sub("", text(page))


def links(page: Path) -> list[str]:
    """Where its links lead, outside of code."""
    return _LINK.findall(_INLINE.sub("", prose(page)))


def inline_code(page: Path) -> list[str]:
    return _INLINE.findall(prose(page))


def anchors(page: Path) -> set[str]:
    """The names under which its headings can be linked to, as forges make them."""
    headings = re.findall(r"^#+ +(.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}
