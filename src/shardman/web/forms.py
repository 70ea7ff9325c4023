"""Forms that come in: small, from our own pages, with the secret of the session."""

from __future__ import annotations

from secrets import compare_digest
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request

from shardman.web.logins import Login

#: A form of ours has some short fields.
FORM_BYTES = 20_000


async def form_of(request: Request) -> dict[str, str]:
    """The fields that are text.

    Raises:
        HTTPException: it is too large.
    """
    if int(request.headers.get("content-length") or FORM_BYTES + 1) > FORM_BYTES:
        raise HTTPException(413, "the form is too large")
    form = await request.form(max_files=0, max_fields=50, max_part_size=FORM_BYTES)
    return {k: v for k, v in form.items() if isinstance(v, str)}


def need_same_origin(request: Request) -> None:
    """A browser says where a form comes from.

    Raises:
        HTTPException: from another page.
    """
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise HTTPException(403, "this form comes from another page")


async def need_own_form(request: Request, login: Login) -> dict[str, str]:
    """The fields of a form that we have made: only that has this session's secret.

    Raises:
        HTTPException: it has not.
    """
    need_same_origin(request)
    form = await form_of(request)
    sent = form.pop("csrf", "")
    if not compare_digest(sent.encode(), login.csrf.encode()):
        raise HTTPException(403, "this form was not made for your session: go back and try again")
    return form
