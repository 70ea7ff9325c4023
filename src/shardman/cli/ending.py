"""Programs that go on until they are told to end."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_ENDS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def told_to_end() -> Iterator[Callable[[], object]]:
    """Within, SIGTERM and SIGINT wait for whoever asks for them, and interrupt no thread that begins there.

    Yields:
        What waits for one of them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
    try:
        yield lambda: signal.sigwait(_ENDS)
    finally:
        # Whoever has called goes on, and what he starts would not hear them either.
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
