"""The process that serves the page."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import uvicorn

from shardman.errors import Code, UserError
from shardman.web.app import Web


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
        UserError: others would see passwords, or there is no such address.
    """
    host, port = _address(listen)
    if not (certificate or plain or _loopback(host)):
        raise UserError(
            f"passwords would go to {host} unencrypted",
            "Give --certificate and --key, listen on 127.0.0.1, or say --plain where a proxy adds TLS",
            code=Code.BAD_ARGUMENT,
        )
    web = Web(dsns, secure=certificate is not None or plain)
    uvicorn.run(
        web.app(),
        host=host,
        port=port,
        ssl_certfile=certificate,
        ssl_keyfile=key,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=True,
        # Behind a proxy all viewers have one address; what it says of them is not believed.
        proxy_headers=False,
        timeout_graceful_shutdown=3,
    )


def _address(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise UserError(
            f"{listen} is no address to listen on",
            "Give host and port, such as 127.0.0.1:8432",
            code=Code.BAD_ARGUMENT,
        )
    return host.strip("[]"), int(port)


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
