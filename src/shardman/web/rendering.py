"""Pages out of templates: a frame, and in it what changes, which is made once for all who see the same."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from shardman.units import moment, size, span

#: Parts that are kept; each is below 200 kB.
KEPT = 64


@dataclass(frozen=True)
class Part:
    """What changes of a page: its title and its main element.

    Args:
        text: HTML.
        version: equal where the text is.
    """

    text: str
    version: str


class Renderer:
    """Knows the templates."""

    def __init__(self) -> None:
        self._templates = Environment(
            loader=PackageLoader("shardman.web"),
            autoescape=select_autoescape(default=True),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= {"size": size, "span": span, "moment": moment, "number": number}
        self._kept: OrderedDict[object, tuple[object, Part]] = OrderedDict()

    def part(self, template: str, values: Mapping[str, Any]) -> Part:
        """A template with its values in their places."""
        text = self._templates.get_template(template).render(**values)
        version = hashlib.sha256(text.encode()).hexdigest()[:16]
        # Behind the title, which may have any name in it.
        title, main, rest = text.partition("<main")
        return Part(title + main + rest.replace("@VERSION@", version, 1), version)

    def shared(
        self, key: object, made_of: object, template: str, values: Callable[[], Mapping[str, Any]]
    ) -> Part:
        """The same, made once for all who ask for it.

        Args:
            key: whose and which page; it must not have anything of one viewer.
            made_of: it is made anew when this is another.
            values: asked for then.
        """
        kept = self._kept.get(key)
        if kept is None or kept[0] != made_of:
            kept = (made_of, self.part(template, values()))
            self._kept[key] = kept
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return kept[1]

    def page(self, part: Part, **values: Any) -> str:
        """The whole page."""
        title, end, main = part.text.partition("</title>")
        return self._templates.get_template("base.html").render(
            # Both come out of a template, where what is not ours was escaped.
            title=Markup(title + end),  # noqa: S704
            main=Markup(main),  # noqa: S704
            **values,
        )


def number(value: float | None) -> str:
    """A rate as a person reads it; nothing where it is unknown."""
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 10 or value == 0 else f"{value:.1f}"
