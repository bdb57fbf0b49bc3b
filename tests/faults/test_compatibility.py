"""Old and new services work together (PROTOCOL.md, "Compatibility"): streams are carried, and survive the relay."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from pathlib import Path

import pytest
from support.deploy import ROOT

from demo import traffic
from demo.processes import Tunnel

# The last commit before the protocol promised to stay compatible: everything since must work with it.
OLD = "f11982da23208ff00698cd87f1eaef007df7041c"
pytestmark = pytest.mark.faults

SERVICES = ("relay", "host-agent", "client-agent")


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages of OLD, as its wheel has them."""
    folder = tmp_path_factory.mktemp("old")
    archive = subprocess.run(["git", "archive", OLD], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        pytest.skip(f"COMPATIBILITY IS NOT TESTED: this checkout has no commit {OLD[:7]} (is it a shallow clone?)")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(folder / "source", filter="data")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index",
         "--no-build-isolation", "--wheel-dir", folder, folder / "source"],
        check=True,
    )  # fmt: skip
    (wheel,) = folder.glob("tcp_ws_tunnel-*.whl")
    with zipfile.ZipFile(wheel) as packages:
        packages.extractall(folder / "packages")
    return folder / "packages"


@pytest.mark.parametrize("which", [("relay",), ("host-agent",), ("client-agent",), ("host-agent", "client-agent")])
def test_old_and_new_services_work_together(old: Path, which: tuple[str, ...]) -> None:
    """The services of `which` are old, the others new; the relay is killed in the middle of a transfer."""
    with Tunnel() as tunnel:
        services = dict(zip(SERVICES, (tunnel.relay, tunnel.host, tunnel.client), strict=True))
        for name in which:
            services[name].stop()
            services[name].environ = services[name].environ | {"PYTHONPATH": str(old)}
            services[name].start()
            services[name].wait_ready()
        for name in SERVICES[1:]:
            services[name].wait_ready()
            counts_unknown_messages = "tunnel_agent_unknown_messages_total" in services[name].get("/metrics")[1]
            assert counts_unknown_messages == (name not in which), f"{name} is not the version that it should be"
        reports: list[traffic.Report] = []
        transfer = threading.Thread(
            target=lambda: reports.append(traffic.drive(tunnel.address, streams=3, size=2 << 20, seconds=2.0))
        )
        transfer.start()
        while len(tunnel.client.events("stream opened")) < 3:
            time.sleep(0.02)
        tunnel.relay.kill()
        tunnel.relay.start()
        transfer.join()
        (report,) = reports
        assert report.problems == []
        assert report.bytes_verified == 3 * (2 << 20)
        assert tunnel.client.events("stream resumed")
        assert not any(service.events("bug") for service in services.values())
