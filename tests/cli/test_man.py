"""The manual page says what --help says, and is roff."""

from __future__ import annotations

import re
from typing import Any

import pytest
import typer

from shardman.cli.app import build
from shardman.cli.man import page

PROGRAM: Any = typer.main.get_command(build())
PAGE = page(PROGRAM)
#: As a reader sees them.
WORDS = PAGE.replace("\\-", "-").replace("\\e", "\\").replace("\\(dq", '"')


def test_it_has_the_sections_of_a_manual_page() -> None:
    found = re.findall(r"^\.SH (.*)$", PAGE, re.MULTILINE)
    assert found == ["NAME", "SYNOPSIS", "DESCRIPTION", "COMMANDS", "EXIT STATUS", "ENVIRONMENT"]


@pytest.mark.parametrize("name", sorted(PROGRAM.commands))
def test_it_has_each_command_with_its_options(name: str) -> None:
    assert re.search(rf'^\.SS "{name}( .*)?"$', WORDS, re.MULTILINE)
    for option in PROGRAM.commands[name].params:
        if option.param_type_name == "option" and option.help:
            assert option.opts[0] in WORDS, option.opts


def test_words_are_no_requests() -> None:
    """For roff a line with a dot or an apostrophe at its begin is a request, and a backslash an escape."""
    known = {"TH", "SH", "SS", "PP", "TP", "B"}
    for line in PAGE.splitlines():
        assert not line.startswith("'"), line
        if line.startswith("."):
            assert line[1:].split(" ")[0] in known, line
        assert re.sub(r"\\(-|e|&|\(dq|f[BIR])", "", line).count("\\") == 0, line
        assert line.strip(), "an empty line is a request of its own"
