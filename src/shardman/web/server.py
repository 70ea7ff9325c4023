"""The process that serves the page, or the thread that does beside a shardlord."""

from __future__ import annotations

import ipaddress
import os
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import uvicorn

from shardman.errors import Code, UserError
from shardman.metrics.exposition import parse_address
from shardman.web.app import Web

#: Seconds that requests have to end, when the page is to stop, and whatever else is under way behind them.
GRACE_S, END_S = 3, 3.0


def serve(
    dsns: Sequence[str],
    listen: str,
    *,
    certificate: str | None = None,
    key: str | None = None,
    plain: bool = False,
) -> None:
    """Serves the page until SIGTERM.

    Args:
        dsns: of nodes; the first one's role is asked for the curves.
        listen: host and port.
        certificate, key: files, for TLS.
        plain: somebody else sees to TLS, so that other addresses than loopback may be listened on without.

    Raises:
        UserError: others would see passwords, or the address cannot be listened on.
    """
    server, listening = _server(dsns, listen, certificate, key, plain=plain)
    threading.Thread(target=_end_for_certain, args=(server,), daemon=True).start()
    server.run(sockets=[listening])


def _end_for_certain(server: uvicorn.Server) -> None:
    """Whoever asks a node that hangs is a thread, which nobody can interrupt: it only reads, so nothing is lost
    when it is not waited for."""
    while not server.should_exit:
        time.sleep(0.5)
    time.sleep(GRACE_S + END_S)
    os._exit(0)


def serve_beside(
    dsns: Sequence[str], listen: str, *, certificate: str | None = None, key: str | None = None
) -> None:
    """The same in a thread that ends with the process.

    Raises:
        UserError: others would see passwords, or the address cannot be listened on.
    """
    server, listening = _server(dsns, listen, certificate, key, plain=False)
    threading.Thread(
        target=server.run, kwargs={"sockets": [listening]}, name="web", daemon=True
    ).start()


def _server(
    dsns: Sequence[str], listen: str, certificate: str | None, key: str | None, *, plain: bool
) -> tuple[uvicorn.Server, socket.socket]:
    host, port = parse_address(listen)
    if not (certificate or plain or _loopback(host)):
        raise UserError(
            f"passwords would go to {host} unencrypted",
            "Give --certificate and --key, listen on 127.0.0.1, or shardman web --plain where a proxy adds TLS",
            code=Code.BAD_ARGUMENT,
        )
    for file in (certificate, key):
        if file is not None and not Path(file).is_file():
            raise UserError(
                f"there is no file {file}", "Name one in PEM format", code=Code.BAD_ARGUMENT
            )
    # Here, and not by the server: it would end the process, in words of its own.
    listening = _listen(host, port, listen)
    config = uvicorn.Config(
        Web(dsns, secure=certificate is not None or plain).app(),
        ssl_certfile=certificate,
        ssl_keyfile=key,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=True,
        # Behind a proxy all viewers have one address; what it says of them is not believed.
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_S,
    )
    return uvicorn.Server(config), listening


def _listen(host: str, port: int, listen: str) -> socket.socket:
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(place)
        listening.listen(128)
    except OSError as error:
        raise UserError(
            f"cannot listen on {listen}: {error.strerror or error}",
            "Give an address of this machine with a port that is free, e.g. 127.0.0.1:8432",
            code=Code.BAD_ARGUMENT,
        ) from None
    return listening


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
