"""The memory of one agent, and how much of it each stream may have.

Theory of operation. Two things of a stream take memory: what it sent and may have to send again,
and what it let the other end send, which may have to wait for a slow local reader. Both are taken
from one budget. Each stream belongs to an account: whose token it came with, at a host; which tunnel
it leads to, at a client; which address it came from, at a gateway.

A fixed share for each would either be tiny or promise the same bytes to many. So thresholds move,
as they do in switches whose ports share one memory (Choudhury and Hahne, "Dynamic queue length
thresholds", 1998): an account may have as much as is still free, and of that a stream as much as its
account leaves. One account alone can fill half of the budget, two fill a third each, n leave an nth
part and one: whoever comes next finds as much as each of those who are there already has. Nobody
is ever asked to give back what it holds: it is held back until others' shares have shrunk, or grown
to the size of its own.
"""

from __future__ import annotations


class _Account:
    __slots__ = ("shares", "used")

    def __init__(self) -> None:
        self.used = 0
        self.shares = 0


class Budget:
    """`limit` bytes, of which `used` are taken; and how many streams are `starved`: held back for want of more."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self.starved = 0
        self._accounts: dict[str, _Account] = {}

    def share(self, owner: str) -> Share:
        """A share of the account of `owner`, for one stream."""
        account = self._accounts.get(owner)
        if account is None:
            account = self._accounts[owner] = _Account()
        return Share(self, owner, account)

    def admits(self, owner: str) -> bool:
        """Whether another stream of `owner` may begin.

        Each stream has a little memory in any case. So their number is what bounds an account in the
        end: it may be beyond its threshold by an eighth of everything.
        """
        account = self._accounts.get(owner)
        used = account.used if account is not None else 0
        return self.limit - self.used - used > -(self.limit >> 3)

    def left(self, owner: str) -> None:
        """One of the shares of `owner` is closed."""
        account = self._accounts[owner]
        account.shares -= 1
        if not account.shares:
            del self._accounts[owner]


class Share:
    """What one stream has of the budget: `used` bytes. It says itself when it is `starved`."""

    __slots__ = ("_account", "_budget", "_owner", "starved", "used")

    def __init__(self, budget: Budget, owner: str, account: _Account) -> None:
        account.shares += 1
        self.used = 0
        self.starved = False
        self._owner = owner
        self._account: _Account | None = account
        self._budget = budget

    @property
    def room(self) -> int:
        """Bytes that the stream may take; none if it is not positive."""
        budget, account = self._budget, self._account
        return budget.limit - budget.used - account.used - self.used if account is not None else 0

    def take(self, size: int) -> None:
        """Take `size` bytes, whether there is room or not; give them back if it is negative. Not once it is closed."""
        if self._account is not None:
            self.used += size
            self._account.used += size
            self._budget.used += size

    def starve(self, starved: bool) -> None:
        """The stream is held back for want of memory, or is not any more."""
        if starved != self.starved:
            self.starved = starved
            self._budget.starved += 1 if starved else -1

    def close(self) -> None:
        """The stream is over: give everything back."""
        if self._account is not None:
            self.starve(False)
            self.take(-self.used)
            self._budget.left(self._owner)
            self._account = None
