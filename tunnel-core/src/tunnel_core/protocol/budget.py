"""An agent's buffer memory, and how much of it each stream may use.

Theory of operation. A stream needs memory for what it sent and may have to resend, and for what it
allowed the other end to send, which may have to wait for a slow local reader. Both come from one
budget. Each stream belongs to an account: whose token it came with, at a host; which tunnel
it leads to, at a client; which address it came from, at a gateway.

Fixed shares would either be tiny or promise the same bytes to many. So thresholds are dynamic, as in
switches whose ports share one memory (Choudhury and Hahne, "Dynamic queue length thresholds", 1998):
an account may use as much as is still free, and a stream as much of that as its account leaves. One
account alone can fill half of the budget, two a third each, and n leave 1/(n+1) free: a newcomer finds
as much as each of the others has. Memory in use is never revoked: a stream above its threshold is held
back until the threshold rises again.
"""

from __future__ import annotations


class _Account:
    __slots__ = ("shares", "used")

    def __init__(self) -> None:
        self.used = 0
        self.shares = 0


class Budget:
    """`limit` bytes, of which `used` are taken. `starved` counts the streams held back for lack of memory."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self.starved = 0
        self._accounts: dict[str, _Account] = {}

    def share(self, owner: str) -> Share:
        """A new share of the account of `owner`, for one stream."""
        account = self._accounts.get(owner)
        if account is None:
            account = self._accounts[owner] = _Account()
        return Share(self, owner, account)

    def admits(self, owner: str) -> bool:
        """Whether another stream of `owner` may begin.

        Every stream gets a little memory in any case, so an account can exceed its threshold by opening
        many. It may do so by an eighth of the whole budget.
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
    """One stream's part of the budget: `used` bytes. The stream itself reports when it is `starved`."""

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
        """Bytes that the stream may still take; zero or negative if none."""
        budget, account = self._budget, self._account
        return budget.limit - budget.used - account.used - self.used if account is not None else 0

    def take(self, size: int) -> None:
        """Take `size` bytes, even beyond `room`; a negative size returns them. Does nothing once closed."""
        if self._account is not None:
            self.used += size
            self._account.used += size
            self._budget.used += size

    def starve(self, starved: bool) -> None:
        """The stream is, or is no longer, held back for lack of memory."""
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
