"""What every request must pass, and what every response carries.

The page is for the people of this machine. A foreign web page that is open in the same browser must
not read it by rebinding a DNS name (the Host header is checked), nor act on it (Origin and a token
are), nor run a script in it (a content security policy), nor frame it.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["LOOPBACK", "Guard", "Token", "is_loopback", "read_form"]

#: Names under which a browser on this machine reaches a server on loopback.
LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
#: Bytes of path and query, and of a form.
MAX_URL = 8_192
MAX_FORM = 65_536

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # Not "no-referrer": browsers then send "Origin: null" with our own forms.
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


class Guard:
    """An ASGI application around the page: refuses foreign requests, adds headers to all answers.

    Args:
        app: the page.
        host: the address that the server is bound to. On loopback only loopback names are let in;
            elsewhere also that address and any literal IP, which no DNS name can be bound to.
    """

    def __init__(self, app: ASGIApp, host: str = "127.0.0.1") -> None:
        self.app = app
        self.host = host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # a websocket, which nothing here speaks
            await send({"type": "websocket.close", "code": 1008})
            return

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-cache")
            await send(message)

        refused = self._refused(scope)
        app = self.app if refused is None else PlainTextResponse(refused[1], refused[0])
        await app(scope, receive, sent)

    def _refused(self, scope: Scope) -> tuple[int, str] | None:
        """Status and reason where a request is not let in."""
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._ours(hosts[0]):
            return 421, "This server answers to its own name only.\n"
        origin = headers.get("origin")
        if origin is not None and origin != f"{scope['scheme']}://{hosts[0]}":
            return 403, "Requests from other pages are refused.\n"
        # Pictures and scripts of a foreign page send no Origin; browsers say where they are from.
        foreign = headers.get("sec-fetch-site") in ("cross-site", "same-site")
        if foreign and headers.get("sec-fetch-mode") != "navigate":
            return 403, "Requests from other pages are refused.\n"
        if len(scope.get("raw_path", b"")) + len(scope["query_string"]) > MAX_URL:
            return 414, "The address is too long.\n"
        return None

    def _ours(self, host: str) -> bool:
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        if name.lower() in LOOPBACK:
            return True
        if is_loopback(self.host):
            return False
        return name.lower() == self.host.lower() or _is_address(name)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server bound there.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0")
        (True, True, False)
    """
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_address(name: str) -> bool:
    try:
        return bool(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        return False


class Token:
    """What a form must carry to act: drawn anew by every server, never in an address."""

    def __init__(self) -> None:
        self.value = secrets.token_urlsafe(32)

    def check(self, form: dict[str, str]) -> None:
        """Raise unless a form carries it.

        Raises:
            HTTPException: 403.
        """
        if not hmac.compare_digest(form.get("token", "").encode(), self.value.encode()):
            raise HTTPException(
                403,
                "The form is not from this server as it runs now. Load its page again.",
            )


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form; of one that is repeated, the last.

    Raises:
        HTTPException: 413 if it is too large, 415 if it is of another kind.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    if kind != "application/x-www-form-urlencoded":
        raise HTTPException(415, "Expected an ordinary form.")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM:
            raise HTTPException(413, "The form is too large.")
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=50)
    except ValueError:
        raise HTTPException(400, "The form cannot be read.") from None
    return {name: values[-1] for name, values in fields.items()}
