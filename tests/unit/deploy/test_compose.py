"""docker-compose.yml, as far as it can be judged without an engine; tests/e2e runs it."""

from __future__ import annotations

from typing import Any, Final

from support.deploy import ROOT, load

SERVICES: Final[dict[str, dict[str, Any]]] = load("docker-compose.yml")["services"]


def test_ports_are_on_loopback_only() -> None:
    """Nothing of it is for the network, until somebody puts TLS in front; but what is asked for to be public."""
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == SERVICES["gateway"]["ports"]
    assert SERVICES["gateway"]["profiles"] == ["public"]


def test_every_service_is_bounded_and_confined() -> None:
    """Memory, log files, capabilities; and each comes back by itself unless it is one that ends."""
    for name, service in SERVICES.items():
        assert service["mem_limit"], name
        assert service["logging"]["options"]["max-size"], name
        assert service["restart"] == ("no" if name in ("secret", "traffic") else "unless-stopped"), name
        if name != "minecraft":  # its image changes its user, and writes to its own tree
            assert service["cap_drop"] == ["ALL"], name
            assert service["security_opt"] == ["no-new-privileges:true"], name
        if service["image"].startswith("tcp-ws-tunnel/"):
            assert service["read_only"], name


def test_our_images_are_built_once_and_never_pulled() -> None:
    """At a registry anybody may own their names; built by two services, an image would have two ids."""
    ours = [service for service in SERVICES.values() if service["image"].startswith("tcp-ws-tunnel/")]
    assert len(ours) == 6
    assert {service["pull_policy"] for service in ours} == {"never"}
    built = [service for service in ours if "build" in service]
    assert sorted(service["image"] for service in built) == sorted({service["image"] for service in ours})
    for service in built:
        assert service["build"]["dockerfile"] == service["image"].removeprefix("tcp-ws-tunnel/") + "/Dockerfile"
        assert (ROOT / service["build"]["dockerfile"]).is_file()


def test_without_a_profile_it_is_the_tunnel_alone() -> None:
    """What a newcomer starts."""
    usual = {name for name, service in SERVICES.items() if not service.get("profiles")}
    assert usual == {"secret", "relay", "server", "host-agent", "client-agent"}


def test_only_the_host_agent_reaches_the_server() -> None:
    """So that traffic that arrives there has come through the tunnel."""
    assert SERVICES["server"]["networks"] == ["server"]
    assert {name for name, service in SERVICES.items() if "server" in service.get("networks", ())} == {
        "server",
        "host-agent",
    }


def test_mounted_files_are_there() -> None:
    """Paths of this repository, read-only."""
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            if volume.startswith("./"):
                path, _, mode = volume.split(":")
                assert (ROOT / path).exists(), path
                assert mode == "ro"
