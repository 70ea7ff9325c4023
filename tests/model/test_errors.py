"""Every error has a code, every code is documented."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from shardman.client import Result
from shardman.errors import Code, RemovedNodeAway, Temporary, UserError
from shardman.lord.failures import failure

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src" / "shardman").rglob("*.py"))
PAGE = (ROOT / "docs" / "errors.md").read_text()
RAISED = {"UserError", "Temporary", "NodeError", "NotLord"}


def documented() -> dict[str, str]:
    """What the page says that each code means."""
    rows = re.findall(r"^\| `([a-z_]+)` \| ([^|]+) \| [^|]+ \|$", PAGE, re.MULTILINE)
    found = dict(rows)
    assert len(found) == len(rows)
    return found


def explained() -> dict[str, str]:
    """What stands below each code in errors.py."""
    tree = ast.parse((ROOT / "src" / "shardman" / "errors.py").read_text())
    (body,) = (n.body for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Code")
    found = {}
    for code, words in itertools.pairwise(body):
        if isinstance(code, ast.Assign):
            assert isinstance(words, ast.Expr), ast.unparse(code)
            found[ast.literal_eval(code.value)] = str(ast.literal_eval(words.value))
    return found


def raised() -> Iterator[tuple[str, ast.Call]]:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) in RAISED:
                yield f"{path.name}:{node.lineno}", node


def test_the_page_has_every_code_and_says_what_the_source_says() -> None:
    page = documented()
    assert set(page) == set(Code)
    for code, words in explained().items():
        assert words.rstrip(".").casefold() == page[code].casefold()


def test_codes_are_spelled_alike() -> None:
    for code in Code:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", code)
        assert code.name == code.upper()


def test_every_error_that_is_raised_says_which_it_is() -> None:
    calls = list(raised())
    assert len(calls) > 150
    without = [where for where, call in calls if "code" not in {k.arg for k in call.keywords}]
    assert without == []


def test_every_code_is_in_use() -> None:
    text = "\n".join(p.read_text() for p in SOURCES)
    assert [c for c in Code if f"Code.{c.name}" not in text and c is not Code.UNKNOWN] == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("x", code=Code.COPY_EXISTS), Code.COPY_EXISTS),
        (Temporary("x", code=Code.BUSY), Code.BUSY),
        (RemovedNodeAway(3), Code.NODE_NOT_ACTIVE),
        (psycopg.OperationalError("connection refused"), Code.NODE_UNREACHABLE),
        (psycopg.errors.LockNotAvailable("x"), Code.LOCK_TIMEOUT),
        (psycopg.errors.DiskFull("x"), Code.SERVER_FULL),
        (psycopg.errors.InsufficientPrivilege("x"), Code.PERMISSION_DENIED),
        (psycopg.errors.AdminShutdown("x"), Code.NODE_UNREACHABLE),
        (psycopg.errors.CheckViolation("x"), Code.SERVER_ERROR),
        (psycopg.ProgrammingError("x"), Code.INTERNAL_ERROR),
        (KeyError("x"), Code.INTERNAL_ERROR),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, Exception) else str(x),
)
def test_what_the_journal_says_of_an_error(error: Exception, code: Code) -> None:
    told = failure(error)
    assert told.code is code
    assert told.sqlstate == getattr(error, "sqlstate", None)
    assert told.sentence.startswith("an internal error") == (code is Code.INTERNAL_ERROR)


@pytest.mark.parametrize(
    ("told", "code"),
    [("copy_exists", Code.COPY_EXISTS), (None, Code.UNKNOWN), ("of_2031", Code.UNKNOWN)],
)
def test_a_command_that_failed_raises_its_code(told: str | None, code: Code) -> None:
    result = Result(1, "move_part", "acc_1, 2", "failed", error="x", error_code=told)
    with pytest.raises(UserError) as error:
        result.check()
    assert error.value.code is code
    assert result.error_code == told
