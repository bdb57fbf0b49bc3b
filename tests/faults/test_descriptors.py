"""Agents that have no descriptors left."""

from __future__ import annotations

import contextlib
import socket

import pytest
from support.faults import Leaks, at_rest, wait_until

from demo.processes import Tunnel

pytestmark = pytest.mark.faults

FEW = 96
INSIDE, TOO_MANY = 10, 100  # connections


def answers(sock: socket.socket) -> bool:
    """Whether an echo is at the other end."""
    with contextlib.suppress(OSError):
        sock.settimeout(5)
        sock.sendall(b"hello")
        return sock.recv(5, socket.MSG_WAITALL) == b"hello"
    return False


def served(tunnel: Tunnel) -> bool:
    """Whether a newcomer is."""
    with contextlib.suppress(OSError), socket.create_connection(tunnel.address) as sock:
        return answers(sock)
    return False


@pytest.mark.parametrize("which", ["client", "host"])
def test_an_agent_without_descriptors_goes_on(environ: dict[str, str], which: str) -> None:
    """Those inside notice nothing, newcomers are turned away or wait; it says so; then all is as before."""
    tunnel = Tunnel(environ=environ)
    agent = {"client": tunnel.client, "host": tunnel.host}[which]
    agent.limit_descriptors(FEW)
    with tunnel:
        inside = [socket.create_connection(tunnel.address) for _ in range(INSIDE)]
        assert all(map(answers, inside))
        leaks = Leaks(tunnel)
        crowd = [socket.create_connection(tunnel.address) for _ in range(TOO_MANY)]
        turned_away = [answers(sock) for sock in crowd].count(False)
        print(f"{TOO_MANY - turned_away} of {TOO_MANY} found room, {len(agent.log.read_text().splitlines())} log lines")
        assert turned_away
        assert all(map(answers, inside))
        for sock in crowd:
            sock.close()
        wait_until(lambda: served(tunnel), 60)
        assert all(map(answers, inside))
        # It says what is wrong, but does not fill the disk with it: some lines a connection at most.
        hint = {"client": "raise the limit (ulimit -n)", "host": "Too many open files"}[which]
        assert hint in agent.log.read_text()
        assert len(agent.log.read_text().splitlines()) < 10 * TOO_MANY
        leaks.check()
        for sock in inside:
            sock.close()
        at_rest(tunnel)
