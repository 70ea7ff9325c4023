"""A TCP proxy that can be cut: what a failing network does, on one machine.

It runs in a thread of its own, so synchronous tests can use it as well.
"""

from __future__ import annotations

import asyncio
import struct
import threading
from collections import defaultdict
from collections.abc import Callable, Coroutine
from typing import Any, Self, TypeVar

from psycopg import conninfo

T = TypeVar("T")

_CHUNK = 65536


#: The first packets of a connection that are no startup message (protocol, section 54.2).
_SSL_OR_GSS = (80877103, 80877104)
_CANCEL = 80877102

#: From a startup message's parameters to the name of whoever connects.
Naming = Callable[[dict[str, str]], str]


class _Direction:
    """One way of the wire: open or cut, with a delay; shared by all connections, or by those of one
    name."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.delay = 0.0

    async def pass_on(self) -> None:
        """Return when a packet may pass."""
        if self.delay:
            await asyncio.sleep(self.delay)
        await self.open.wait()


class _Wire:
    """Both ways."""

    def __init__(self) -> None:
        self.to_server = _Direction()
        self.to_client = _Direction()

    def set_open(self, to_server: bool, to_client: bool) -> None:
        for direction, is_open in ((self.to_server, to_server), (self.to_client, to_client)):
            if is_open:
                direction.open.set()
            else:
                direction.open.clear()


class Proxy:
    """Listens on a port of its own and passes everything on to one server.

    A cut wire is silent, as in life: nothing arrives and no connection is closed. What was sent
    meanwhile arrives when it is healed, as TCP would see to it. `drop` is the other failure: the
    connections are reset.

    Args:
        naming: tells who connects; then one of those can be cut off by itself. No encryption then.
    """

    def __init__(self, host: str, port: int, naming: Naming | None = None) -> None:
        self._naming = naming
        self._named: defaultdict[str, _Wire] = defaultdict(_Wire)
        self._target = (host, port)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._refusing = False
        self._all = _Wire()
        self.port = 0

    @classmethod
    def to(cls, dsn: str, naming: Naming | None = None) -> Proxy:
        """A proxy in front of the server of a connection string."""
        parts = conninfo.conninfo_to_dict(dsn)
        proxy = cls(str(parts["host"]), int(str(parts["port"])), naming)
        proxy._dsn = dsn
        return proxy

    _dsn = ""

    @property
    def dsn(self) -> str:
        """The connection string that leads through the proxy."""
        return conninfo.make_conninfo(self._dsn, host="127.0.0.1", port=self.port)

    def __enter__(self) -> Self:
        self._thread.start()
        self.port = self._run(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # -- what can happen to a wire --------------------------------------------------------------

    def cut(
        self, *, to_server: bool = True, to_client: bool = True, name: str | None = None
    ) -> None:
        """Nothing passes any more: both ways, or one (`to_client=False`: requests get lost); for
        everybody, or for those of one name."""

        def cut() -> None:
            wire = self._all if name is None else self._named[name]
            wire.set_open(not to_server, not to_client)

        self._call(cut)

    def heal(self) -> None:
        """Everything passes again, at once and without delay; new connections are welcome."""

        def heal() -> None:
            for wire in (self._all, *self._named.values()):
                wire.set_open(True, True)
            self._all.to_server.delay = self._all.to_client.delay = 0.0
            self._refusing = False

        self._call(heal)

    def delay(self, seconds: float) -> None:
        """Every packet takes that much longer, each way."""

        def delay() -> None:
            self._all.to_server.delay = self._all.to_client.delay = seconds

        self._call(delay)

    def drop(self) -> int:
        """Reset all connections; returns how many. New ones are welcome."""
        return self._run(self._drop())

    def refuse(self) -> None:
        """Reset all connections, and every new one at once, until `heal`."""

        def refuse() -> None:
            self._refusing = True

        self._call(refuse)
        self.drop()

    @property
    def connections(self) -> int:
        """How many connections pass through at the moment."""
        return len(self._writers) // 2

    # -- in the thread --------------------------------------------------------------------------

    async def _listen(self) -> int:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        try:
            first, name = await self._greeting(reader, writer)
            server_reader, server_writer = await asyncio.open_connection(*self._target)
        except (OSError, asyncio.IncompleteReadError):
            writer.transport.abort()
            return
        wire = self._named[name] if name else self._all
        self._writers |= {writer, server_writer}
        self._pump(reader, server_writer, [self._all.to_server, wire.to_server], first)
        self._pump(server_reader, writer, [self._all.to_client, wire.to_client])

    async def _greeting(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[bytes, str]:
        """What a client says first, to be passed on, and its name."""
        if self._naming is None:
            return b"", ""
        while True:
            head = await reader.readexactly(8)
            length, code = struct.unpack("!ii", head)
            if code not in _SSL_OR_GSS:
                break
            writer.write(b"N")
        rest = await reader.readexactly(length - 8)
        if code == _CANCEL:
            return head + rest, "cancel"
        words = [w.decode() for w in rest.split(b"\0")]
        return head + rest, self._naming(dict(zip(words[::2], words[1::2], strict=False)))

    def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        directions: list[_Direction],
        first: bytes = b"",
    ) -> None:
        task = self._loop.create_task(self._copy(reader, writer, directions, first))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _copy(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        directions: list[_Direction],
        first: bytes,
    ) -> None:
        try:
            while data := first or await reader.read(_CHUNK):
                first = b""
                for direction in directions:
                    await direction.pass_on()
                writer.write(data)
                await writer.drain()
            for direction in directions:
                await direction.pass_on()  # the end of a connection is a packet, too
        except ConnectionError:
            pass  # its other half was reset; so is this one
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _drop(self) -> int:
        count = self.connections
        for writer in list(self._writers):
            writer.transport.abort()
        self._writers.clear()
        return count

    async def _close(self) -> None:
        self._server.close()
        await self._drop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def _call(self, work: Callable[[], object]) -> None:
        """Run it in the thread and wait: after `cut` returns, the wire is cut."""

        async def call() -> None:
            work()

        self._run(call())
