"""The tables of steps in docs/commands are those of the plans."""

from __future__ import annotations

import pytest
from tests.docs.step_tables import PAGES, examples, names, with_tables

TEXTS = {path.name: path.read_text("utf-8") for path in sorted(PAGES.glob("*.md"))}


@pytest.mark.parametrize("page", TEXTS)
def test_a_page_has_the_tables_of_its_plans(page: str) -> None:
    assert TEXTS[page] == with_tables(TEXTS[page]), "run tools/step-tables"


def test_every_example_is_shown() -> None:
    assert sorted(name for text in TEXTS.values() for name in names(text)) == sorted(examples())
