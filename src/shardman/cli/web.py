"""`shardman web`: the cluster as a page."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any

import typer

from shardman.cli.options import LORD_DSN, read_dsn
from shardman.errors import Code, UserError
from shardman.log import configure

app = typer.Typer()


@app.command(rich_help_panel="Look")
def web(
    dsns: Annotated[
        list[str],
        typer.Argument(
            metavar="DSN...",
            envvar=LORD_DSN,
            help="Nodes of the cluster; - reads one from the standard input.",
            show_default=False,
        ),
    ],
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where it is served.")
    ] = "127.0.0.1:8432",
    certificate: Annotated[
        str | None, typer.Option(metavar="FILE", help="For TLS.", show_default=False)
    ] = None,
    key: Annotated[
        str | None, typer.Option(metavar="FILE", help="Its private key.", show_default=False)
    ] = None,
    plain: Annotated[
        bool,
        typer.Option("--plain", help="Without TLS on other addresses too: a proxy adds it."),
    ] = False,
) -> None:
    """Serve a page that shows the cluster, live.

    Who looks logs in with a role of the database and its password, and sees what a member of
    shardman_viewer may; a member of shardman_operator may also act. The role of the first DSN is
    used for the curves only. SIGTERM stops it.
    """
    configure()
    page().serve(
        [read_dsn(each) for each in dsns], listen, certificate=certificate, key=key, plain=plain
    )


def page() -> Any:
    """The module that serves it, which needs libraries that not everybody wants."""
    try:
        return import_module("shardman.web.server")
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in _LIBRARIES:
            raise
        raise UserError(
            f"{error.name} is not installed, and the page needs it",
            "pip install 'pg-shardman[web]'",
            code=Code.BAD_ARGUMENT,
        ) from None


_LIBRARIES = (
    "jinja2",
    "multipart",
    "prometheus_client",
    "python_multipart",
    "starlette",
    "uvicorn",
)
