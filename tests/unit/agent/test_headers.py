"""Headers of the user's own: which may be given, and what is said of others."""

from __future__ import annotations

import pytest
from tunnel_core.agent import headers
from tunnel_core.errors import UsageError


def test_lines_are_headers() -> None:
    """Names as they were written; comments and empty lines are none; a value may have colons, or be empty."""
    text = "CF-Access-Client-Id: alex.access\r\n\n# the other half\n X-Key:a: b \nX-Empty:\nCookie: a=1\nCookie: b=2\n"
    assert headers.parse(text, has_token=True) == [
        ("CF-Access-Client-Id", "alex.access"),
        ("X-Key", "a: b"),
        ("X-Empty", ""),
        ("Cookie", "a=1"),
        ("Cookie", "b=2"),
    ]
    assert headers.parse("", has_token=True) == []


def test_authorization_is_the_tokens() -> None:
    """Unless there is none: then a login before the relay may have it."""
    text = "Authorization: Basic hunter2"
    assert headers.parse(text, has_token=False) == [("Authorization", "Basic hunter2")]
    with pytest.raises(UsageError, match="Authorization cannot be given: the relay's token goes there"):
        headers.parse(text, has_token=True)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("hunter2", "number 1 is no header: write 'NAME: VALUE'"),
        (": hunter2", "number 1 is no header"),
        ("hunter2 x: y", "number 1 is no header"),
        ("X-Key: hunter2\x07", "the value of X-Key has characters that no header can have"),
        ("X-Key: hunter2 ✓", "the value of X-Key has characters"),
        ("Connection: hunter2", "Connection cannot be given: it is part of the WebSocket handshake"),
        ("sec-websocket-protocol: hunter2", "sec-websocket-protocol cannot be given: it is part of the WebSocket"),
        ("Transfer-Encoding: hunter2", "Transfer-Encoding cannot be given: it is between neighbours"),
        ("Proxy-Authorization: hunter2", "Proxy-Authorization cannot be given: write the proxy's user name"),
        ("Host: hunter2", "Host cannot be given: write --relay-host NAME"),
        ("Tunnel-Instance-Key: hunter2", "Tunnel-Instance-Key cannot be given: it is this protocol's own"),
    ],
)
def test_what_cannot_be_given_is_refused_with_a_reason(line: str, expected: str) -> None:
    """And without its value, which may be a secret."""
    with pytest.raises(UsageError) as refused:
        headers.parse(line, has_token=True)
    assert str(refused.value).startswith(f"--header: {expected}")
    assert "hunter2" not in str(refused.value)
