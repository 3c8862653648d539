"""What a page on the network is asked: only under its own names, and never more than its answers need."""

import ipaddress
import re
import socket

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


# The page's own requests have less than one KiB.
MAX_BODY_BYTES = 1 << 16
_LOCAL = ("localhost", "127.0.0.1", "::1")
_EVERYWHERE = ("0.0.0.0", "::")


class PageGuard:
    """
    ASGI middleware that lets no request through which is too large, or which asks for another host: a page from
    elsewhere may have its name lead here (DNS rebinding).

    Args:
        app (`ASGIApp`): What is guarded.
        host (`str`): Address that the page is served on. On all of a machine's, it is asked by any of them, or by the
            machine's name.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self.app = app
        own = host.lower().strip("[]")
        self._is_everywhere = own in _EVERYWHERE
        self._names = {*_LOCAL, own}
        if self._is_everywhere:
            self._names |= {socket.gethostname().lower(), socket.getfqdn().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            # A websocket is not used by the page.
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if not self._is_own(headers.get("host", "")):
            await PlainTextResponse("This page is not served under that name.", 400)(scope, receive, send)
            return
        body = await _read_body(headers, receive)
        if body is None:
            await PlainTextResponse("Too much for this page.", 413)(scope, receive, send)
            return
        await self.app(scope, _replayed(body, receive), send)

    def _is_own(self, header: str) -> bool:
        match = re.fullmatch(r"(?:\[([0-9a-f:.]+)\]|([^\[\]:@/\s]+))(?::\d*)?", header.lower())
        if match is None:
            return False
        name = match[1] or match[2].removesuffix(".")
        return name in self._names or (self._is_everywhere and _is_address(name))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def _read_body(headers: Headers, receive: Receive) -> bytes | None:
    """A request's body; `None` if it is too large, of which no more is read."""
    length = headers.get("content-length", "0")
    if not length.isdecimal() or len(length) > 10 or int(length) > MAX_BODY_BYTES:
        return None
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            return None
        if not message.get("more_body", False):
            return body


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The body once more, and after it what else comes, which is the end of the connection."""
    is_sent = False

    async def replay() -> Message:
        nonlocal is_sent
        if is_sent:
            return await receive()
        is_sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
