"""What a page on the network is asked: only under its own names, and never more than its answers need."""

import ipaddress
import json
import re
import socket

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


# The page's own requests have less than one KiB.
MAX_BODY_BYTES = 1 << 16
# Where gradio takes files.
UPLOAD = "/upload"
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
        max_body_bytes (`int`, defaults to 65536): Of a request.
        max_upload_bytes (`int`, *optional*): Of a request that uploads files, which is not read into memory here; as
            any other one if not given.
        any_host (`bool`, defaults to `False`): Whether the page has names that are not known here, as behind a tunnel.
        refuses_addresses (`bool`, defaults to `False`): Whether files have to be uploaded: gradio would fetch what has
            an address for a path, of any size.
    """

    def __init__(
        self,
        app: ASGIApp,
        host: str,
        max_body_bytes: int = MAX_BODY_BYTES,
        max_upload_bytes: int | None = None,
        any_host: bool = False,
        refuses_addresses: bool = False,
    ) -> None:
        self.app = app
        self._max_body_bytes = max_body_bytes
        self._max_upload_bytes = max_upload_bytes
        self._any_host = any_host
        self._refuses_addresses = refuses_addresses
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
        if not self._any_host and not self._is_own(headers.get("host", "")):
            await PlainTextResponse("This page is not served under that name.", 400)(scope, receive, send)
            return
        if self._max_upload_bytes is not None and scope["path"].endswith(UPLOAD):
            await self._pass_upload(scope, headers, receive, send)
            return
        body = await _read_body(headers, receive, self._max_body_bytes)
        if body is None:
            await _refuse(scope, receive, send)
            return
        if self._refuses_addresses and _names_address(body):
            await PlainTextResponse("Files have to be uploaded.", 400)(scope, receive, send)
            return
        await self.app(scope, _replayed(body, receive), send)

    async def _pass_upload(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        most = self._max_upload_bytes
        if _length(headers) is None or _length(headers) > most:
            await _refuse(scope, receive, send)
            return
        received, has_answered = 0, False

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > most:
                raise _TooLarge
            return message

        async def answer(message: Message) -> None:
            nonlocal has_answered
            has_answered = True
            await send(message)

        try:
            await self.app(scope, counted, answer)
        except _TooLarge:
            if not has_answered:
                await _refuse(scope, receive, send)

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


class _TooLarge(Exception):
    """More than was announced, or may be uploaded."""


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("Too much for this page.", 413)(scope, receive, send)


def _length(headers: Headers) -> int | None:
    """Of a request, as it says; 0 if it does not, and `None` if that is no number."""
    length = headers.get("content-length", "0")
    # Longer ones take Python long to read.
    return int(length) if length.isdecimal() and len(length) <= 18 else None


async def _read_body(headers: Headers, receive: Receive, most: int) -> bytes | None:
    """A request's body; `None` if it is too large, of which no more is read."""
    length = _length(headers)
    if length is None or length > most:
        return None
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > most:
            return None
        if not message.get("more_body", False):
            return body


def _names_address(body: bytes) -> bool:
    """Whether JSON names a file by an address; anything else than JSON names none."""
    try:
        waiting = [json.loads(body)]
    except (ValueError, RecursionError):
        return False
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            path = value.get("path")
            if isinstance(path, str) and re.match(r"\s*[a-z][a-z0-9+.-]*://", path, re.IGNORECASE):
                return True
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return False


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
