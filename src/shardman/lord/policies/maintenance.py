"""When maintenance is over. No I/O."""

from __future__ import annotations

from collections.abc import Collection, Mapping

#: Where ending it fails it is tried again so much later, in seconds, then after twice that, up to the last.
AGAIN_S, SELDOM_S = 5.0, 60.0


#: A node that was away is back when it has answered for so long, in seconds.
BACK_S = 5.0


class Returns:
    """Nodes in maintenance that were away, of one leadership."""

    def __init__(self) -> None:
        #: Of those that were silent since it was said until when they may be away: that, and since when they
        #: answer.
        self._seen: dict[int, tuple[str, float | None]] = {}

    def back(self, until: Mapping[int, str], silent: Collection[int], now: float) -> set[int]:
        """Those that are back.

        Args:
            until: the nodes in maintenance, and until when each may be away. Where that is said anew, it may
                be away once more.
        """
        seen = {n: s for n, s in self._seen.items() if until.get(n) == s[0]}
        for node, time in until.items():
            if node in silent:
                seen[node] = (time, None)
            elif node in seen and seen[node][1] is None:
                seen[node] = (time, now)
        self._seen = seen
        return {n for n, (_, since) in seen.items() if since is not None and now - since >= BACK_S}


class Endings:
    """Nodes whose maintenance is to end, of one leadership."""

    def __init__(self) -> None:
        #: When ending it is tried next, and the pause after that.
        self._tries: dict[int, tuple[float, float]] = {}

    def due(self, over: Collection[int], silent: Collection[int], now: float) -> list[int]:
        """Nodes whose maintenance is to be ended now. One that is silent is not waited for: others take over
        from it.

        Args:
            over: nodes in maintenance that are back, or whose time is over.
        """
        self._tries = {n: tries for n, tries in self._tries.items() if n in over}
        found = []
        for node in sorted(set(over) - set(silent)):
            at, pause = self._tries.get(node, (now, AGAIN_S))
            if now >= at:
                self._tries[node] = now + pause, min(2 * pause, SELDOM_S)
                found.append(node)
        return found
