"""What the documentation names is there: pages, headings, files, commands, functions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer
from tests.docs.pages import PAGES, ROOT, anchors, blocks, inline_code, links, text

from shardman.cli.app import build

_SQL = ROOT / "src" / "shardman" / "sql"
_NAMED_FILE = re.compile(r"^[\w./]+/[\w.]*\.(py|sql|md)$|^[\w/]+/$")


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        if anchor:
            assert anchor in anchors(target), f"{link}: no such heading"


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen = {ROOT / "README.md"}
    todo = list(seen)
    while todo:
        page = todo.pop()
        for link in links(page):
            target = (page.parent / link.partition("#")[0]).resolve()
            if target.suffix == ".md" and target.exists() and target not in seen:
                seen.add(target)
                todo.append(target)
    assert sorted(map(page_id, set(PAGES) - seen)) == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_files_that_are_named_exist(page: Path) -> None:
    for code in inline_code(page):
        if _NAMED_FILE.match(code) and not code.startswith(("/", "./")):
            package = ROOT / "src" / "shardman"
            places = [ROOT / code, package / code, package / "sql" / code, page.parent / code]
            assert any(place.exists() for place in places), f"{code} is not there"


def program_commands() -> set[str]:
    group = typer.main.get_command(build())
    assert hasattr(group, "commands")
    names = set(group.commands)
    return names | {f"local {name}" for name in group.commands["local"].commands}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_of_the_program_that_are_named_exist(page: Path) -> None:
    known = program_commands()
    found = inline_code(page) + [
        line.removeprefix("$ ") for block in blocks(page) for line in block.code.splitlines()
    ]
    for code in found:
        named = re.match(r"shardman (local )?([a-z][a-z-]*)", code)
        if named and named[0] != "shardman local":
            name = (named[1] or "") + named[2]
            assert name in known, f"there is no command {name}: {code}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_objects_of_the_schema_that_are_named_exist(page: Path) -> None:
    sources = "\n".join(p.read_text("utf-8") for p in _SQL.rglob("*.sql"))
    known = set(
        re.findall(
            r"create (?:or replace |foreign |unique )*(?:function|procedure|view|table|type)(?: if not exists)?"
            r" shardman\.(\w+)",
            sources,
        )
    )
    python = {p.stem for p in (ROOT / "src" / "shardman").iterdir()} | {"connect"}
    for name in re.findall(r"\bshardman\.([a-z_]+)\b", text(page)):
        assert name in known | python, f"there is no shardman.{name}"
