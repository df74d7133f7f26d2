"""Limits of the page's server: who may ask for how much, and a page that loads nothing from elsewhere."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

MAX_BODY = 30 * 2**20
"""Bytes of a request: the largest are five uploads of the largest size."""
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "object-src 'none'; form-action 'self'; frame-ancestors 'self'"
)
FETCHING = ("/proxy=", "file=http:", "file=https:")
"""Parts of addresses by which the library would fetch pages from elsewhere."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Guard:
    """ASGI middleware: refuses large requests and relays, and adds the content security policy.

    Args:
        app: the application behind it.
        most: bytes of a request's body.
    """

    def __init__(
        self, app: Callable[[Message, Receive, Send], Awaitable[None]], most: int = MAX_BODY
    ) -> None:
        self.app, self.most = app, most

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        if any(part in scope["path"] for part in FETCHING):
            return await _refuse(send, 404, b"this page fetches nothing from elsewhere")
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if not announced.isdigit() or int(announced) > self.most:
            return await _refuse(send, 413, b"too large")
        return await self.app(scope, self._counted(receive), _with_policy(send))

    def _counted(self, receive: Receive) -> Receive:
        """Cut off a body that is longer than its sender announced or may send."""
        total = 0

        async def counted() -> Message:
            nonlocal total
            message = await receive()
            total += len(message.get("body", b""))
            return message if total <= self.most else {"type": "http.disconnect"}

        return counted


def _with_policy(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            extra = [(b"content-security-policy", POLICY.encode()), (b"referrer-policy", b"no-referrer")]
            message["headers"] = [*message.get("headers", []), *extra]
        await send(message)

    return sending


async def _refuse(send: Send, status: int, text: bytes) -> None:
    headers = [(b"content-type", b"text/plain"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})
