"""The health command of the containers."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest
from tunnel_core.service import health


class _Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/readyz" else 404)
        self.end_headers()
        self.wfile.write(b"ready\n")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    """The port of an admin server that has IPv4 alone, as containers mostly have."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Ready) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("host", ["", "127.0.0.1", "localhost", "0.0.0.0", "[::]", "::"])
def test_asks_who_listens_on_all_addresses_by_ipv4(port: int, host: str, capsys: pytest.CaptureFixture[str]) -> None:
    """However all addresses are written: a container may have no IPv6."""
    environ = {"X_ADMIN_HOST": host, "X_ADMIN_PORT": str(port)}
    assert health.main("x", "X", [], environ, None) == 0
    assert capsys.readouterr().out == "ready\n"
