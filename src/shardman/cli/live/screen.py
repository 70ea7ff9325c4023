"""The terminal: one page at a time, brought up to date, with keys."""

from __future__ import annotations

from typing import ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Footer, Static

from shardman.cli.live.feed import Feed
from shardman.cli.live.picture import Picture
from shardman.cli.live.views import PAGES, header


class Top(App[None]):
    """All of it.

    Args:
        feed: what is shown.
        every_s: how often it is brought up to date, in seconds.
    """

    CSS = """
    #header { height: 1; }
    #page { height: auto; }
    """
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(key, f"page('{key}')", name) for key, (name, _) in PAGES.items()),
        Binding("space", "pause", "Pause"),
        Binding("q", "quit", "Quit"),
    ]

    def __init__(self, feed: Feed, every_s: float) -> None:
        super().__init__(ansi_color=True)
        self._feed, self._every_s = feed, every_s
        self._picture = Picture()
        self._key = "n"
        self._paused = self._looking = False

    def compose(self) -> ComposeResult:
        yield Static(id="header")
        with VerticalScroll():
            yield Static(id="page")
        yield Footer()

    def on_mount(self) -> None:
        """Begins to look."""
        self.query_one(VerticalScroll).focus()
        self.set_interval(self._every_s, self._look)
        self._look()

    def _look(self) -> None:
        # A look that takes longer than the pause is not overtaken.
        if not self._paused and not self._looking:
            self._looking = True
            self.run_worker(self._bring_up_to_date(), exit_on_error=True)

    async def _bring_up_to_date(self) -> None:
        try:
            self._picture = await self._feed.picture()
        finally:
            self._looking = False
        self._show()

    def _show(self) -> None:
        line = header(self._picture, paused=self._paused)
        self.query_one("#header", Static).update(line)
        _, page = PAGES[self._key]
        self.query_one("#page", Static).update(page(self._picture))

    def action_page(self, key: str) -> None:
        """Shows another page."""
        self._key = key
        self.query_one(VerticalScroll).scroll_home(animate=False)
        self._show()

    def action_pause(self) -> None:
        """Stands still, to read."""
        self._paused = not self._paused
        self._show()

    async def on_unmount(self) -> None:
        """Ends all sessions."""
        await self._feed.close()


async def run(dsn: str, every_s: float) -> None:
    """Shows it until the user has seen enough.

    Raises:
        UserError: the cluster cannot be seen.
    """
    feed = Feed(dsn)
    try:
        await feed.begin()
        await Top(feed, every_s).run_async()
    finally:
        await feed.close()
