"""What is left of a sentence: nothing that somebody may have written into a row."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardman.nodes.veil import Veil

VEIL = Veil(['app."Tab"', "acc_3"], ["s3cret!pw"])

TEMPLATES = (
    'invalid input syntax for type integer: "{}"',
    "the lord's node 2 says: Key (id, note)=(1, {}) already exists",
    "Failing row contains ({}, null).",
    "lacks a change of the schema: alter table acc alter note set default '{}' (it is locked)",
    "waits for bob's session: insert into acc values ('{}', E'{}')",
    "do $x${}$x$ fails",
)


@given(st.text(min_size=1), st.sampled_from(TEMPLATES))
def test_no_value_is_left(value: str, template: str) -> None:
    marked = f"qqq{value}qqq"
    assert "qqq" not in VEIL.text(template.format(marked, marked))


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("the lord's database doesn't answer", "the lord's database doesn't answer"),
        ('partition "acc_3" is away', 'partition "acc_3" is away'),
        ('constraint "k" of acc_3 is violated', "constraint … of acc_3 is violated"),
        ("host=x password=s3cret!pw", "host=x password=***"),
        ("it said s3cret!pw aloud", "it said *** aloud"),
        ("an 'unclosed one", "an …"),
    ],
)
def test_what_is_left(said: str, left: str) -> None:
    assert VEIL.text(said) == left


def test_documents() -> None:
    document = {"name": 'app."Tab"', "n": 7, "in": ["up", "Key (a)=(b)", None]}
    assert VEIL.value(document) == {"name": 'app."Tab"', "n": 7, "in": ["up", "Key …", None]}
