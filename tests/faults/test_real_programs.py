"""Programs that people use, through a tunnel whose relay is killed meanwhile."""

from __future__ import annotations

import getpass
import os
import pty
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.faults import Leaks, at_rest, metric, wait_until

from demo.processes import Tunnel, free_port
from faults.conftest import need

pytestmark = pytest.mark.faults


@contextmanager
def server(*command: str, port: int) -> Iterator[None]:
    """Run a server until it listens on `port`, and stop it afterwards."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: listens(port) or child.poll() is not None)
        assert child.poll() is None, child.stdout.read() if child.stdout else ""
        yield
    finally:
        child.terminate()
        child.communicate(timeout=10)


def listens(port: int) -> bool:
    """Whether somebody listens on this port of 127.0.0.1, without connecting to it."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(line.split()[1] == f"0100007F:{port:04X}" and line.split()[3] == "0A" for line in lines)


def kill_and_restart(tunnel: Tunnel) -> None:
    """Kill -9 of the relay, and a new one, and the streams are on it."""
    before = metric(tunnel.client, "tunnel_agent_resumes_total")
    tunnel.relay.kill()
    tunnel.relay.start()
    wait_until(lambda: metric(tunnel.client, "tunnel_agent_resumes_total") > before)


class Terminal:
    """A program on a pseudo-terminal."""

    def __init__(self, *command: str) -> None:
        pid, self._fd = pty.fork()
        if not pid:
            os.execvp(command[0], command)  # in the child
        self._pid = pid
        self._seen = b""

    def types(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def shows(self, text: str, patience: float = 30.0) -> None:
        """Wait until it has shown `text` since it was last looked for."""
        deadline = time.monotonic() + patience
        while text.encode() not in self._seen:
            ready, _, _ = select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"no {text!r} in {self._seen!r}"
            self._seen += os.read(self._fd, 4096)
        self._seen = self._seen.partition(text.encode())[2]

    def close(self) -> int:
        """Wait for its end; returns the exit code."""
        code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        os.close(self._fd)
        return code


def test_an_ssh_session_keeps_its_shell(environ: dict[str, str], tmp_path: Path) -> None:
    """A variable and a directory of an interactive shell, across three kills of the relay."""
    need("ssh", "sshd", "ssh-keygen")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    (tmp_path / "authorized").write_text((tmp_path / "user.pub").read_text())
    port = free_port()
    config = tmp_path / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {tmp_path}/host\nAuthorizedKeysFile {tmp_path}/authorized\n"
        f"PidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    with (
        server("/usr/sbin/sshd", "-D", "-e", "-f", str(config), port=port),
        Tunnel(environ=environ, target=port) as tunnel,
    ):
        quiet = ("-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={tmp_path}/known", "-o", "LogLevel=ERROR")
        there = f"{getpass.getuser()}@127.0.0.1"
        leaks = Leaks(tunnel)
        ssh = Terminal(
            *("ssh", "-tt", "-F", "none", "-i", f"{tmp_path}/user", "-p", str(tunnel.port), *quiet, there),
            *("sh", "-i"),
        )
        ssh.types("STATE=kept; cd /usr; echo it-is-$STATE\n")
        ssh.shows("it-is-kept")
        for number in range(3):
            kill_and_restart(tunnel)
            ssh.types(f"echo {number}-still-$STATE-in-$(pwd)\n")
            ssh.shows(f"{number}-still-kept-in-/usr")
        ssh.types("exit 7\n")
        assert ssh.close() == 7
        at_rest(tunnel)
        leaks.check()


def test_redis_benchmark_finishes_without_an_error(environ: dict[str, str], tmp_path: Path) -> None:
    """20 connections that set and get, across three kills of the relay."""
    need("redis-server", "redis-benchmark")
    port = free_port()
    with (
        server(
            "redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path), port=port
        ),
        Tunnel(environ=environ, target=port) as tunnel,
    ):
        command = [
            "redis-benchmark",
            "-p",
            str(tunnel.port),
            "-c",
            "20",
            "-n",
            "40000",
            "-t",
            "set,get",
            "-q",
            "-d",
            "100",
        ]
        leaks = Leaks(tunnel)
        benchmark = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(3):
            before = metric(tunnel.client, "tunnel_agent_bytes_total")
            wait_until(lambda before=before: metric(tunnel.client, "tunnel_agent_bytes_total") > before + 500_000)  # type: ignore[misc]
            assert benchmark.poll() is None, "a kill after the end proves nothing"
            kill_and_restart(tunnel)
        output, _ = benchmark.communicate(timeout=120)
        print(output.replace("\r", "\n").splitlines()[-3:])
        assert benchmark.returncode == 0, output
        assert "rror" not in output
        assert output.count("requests per second") == 2
        at_rest(tunnel)
        leaks.check()
