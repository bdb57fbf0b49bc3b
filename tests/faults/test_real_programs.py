"""Programs that people use, through a tunnel whose relay is killed meanwhile, and at a gateway's public ports."""

from __future__ import annotations

import getpass
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.faults import Leaks, at_rest, metric, wait_until

from demo.processes import Tunnel, free_port
from faults.conftest import need

pytestmark = pytest.mark.faults

CURL_RESET = 56  # its exit code


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


@pytest.mark.parametrize("public", [False, True], ids=["client-agent", "gateway"])
def test_an_ssh_session_keeps_its_shell(environ: dict[str, str], tmp_path: Path, public: bool) -> None:
    """A variable and a directory of an interactive shell, across three kills of the relay."""
    need("ssh", "sshd", "ssh-keygen")
    dialed = free_port()
    if public:
        environ = environ | {"CLIENT_AGENT_PUBLIC": f"127.0.0.1:{dialed}=demo"}
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
            *(
                "ssh",
                "-tt",
                "-F",
                "none",
                "-i",
                f"{tmp_path}/user",
                "-p",
                str(dialed if public else tunnel.port),
                *quiet,
                there,
            ),
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


def output(*command: str) -> str:
    """What it prints, if it succeeds."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_a_shared_port_leads_openssl_and_curl_by_name(tmp_path: Path) -> None:
    """Each to the server of the name that it asks for, by TLS and by HTTP; certificates are the servers' own."""
    need("openssl", "curl")
    tls, web, shared = free_port(), free_port(), free_port()
    key, certificate = f"{tmp_path}/key", f"{tmp_path}/certificate"
    output(
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"),
        *("-subj", "/CN=tls.example.com", "-addext", "subjectAltName=DNS:tls.example.com"),
        *("-keyout", key, "-out", certificate),
    )
    (tmp_path / "index.html").write_text("the web server")
    gateway = {
        "CLIENT_AGENT_SHARED": f"127.0.0.1:{shared}",
        "CLIENT_AGENT_ROUTE": "tls.example.com=demo web.example.com=web",
    }
    tunnel = Tunnel(target=tls, environ=gateway)
    relay, offer = f"ws://127.0.0.1:{tunnel.relay_port}", f"web=127.0.0.1:{web}"
    tunnel.all.append(tunnel.add_service("web", "--relay", relay, "--tunnel", offer, command="host-agent"))
    files = (sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(tmp_path), str(web))
    with (
        server(
            "openssl", "s_server", "-accept", f"127.0.0.1:{tls}", "-cert", certificate, "-key", key, "-www", port=tls
        ),
        server(*files, port=web),
        tunnel,
    ):
        checked = ("-CAfile", certificate, "-verify_return_error", "-verify_hostname", "tls.example.com")
        there = ("-connect", f"127.0.0.1:{shared}", "-servername", "tls.example.com")
        assert "Verify return code: 0 (ok)" in output("openssl", "s_client", *there, *checked)
        quiet = ("curl", "--silent", "--show-error", "--noproxy", "*", "--max-time", "30")
        to_it = ("--connect-to", f"::127.0.0.1:{shared}")
        assert "s_server" in output(*quiet, *to_it, "--cacert", certificate, "https://tls.example.com/")
        assert output(*quiet, *to_it, "http://web.example.com/") == "the web server"
        nowhere = (*quiet, *to_it, "http://other.example.com/")
        assert subprocess.run(nowhere, capture_output=True, timeout=60, check=False).returncode == CURL_RESET


def haproxy_target(folder: Path, port: int) -> list[str]:
    """A server that requires a PROXY header, and answers with the address in it."""
    config = folder / "target.cfg"
    config.write_text(f"""
defaults
    mode http
    timeout client 30s
frontend target
    bind 127.0.0.1:{port} accept-proxy
    http-request return status 200 content-type text/plain lf-string "%[src]:%[src_port]"
""")
    return ["/usr/sbin/haproxy", "-db", "-f", str(config)]


def nginx_target(folder: Path, port: int) -> list[str]:
    """Another that does."""
    config = folder / "nginx.conf"
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config.write_text(f"""
pid {folder}/nginx.pid;
events {{}}
http {{
    access_log off;
    {temporary}
    server {{
        listen 127.0.0.1:{port} proxy_protocol;
        return 200 "$proxy_protocol_addr:$proxy_protocol_port";
    }}
}}
""")
    flags = ["-p", str(folder), "-e", "stderr", "-c", str(config)]
    return ["/usr/sbin/nginx", *flags, "-g", "daemon off; master_process off;"]


@pytest.mark.parametrize("target", [haproxy_target, nginx_target])
def test_the_proxy_protocol_from_a_balancer_to_a_server(
    target: Callable[[Path, int], list[str]], tmp_path: Path
) -> None:
    """A balancer in front names the visitor, and the server hears that name; who comes past it is turned away."""
    need("haproxy", "nginx", "curl")
    port, public, front = free_port(), free_port(), free_port()
    balancer = tmp_path / "balancer.cfg"
    balancer.write_text(f"""
defaults
    mode tcp
    timeout connect 30s
    timeout client 30s
    timeout server 30s
listen balancer
    bind 127.0.0.1:{front}
    server gateway 127.0.0.1:{public} send-proxy-v2
""")
    environ = {
        "HOST_AGENT_PROXY_PROTOCOL": "demo",
        "CLIENT_AGENT_PUBLIC": f"127.0.0.1:{public}=demo",
        "CLIENT_AGENT_PROXY_PROTOCOL_FROM": "127.0.0.1/32",
    }
    with (
        server(*target(tmp_path, port), port=port),
        Tunnel(target=port, environ=environ),
        server("/usr/sbin/haproxy", "-db", "-f", str(balancer), port=front),
    ):
        quiet = ("curl", "--silent", "--show-error", "--noproxy", "*", "--max-time", "30")
        for address in ("127.0.0.9", "127.0.0.10"):
            said = ("--interface", address, "--write-out", "\n%{local_ip}:%{local_port}")
            heard, dialed_from = output(*quiet, *said, f"http://127.0.0.1:{front}/").split()
            assert heard == dialed_from
            assert heard.startswith(f"{address}:")
        past_it = (*quiet, "--interface", "127.0.0.1", f"http://127.0.0.1:{public}/")
        assert subprocess.run(past_it, capture_output=True, timeout=60, check=False).returncode == CURL_RESET
