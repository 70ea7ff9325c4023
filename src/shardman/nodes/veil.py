"""Sentences without what users have written into their rows."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from shardman.pg.wording import LONG_SECRET, scrub

_NAME = re.compile(r'"((?:[^"]|"")+)"')
#: Of "the lord's", "nodes' own", "doesn't": no quote begins there.
_APOSTROPHE = re.compile(r"(?<=\w)'(?=[st]\b)|(?<=s)'(?=\s)")
_SENTENCE = re.compile(r"[\s'\"($]")
_OPEN, _CLOSE = re.compile(r"[\"'($]"), re.compile(r"[\"')$]")


class Veil:
    """PostgreSQL, and we, put values in quotes or parentheses. A value may have quotes of its own, so all is
    left out from the first to the last of them, but for names that are known.

    Args:
        names: of tables, partitions and the like.
        secrets: passwords that are known.
    """

    def __init__(self, names: Collection[str] = (), secrets: Collection[str] = ()) -> None:
        self._names = {*names, *(n.strip('"') for n in names)}
        self._secrets = sorted((s for s in secrets if len(s) >= LONG_SECRET), key=len, reverse=True)

    def text(self, text: str) -> str:
        """A sentence."""
        # Private characters stand for what is no quote; nobody's may be taken for one of ours.
        text = scrub(text).replace("\ue000", "").replace("\ue001", "")
        text = _APOSTROPHE.sub("\ue001", _NAME.sub(self._known, text))
        veiled = self._without_quoted(text).replace("\ue000", '"').replace("\ue001", "'")
        for secret in self._secrets:
            veiled = veiled.replace(secret, "***")
        return veiled

    def _known(self, found: re.Match[str]) -> str:
        return f"\ue000{found[1]}\ue000" if found[1] in self._names else found[0]

    def _without_quoted(self, text: str) -> str:
        first = _OPEN.search(text)
        if first is None:
            return text
        *_, last = [found.end() for found in _CLOSE.finditer(text)] or [0]
        paired = all(text.count(q) % 2 == 0 for q in "\"'$") and text.count("(") == text.count(")")
        return text[: first.start()] + "…" + (text[last:] if paired else "")

    def value(self, value: Any) -> Any:
        """A document; its single words stay, for they are names and numbers."""
        if isinstance(value, str):
            is_name = value in self._names or not _SENTENCE.search(value)
            return value if is_name else self.text(value)
        if isinstance(value, dict):
            return {k: self.value(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(v) for v in value]
        return value
