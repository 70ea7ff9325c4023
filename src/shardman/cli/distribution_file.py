"""The file of a plan of `shardman distribute`, in TOML: written for a person, and read again."""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.items import Table as Section

from shardman import units
from shardman.errors import Code, UserError
from shardman.model.application import PLAIN, SHARDED, SHARED, Application
from shardman.model.distribution import Choice, Distribution, Obstacle

_HOW = (SHARDED, SHARED, PLAIN)
_MOST_PARTITIONS = 4096
_FIELDS = {"as": str, "by": str, "partitions": int, "colocate_with": str}
_SAID = {str: "a text in quotes", int: "a whole number"}

_HEAD = """\
What becomes of each table of the database of node {node}. Edit it, then:
  shardman distribute --plan FILE           says what is in the way
  shardman distribute --plan FILE --apply   does it
as = "sharded": its rows are spread over the workers by the hash of the column `by`, into so many `partitions`;
    `colocate_with` another one: equal values of the two columns lie on the same node.
as = "shared": every worker has a full copy, which is written through.    as = "plain": it stays on its node.
A table that is taken out of this file stays as it is."""


def write(
    application: Application,
    wanted: Distribution,
    found: Sequence[Obstacle],
) -> str:
    """A plan as text, with what speaks for and against it as comments."""
    document = tomlkit.document()
    for line in _HEAD.format(node=wanted.node).splitlines():
        document.add(tomlkit.comment(line))
    document.add(tomlkit.nl())
    document.add("node", tomlkit.item(wanted.node))
    document.add(tomlkit.nl())
    in_way: defaultdict[str, list[Obstacle]] = defaultdict(list)
    for each in found:
        in_way[each.table].append(each)
    tables = tomlkit.table(is_super_table=True)
    for name in ordered(wanted):
        tables.add(name, _section(application, name, wanted.of(name), in_way[name]))
    document.add("tables", tables)
    return tomlkit.dumps(document)


def ordered(wanted: Distribution) -> list[str]:
    """The tables as a person reads them: groups, each with its first table first, then shared, then plain."""
    return sorted(
        wanted.choices,
        key=lambda n: (_HOW.index(wanted.of(n).how), wanted.root(n), wanted.root(n) != n, n),
    )


def _section(
    application: Application, name: str, choice: Choice, found: Sequence[Obstacle]
) -> Section:
    section = tomlkit.table()
    table = application.tables.get(name)
    size = units.size(table.bytes) if table else None
    section.add(tomlkit.comment(", ".join(filter(None, (size, choice.why)))))
    for obstacle in found:
        section.add(tomlkit.comment(f"IN THE WAY: {_line(obstacle.what)}."))
        for way in filter(None, (obstacle.sql, *obstacle.ways)):
            section.add(tomlkit.comment(f"    {_line(way)}"))
    section.add("as", choice.how)
    if choice.how == SHARDED:
        section.add("by", choice.by or "")
        if choice.colocate_with is not None:
            section.add("colocate_with", choice.colocate_with)
        elif choice.partitions is not None:
            section.add("partitions", choice.partitions)
    section.add(tomlkit.nl())
    return section


def _line(text: str) -> str:
    """Names may have line ends and other things in them that a comment may not have."""
    return re.sub(r"[\x00-\x08\x0a-\x1f\x7f]", " ", text)


def read(path: Path, known: Application) -> Distribution:
    """A plan that was written down.

    Args:
        known: the tables that there are.

    Raises:
        UserError: there is something in it that means nothing, with the line where it is.
    """
    try:
        text = path.read_text("utf-8")
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(
            f"{path} is no TOML: {error}", "Put it right", code=Code.BAD_ARGUMENT
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} cannot be read: {error}", "Name another file", code=Code.BAD_ARGUMENT
        ) from None
    return _Reader(path, _lines(text), known).read(document)


def _lines(text: str) -> Mapping[tuple[str, ...], int]:
    """Where each key is, as far as it begins a line."""
    found: dict[tuple[str, ...], int] = {}
    section: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        head = line.strip().startswith("[")
        try:
            inner = tomllib.loads(line if head else line.partition("=")[0] + "= 0")
        except tomllib.TOMLDecodeError:
            continue
        path = _path(inner)
        section = tuple(path) if head else section
        found.setdefault(section if head else (*section, *path), number)
    return found


