"""Words that ended (docs/glossary.md) do not come back: not in code, SQL, messages or pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.docs.pages import ROOT

#: What is looked for, in any case, and what to say instead.
ENDED = {
    r"tenures?": "leadership",
    r"stranded": "of partitions: what it means; of nodes: dead",
    r"orphan\w*": "leftover",
    r"fenc(e|es|ed)|fence_\w+": "cut-over; fencing is of epochs",
    r"presence": "reachability",
    r"sick": "silent",
    r"besides?=|beside_\w+": "concurrent, or extra session",
    r"side[ -]by[ -]side|run (together|beside|besides)": "concurrent, at the same time",
    r"borrow\w*": "extra session",
    r"(take|takes|took|wait for|waits for|his|her|in the|takes its) turns?|the turn(?! of)": "named lock",
    r"end_holders|(evict\w*|eviction) rounds?|rounds? of (evict\w*|eviction)": "eviction",
    r"(standby|names?) lists?|lists? of (standbys|names)|standby_lists?": "standby names",
    r"shorten\w* the lists?|the others' lists?|on the standby list|off the list": "standby names",
    r"links? (broken|between|to|cut)|(one|a|each|every) link": "channel",
    r"(command's|copy's) (own )?stream|stream of the command's own": "copy channel",
    r"lists? of (its |the |their )?copies|order of the(ir)? list": "succession",
    r"data slots?|slot_key|make_slot\b|partition slots?|slot of (the|a) (table|level)": "partition",
    r"gone nodes?|nodes? (that )?(is|are|was|were) gone|node gone": "away, silent, dead or removed",
}
#: In these the words stand for something else, or are told.
ALLOWED = {
    "docs/glossary.md",  # Lists them.
    "tests/docs/test_words.py",
    "src/shardman/sql/migrations/0010_words.sql",  # Renames them.
    "tests/upgrade/test_journal.py",  # What version 0.1 wrote.
}
ALLOWED_LINES = (
    r"links? to it",  # Of files.
    r"hard links?",
    r"wait(s|ing)? for (\{reason or '|its )?its turn",  # What a queue is for its user.
    r"waits for its turn",
)
SOURCES = sorted(
    path
    for pattern in (
        "src/**/*.py",
        "src/**/*.sql",
        "tests/**/*.py",
        "bench/*.py",
        "docs/**/*.md",
        "*.md",
    )
    for path in ROOT.glob(pattern)
    if str(path.relative_to(ROOT)) not in ALLOWED and "releases" not in path.parts
)
_ENDED = re.compile(
    "|".join(rf"(?P<w{n}>\b(?:{word}))" for n, word in enumerate(ENDED)), re.IGNORECASE
)
_ALLOWED = re.compile("|".join(ALLOWED_LINES), re.IGNORECASE)


def ended(text: str) -> list[tuple[str, str]]:
    """What of a text was ended, and what to say instead."""
    found = []
    instead = list(ENDED.values())
    for match in _ENDED.finditer(text):
        n = int(str(match.lastgroup)[1:])
        found.append((match.group(), instead[n]))
    return found


def told(path: Path) -> list[str]:
    """Each place in a file, as a compiler would say it."""
    return [
        f"{path.relative_to(ROOT)}:{number}: {word!r}: say {instead}"
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if not _ALLOWED.search(line)
        for word, instead in ended(line)
    ]


def test_words_that_ended_do_not_come_back() -> None:
    assert len(SOURCES) > 200
    found = [each for path in SOURCES for each in told(path)]
    assert not found, "\n".join(["", *found])


@pytest.mark.parametrize(
    "text",
    ["of one tenure", "fence_move", "beside=other", "they run side by side", "the orphaned slot",
     "a gone node", "the turn is taken", "the standby list"],
)  # fmt: skip
def test_they_are_found(text: str) -> None:
    assert ended(text)


@pytest.mark.parametrize(
    "text",
    ["the fencing epoch", "replicas beside its primary", "a list of columns", "slot_name",
     "the row is gone", "turns it on", "a return of the node"],
)  # fmt: skip
def test_other_words_are_left_alone(text: str) -> None:
    assert not ended(text)
