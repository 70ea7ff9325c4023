"""The page's addresses, and what stands between a request and them: log-in, forged requests, headers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from shardman.errors import Code, UserError
from shardman.metrics.sampler import Sampler
from shardman.pg.wording import in_words
from shardman.web import acting, details
from shardman.web.curves import History
from shardman.web.forms import form_of, need_own_form, need_same_origin
from shardman.web.guard import Guard
from shardman.web.logins import Login, Logins, TooManyAttempts
from shardman.web.looking import Looks, Seen
from shardman.web.maps import part_of, table_map, table_maps
from shardman.web.rendering import Part, Renderer
from shardman.web.stopping import stopping
from shardman.web.views import (
    HOTTEST,
    LISTED,
    SHADES,
    failed_lately,
    hottest,
    largest,
    problems_of,
    shade_of,
    weights,
)

COOKIE = "shardman"

Page = Callable[["Web", Request, Login], Awaitable[Response]]


class Web:
    """One page for one cluster.

    Args:
        dsns: of nodes. A role in them is for the curves only: who looks names his own.
        secure: the page is reached by TLS only, so its cookie is, too.
    """

    def __init__(self, dsns: Sequence[str], *, secure: bool) -> None:
        self.secure = secure
        self.logins = Logins(dsns)
        self.looks = Looks()
        self.history = History(Sampler(dsns[0]))
        self.renderer = Renderer()

    def app(self) -> Starlette:
        """As ASGI."""
        pages: Mapping[str, Page] = {
            "/": _overview,
            "/commands": _commands,
            "/commands/{number:int}": _command,
            "/nodes/{number:int}": _node,
            "/tables/{relation:path}": _table,
            "/partitions/{part:path}": _partition,
            "/do": _menu,
            "/do/{verb}": _form,
        }
        posts: Mapping[str, Page] = {
            "/do/{verb}/plan": _plan,
            "/do/{verb}": _submit,
            "/commands/{number:int}/cancel": _cancel,
            "/logout": _logout,
        }
        return Starlette(
            routes=[
                Route("/login", self._login, methods=["GET", "POST"]),
                *(Route(p, self._seen(page), methods=["POST"]) for p, page in posts.items()),
                *(Route(p, self._seen(page), methods=["GET"]) for p, page in pages.items()),
                Mount("/static", StaticFiles(directory=Path(__file__).parent / "static")),
            ],
            middleware=[Middleware(Guard)],
            lifespan=self._lifespan,
            exception_handlers={
                UserError: self._wrong,
                psycopg.Error: self._wrong,
                HTTPException: self._not_there,
            },
        )

    @asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(self.history.run(), name="curves")
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await self.history.sampler.close()

    # -- who looks ------------------------------------------------------------------------------

    def _seen(self, page: Page) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            login = self.logins.find(request.cookies.get(COOKIE))
            if login is None:
                if "hx-request" in request.headers:
                    return Response(status_code=204, headers={"hx-redirect": "/login"})
                return RedirectResponse("/login", status_code=303)
            if request.method == "POST":
                request.state.form = await need_own_form(request, login)
            return await page(self, request, login)

        return answer

    async def _login(self, request: Request) -> Response:
        if request.method == "GET":
            return self.render(request, "login.html", error=None, role="")
        need_same_origin(request)
        form = await form_of(request)
        role, password = form.get("role", ""), form.get("password", "")
        address = request.client.host if request.client else ""
        try:
            token = await asyncio.to_thread(self.logins.open, role, password, address)
        except UserError as error:
            status = 429 if isinstance(error, TooManyAttempts) else 403
            return self.render(request, "login.html", status, error=error, role=role)
        answer = RedirectResponse("/", status_code=303)
        answer.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=self.secure)
        return answer

    # -- answers --------------------------------------------------------------------------------

    def render(self, request: Request, template: str, status: int = 200, **values: Any) -> Response:
        """A page; nothing, where the viewer has it already."""
        values = {**_BARE, **values}
        part = self.renderer.part(template, {**values, "address": _address(request)})
        return self._answer(request, part, values["login"], status)

    def _answer(
        self, request: Request, part: Part, login: Login | None, status: int = 200
    ) -> Response:
        if request.headers.get("x-version") == part.version:
            return Response(status_code=204)
        if "hx-request" in request.headers:
            return HTMLResponse(part.text, status)
        text = self.renderer.page(part, login=login, path=request.url.path)
        return HTMLResponse(text, status)

    async def seen(self, login: Login) -> tuple[Seen, UserError | None]:
        """What was seen last, and why there is nothing newer.

        Raises:
            UserError: nothing was, or the role may not look any more.
        """
        seen, error = await self.looks.of(login.dsn).now()
        if error is not None and (seen is None or _is_shut_out(error)):
            raise error
        assert seen is not None
        return seen, error

    async def show(self, request: Request, login: Login, template: str, **values: Any) -> Response:
        """A page with what was seen last."""
        seen, error = await self.seen(login)
        values = {name: v(seen) if callable(v) else v for name, v in values.items()}
        return self.render(
            request, template, login=login, live=True, seen=seen, stale=error, **values
        )

    async def share(
        self,
        request: Request,
        login: Login,
        template: str,
        values: Callable[[Seen], Mapping[str, Any]],
    ) -> Response:
        """A page with what was seen last and the curves, the same for all viewers of a role: it has no secret
        of one of them."""
        seen, error = await self.seen(login)
        address = _address(request)
        part = self.renderer.shared(
            (login.dsn, template, address),
            (id(seen), seen.at, str(error or ""), self.history.number),
            template,
            lambda: {
                **_BARE,
                **values(seen),
                "live": True,
                "seen": seen,
                "stale": error,
                "address": address,
            },
        )
        return self._answer(request, part, login)

    async def _wrong(self, request: Request, error: Exception) -> Response:
        if isinstance(error, psycopg.Error):
            error = in_words(error)
        login = self.logins.find(request.cookies.get(COOKIE))
        return self.render(request, "wrong.html", 409, login=login, error=error)

    async def _not_there(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        login = self.logins.find(request.cookies.get(COOKIE))
        if login is None:
            return PlainTextResponse(error.detail, error.status_code)
        return self.render(
            request, "wrong.html", error.status_code, login=login, error=error.detail
        )


#: What a page has that is not live.
_BARE = {"login": None, "live": False, "seen": None, "stale": None}


def _address(request: Request) -> str:
    """What the page asks for again: its path, and of what stands behind it only what we know."""
    shade = request.query_params.get("shade", "")
    return quote(request.url.path) + (f"?shade={shade}" if shade in SHADES else "")


def _is_shut_out(error: UserError) -> bool:
    """Whether the role may not look any more: not even at what was seen before."""
    return error.code is Code.PERMISSION_DENIED or "authentication failed" in error.what


# -- pages ------------------------------------------------------------------------------------


async def _overview(web: Web, request: Request, login: Login) -> Response:
    shade = shade_of(request.query_params.get("shade"))
    return await web.share(
        request,
        login,
        "overview.html",
        lambda seen: {
            "maps": table_maps(seen.status, weights(seen.status, seen.rates, shade)),
            "shade": shade,
            "failed": failed_lately(seen.history, seen.at),
            "hottest": hottest(seen.status.partitions, seen.rates)[:HOTTEST],
            "stops": {n.id: stopping(seen.status, n.id) for n in seen.status.nodes},
            "curves": web.history.drawn(),
            "marks": web.history.marks(),
            "minutes": round(web.history.shown() / 60),
        },
    )


async def _commands(web: Web, request: Request, login: Login) -> Response:
    return await web.show(request, login, "commands.html")


async def _command(web: Web, request: Request, login: Login) -> Response:
    number = request.path_params["number"]
    found = await web.looks.of(login.dsn).detail(
        ("command", number), lambda dsn: details.command(dsn, number)
    )
    if found.command is None:
        raise HTTPException(404, f"there is no command {number}")
    return await web.show(request, login, "command.html", found=found)


async def _node(web: Web, request: Request, login: Login) -> Response:
    number = request.path_params["number"]
    problem = found = None
    try:
        found = await web.looks.of(login.dsn).detail(
            ("node", number), lambda dsn: details.node(dsn, number)
        )
    except UserError as error:
        problem = error

    def node(seen: Seen) -> Any:
        return _only((n for n in seen.status.nodes if n.id == number), f"node {number}")

    return await web.show(
        request,
        login,
        "node.html",
        node=node,
        own=lambda seen: problems_of(seen.status, number),
        stop=lambda seen: stopping(seen.status, number),
        found=found,
        problem=problem,
        number=number,
    )


async def _table(web: Web, request: Request, login: Login) -> Response:
    relation = request.path_params["relation"]
    shade = shade_of(request.query_params.get("shade"))

    def values(seen: Seen) -> Mapping[str, Any]:
        table = _only(
            (t for t in seen.status.tables if t["relation"] == relation), f"table {relation}"
        )
        parts = [p for p in seen.status.partitions if p["relation"] == relation]
        return {
            "table": table,
            "largest": largest(parts),
            "hottest": hottest(parts, seen.rates)[:LISTED],
            "map": table_map(seen.status, relation, weights(seen.status, seen.rates, shade)),
            "shade": shade,
        }

    return await web.share(request, login, "table.html", values)


async def _partition(web: Web, request: Request, login: Login) -> Response:
    name = request.path_params["part"]
    seen, _ = await web.seen(login)
    part = _only((p for p in seen.status.partitions if p["part_name"] == name), f"partition {name}")
    traffic = problem = None
    node = part["primary_on"]
    try:
        traffic = await web.looks.of(login.dsn).detail(
            ("traffic", name, node), lambda dsn: details.traffic(dsn, name, node)
        )
    except UserError as wrong:
        problem = wrong
    return await web.show(
        request,
        login,
        "partition.html",
        part=part,
        traffic=traffic,
        problem=problem,
        rate=lambda seen: seen.rates.get(name),
        busy=lambda seen: [c for c in seen.status.commands if part_of(c) == name],
    )


def _only(found: Any, what: str) -> Any:
    for each in found:
        return each
    raise HTTPException(404, f"there is no {what}")


async def _menu(web: Web, request: Request, login: Login) -> Response:
    verbs = [(name, acting.offered(name).summary) for name in acting.OFFERED]
    return web.render(request, "menu.html", login=login, verbs=verbs)


async def _form(web: Web, request: Request, login: Login) -> Response:
    verb = acting.offered(request.path_params["verb"])
    return web.render(
        request, "form.html", login=login, verb=verb, given=request.query_params, error=None
    )


async def _plan(web: Web, request: Request, login: Login) -> Response:
    name, form = request.path_params["verb"], request.state.form
    try:
        made = await asyncio.to_thread(acting.plan, login.dsn, name, form)
    except (UserError, psycopg.Error) as wrong:
        error = in_words(wrong) if isinstance(wrong, psycopg.Error) else wrong
        verb = acting.offered(name)
        return web.render(
            request, "form.html", 409, login=login, verb=verb, given=form, error=error
        )
    return web.render(request, "plan.html", login=login, made=made, given=form)


async def _submit(web: Web, request: Request, login: Login) -> Response:
    name, form = request.path_params["verb"], request.state.form
    number = await asyncio.to_thread(acting.submit, login.dsn, name, form)
    web.looks.of(login.dsn).hurry()
    return RedirectResponse(f"/commands/{number}", status_code=303)


async def _cancel(web: Web, request: Request, login: Login) -> Response:
    number = request.path_params["number"]
    await asyncio.to_thread(acting.cancel, login.dsn, number)
    web.looks.of(login.dsn).hurry()
    return RedirectResponse(f"/commands/{number}", status_code=303)


async def _logout(web: Web, request: Request, _login: Login) -> Response:
    web.logins.close(request.cookies.get(COOKIE))
    answer = RedirectResponse("/login", status_code=303)
    answer.delete_cookie(COOKIE)
    return answer
