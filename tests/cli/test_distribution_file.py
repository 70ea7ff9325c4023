"""Plans of `shardman distribute` as files: read as written, refused with the line of what means nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardman.cli import distribution_file
from shardman.errors import UserError
from shardman.model.application import Application, Table
from shardman.model.distribution import Choice, Distribution, Obstacle

ODD = 'app."Ein [Tisch] = \n"'
APP = Application({n: Table(n, 5) for n in ("acc", "app.orders", "codes", "log", ODD)})
WANTED = Distribution(
    2,
    {
        "acc": Choice("sharded", "a, lower(b)", 12),
        "app.orders": Choice("sharded", '"Kunde"', None, "acc"),
        "codes": Choice("shared"),
        "log": Choice("plain"),
        ODD: Choice("shared"),
    },
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    way = [Obstacle(ODD, "it is\nodd", ("one\rway",), "ALTER TABLE …\n;")]
    text = distribution_file.write(APP, WANTED, way)
    path = tmp_path / "plan"
    path.write_text(text, "utf-8")
    assert distribution_file.read(path, APP) == WANTED
    assert "# IN THE WAY: it is odd." in text and "#     one way" in text


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("node = 1\n[tables.acc]\nas = 'shared'\nfor = 3", 4, "there is no for"),
        ("node = 1\n\n[tables.acc]\nas = 'spread'", 4, "as is 'spread'"),
        ("node = 1\n[tables.acc]\nas = 1", 3, "as is 1"),
        ("node = 1\n[tables.acc]\n", 2, "as is None"),
        ("node = 1\n[tables.nothing]\nas = 'shared'", 2, "there is no table nothing"),
        ("node = 1\n[tables.app.orders]\nas = 'shared'", 2, "written in quotes"),
        ("node = 1\n[tables.acc]\nas = 'sharded'\npartitions = 4", 2, "by is missing"),
        ("node = 1\n[tables.acc]\nas = 'sharded'\nby = 'a'\npartitions = 5000", 5, "partitions"),
        (
            "node = 1\n[tables.acc]\nas = 'sharded'\nby = 'a'\npartitions = true",
            5,
            "partitions is True",
        ),
        ("node = 1\n[tables.acc]\nas = 'shared'\nby = 'a'", 4, "a shared table has no by"),
        ("node = 1\n[tables.acc]\nas = 'sharded'\nby = 'a'\ncolocate_with = 'x'", 5, "no table x"),
        (
            "node = 1\n[tables.acc]\nas = 'sharded'\nby = 'a'\ncolocate_with = 'codes'\npartitions = 2",
            6,
            "as many partitions as codes",
        ),
        ("node = '1'\n", 1, "node is missing"),
        ("nodes = 1\n", 1, "there is no nodes"),
        ("node = 1\n[tables]\nacc = 'shared'", 3, "acc is no section"),
        ("node = 1\n[tables.acc\n", 2, "no TOML"),
    ],
)
def test_what_means_nothing_is_refused(tmp_path: Path, text: str, line: int, words: str) -> None:
    path = tmp_path / "plan"
    path.write_text(text, "utf-8")
    with pytest.raises(UserError) as refused:
        distribution_file.read(path, APP)
    said = str(refused.value)
    assert words in said and f"line {line}" in said, said


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        distribution_file.read(tmp_path, APP)
