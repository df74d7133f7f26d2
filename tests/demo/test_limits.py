"""The middleware before the page."""

import asyncio

import pytest

from metagen.demo.limits import Guard


def ask(path="/", headers=(), chunks=(b"",), most=100):
    """Send a request to a guarded application that reads all of the body and returns its length."""
    sent, left = [], list(chunks)

    async def receive():
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    async def send(message):
        sent.append(message)

    async def length(scope, receive, send):
        total, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            total, more = total + len(message["body"]), message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"y")]})
        await send({"type": "http.response.body", "body": str(total).encode()})

    scope = {"type": "http", "path": path, "headers": list(headers)}
    asyncio.run(Guard(length, most)(scope, receive, send))
    return sent


def test_a_page_may_load_nothing_from_elsewhere():
    start, body = ask(chunks=[b"ab", b"cd"])
    assert body["body"] == b"4"
    headers = dict(start["headers"])
    assert headers[b"x"] == b"y"
    assert b"default-src 'self'" in headers[b"content-security-policy"]
    assert b"http" not in headers[b"content-security-policy"]


@pytest.mark.parametrize("length", [b"101", b"-1", b"many"])
def test_a_large_request_is_refused(length):
    assert ask(headers=[(b"content-length", length)])[0]["status"] == 413
    assert ask(headers=[(b"content-length", b"100")], chunks=[b"a" * 100])[0]["status"] == 200


def test_a_request_larger_than_it_says_is_cut_off():
    assert ask(chunks=[b"a" * 60, b"a" * 60], headers=[(b"content-length", b"5")]) == []


@pytest.mark.parametrize("path", ["/gradio_api/proxy=https://a.b/c", "/gradio_api/file=http://10.0.0.1/"])
def test_nothing_is_fetched_for_a_visitor(path):
    assert ask(path)[0]["status"] == 404
