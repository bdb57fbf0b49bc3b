"""Look-ups of names: shared, bounded, and never behind one that hangs."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from collections import Counter

import pytest
from support.apps import until
from tunnel_core.net import names
from tunnel_core.net.names import AddressInfo, Resolver

HERE: AddressInfo = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))
HERE_TOO: AddressInfo = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0))


class Names:
    """A system whose names beginning with `bad` hang until `release`, and those beginning with `no` are not found."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self._released = threading.Event()
        self.resolver = Resolver(self._look_up)

    def _look_up(self, host: str) -> list[AddressInfo]:
        self.asked[host] += 1
        if host.startswith("bad"):
            self._released.wait(20)
        if host.startswith("no"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [HERE, HERE_TOO]

    def release(self) -> None:
        self._released.set()


async def test_addresses_have_the_port() -> None:
    """Of both families, with what else belongs to them."""
    found = await Names().resolver.resolve("good", 7)
    assert [info[4] for info in found] == [("127.0.0.1", 7), ("::1", 7, 0, 0)]


async def test_a_name_that_is_not_found() -> None:
    """Each who asked is told, and the next asks anew."""
    system = Names()
    asking = [asyncio.ensure_future(system.resolver.resolve("no", 1)) for _ in range(3)]
    for result in await asyncio.gather(*asking, return_exceptions=True):
        assert isinstance(result, socket.gaierror)
    with pytest.raises(socket.gaierror):
        await system.resolver.resolve("no", 1)
    assert 2 <= system.asked["no"] <= 4


async def test_look_ups_of_one_name_are_one() -> None:
    """Whatever their ports; who gives up waiting takes it from nobody else."""
    system = Names()
    asking = [asyncio.ensure_future(system.resolver.resolve("bad", port)) for port in range(100)]
    await until(lambda: system.asked["bad"])
    asking[0].cancel()
    await asyncio.sleep(0)
    system.release()
    found = await asyncio.gather(*asking[1:])
    assert [infos[0][4][1] for infos in found] == list(range(1, 100))
    assert asking[0].cancelled()
    assert system.asked["bad"] == 1


async def test_names_that_hang_hold_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as there are threads at first; and, once they are known to hang, never more than half of those."""
    monkeypatch.setattr(names, "SLOW", 0.0)
    system = Names()
    hanging = [asyncio.ensure_future(system.resolver.resolve(f"bad{n}", 1)) for n in range(names.MOST - 1)]
    await until(lambda: system.asked.total() == names.MOST - 1)
    await system.resolver.resolve("good", 1)
    system.release()
    await asyncio.gather(*hanging)

    system._released.clear()
    system.asked.clear()
    monkeypatch.setattr(names, "SLOW", 60.0)
    hanging = [asyncio.ensure_future(system.resolver.resolve(f"bad{n}", 1)) for n in range(names.MOST - 1)]
    await until(lambda: system.asked.total() == names.MOST_SLOW)
    for number in range(names.MOST):
        await system.resolver.resolve(f"other{number}", 1)
    assert system.asked.total() == names.MOST_SLOW + names.MOST
    system.release()
    await asyncio.gather(*hanging)
    assert system.asked.total() == names.MOST - 1 + names.MOST, "those that waited for a thread had theirs"


def test_a_look_up_that_hangs_delays_no_end() -> None:
    """The process ends with its loop, whatever its threads wait for."""
    program = """
import asyncio, threading
from tunnel_core.net import names

def hang(host):
    print("asked", flush=True)
    threading.Event().wait()

names.look_up = hang

async def main():
    try:
        async with asyncio.timeout(0.1):
            await names.resolve("bad", 1)
    except TimeoutError:
        print("gave up")

asyncio.run(main())
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "asked\ngave up\n", "")
