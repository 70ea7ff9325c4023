"""Headers of every answer."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
        " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Guard:
    """Headers for every answer; nothing but files is kept by browsers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = scope.get("path", "").startswith("/static/")
                named = {**HEADERS, "cache-control": "max-age=86400" if kept else "no-store"}
                message["headers"] = [
                    *(h for h in message["headers"] if h[0].decode() not in named),
                    *((k.encode(), v.encode()) for k, v in named.items()),
                ]
            await send(message)

        await self._app(scope, receive, guarded)