def _path(value: Any) -> list[str]:
    """The keys that lead to the innermost value."""
    path: list[str] = []
    while isinstance(value, dict) and value:
        key, value = next(iter(value.items()))
        path.append(key)
    return path


class _Reader:
    def __init__(
        self, path: Path, lines: Mapping[tuple[str, ...], int], known: Application
    ) -> None:
        self.path = path
        self.lines = lines
        self.known = known

    def refuse(self, place: tuple[str, ...], what: str, expected: str) -> UserError:
        """What is wrong, with the line of a key or of what it is in."""
        while place and not self.line(place):
            place = place[:-1]
        line = f", line {self.line(place)}" if place else ""
        return UserError(f"{self.path}{line}: {what}", expected, code=Code.BAD_ARGUMENT)

    def line(self, place: tuple[str, ...]) -> int:
        """Where a key is, or the first that is in it; 0: nowhere."""
        inner = (n for p, n in self.lines.items() if p[: len(place)] == place)
        return self.lines.get(place) or min(inner, default=0)

    def read(self, document: Mapping[str, Any]) -> Distribution:
        for key in document:
            if key not in ("node", "tables"):
                raise self.refuse((key,), f"there is no {key}", "Expected: node, tables")
        node = document.get("node")
        if not isinstance(node, int) or isinstance(node, bool) or node < 1:
            raise self.refuse(
                ("node",), "node is missing, or no number of a worker", "Expected: node = 1"
            )
        tables = document.get("tables", {})
        if not isinstance(tables, dict):
            raise self.refuse(("tables",), "tables is no section", "Expected: [tables.NAME]")
        return Distribution(node, {n: self.choice(n, s) for n, s in tables.items()})

    def choice(self, name: str, section: object) -> Choice:
        place = ("tables", name)
        if name not in self.known.tables:
            nested = isinstance(section, dict) and any(
                isinstance(v, dict) for v in section.values()
            )
            near = f"{name} (a name with a dot in it is written in quotes)" if nested else name
            raise self.refuse(
                place,
                f"there is no table {near}",
                "Expected one of: " + ", ".join(self.known.tables),
            )
        if not isinstance(section, dict):
            raise self.refuse(place, f"{name} is no section", f"Expected: [tables.{name}]")
        for key, value in section.items():
            self.field(place, key, value)
        how = section.get("as")
        if how not in _HOW:
            raise self.refuse(
                (*place, "as"), f"as is {how!r}", f"Expected one of: {', '.join(_HOW)}"
            )
        if how != SHARDED:
            return self.other(place, section, how)
        return self.sharded(place, section)

    def field(self, place: tuple[str, ...], key: str, value: object) -> None:
        if key not in _FIELDS:
            what = f"there is no {key}"
            if isinstance(value, dict):
                what += " (a table's name with a dot in it is written in quotes)"
            raise self.refuse((*place, key), what, f"Expected: {', '.join(_FIELDS)}")
        if type(value) is not _FIELDS[key]:
            raise self.refuse(
                (*place, key), f"{key} is {value!r}", f"Expected: {_SAID[_FIELDS[key]]}"
            )

    def other(self, place: tuple[str, ...], section: Mapping[str, Any], how: str) -> Choice:
        for key in ("by", "partitions", "colocate_with"):
            if key in section:
                raise self.refuse(
                    (*place, key),
                    f"a {how} table has no {key}",
                    f'Take it out, or write as = "{SHARDED}"',
                )
        return Choice(how)

    def sharded(self, place: tuple[str, ...], section: Mapping[str, Any]) -> Choice:
        if not section.get("by", "").strip():
            raise self.refuse((*place, "by"), "by is missing or empty", 'Expected: by = "a column"')
        count, group = section.get("partitions"), section.get("colocate_with")
        if group is None and (count is None or not 1 <= count <= _MOST_PARTITIONS):
            raise self.refuse(
                (*place, "partitions"),
                "partitions is missing, or no number that can be",
                f"Expected: a number from 1 to {_MOST_PARTITIONS}, or colocate_with",
            )
        if group is not None and count is not None:
            raise self.refuse(
                (*place, "partitions"),
                f"it has as many partitions as {group}, with which it is colocated",
                "Take one of the two out",
            )
        if group is not None and group not in self.known.tables:
            raise self.refuse(
                (*place, "colocate_with"),
                f"there is no table {group}",
                "Expected one of: " + ", ".join(self.known.tables),
            )
        return Choice(SHARDED, section["by"], count, group)
