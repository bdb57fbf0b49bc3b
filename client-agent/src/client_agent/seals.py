"""The keys of sealed tunnels that a client-agent has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tunnel_core.errors import UsageError
from tunnel_core.protocol.seal import keys
from tunnel_core.protocol.seal.keys import Key
from tunnel_core.protocol.seal.tls import ClientTls, require
from tunnel_core.service.signing import signing_secrets

from .settings import ClientSettings

OWNER: Final = "owner"  # in place of a token's id, where there is no token


class Seals:
    """What makes the seals of each tunnel that there is a key for; `token` is the id of the agent's token.

    Raises SealUnavailable or UsageError.
    """

    def __init__(self, settings: ClientSettings, token: str | None) -> None:
        self._secret = signing_secrets(settings.e2e_secret)[0] if settings.e2e_secret else None
        self._token = token or OWNER
        self._keys: dict[str, Key] = {}
        if settings.e2e_key and self._secret is None:
            if token is None:
                raise UsageError("a key of a sealed tunnel is for one token: write --token-file FILE, too")
            self._keys = _parse(settings.e2e_key.read(), settings.tunnels, token)
        if self._keys or self._secret is not None:
            require()

    def key(self, tunnel: str) -> Key | None:
        """The key of `tunnel`, if there is one."""
        return self._keys.get(tunnel) if self._secret is None else keys.derive(self._secret, tunnel, self._token)

    def of(self, tunnel: str) -> ClientTls | None:
        """What makes the seals of `tunnel`; None if it has none."""
        key = self.key(tunnel)
        return None if key is None else ClientTls(key)


def _parse(text: str, tunnels: Sequence[str], token: str) -> dict[str, Key]:
    """Keys as `host-agent e2e-key` prints them, or one alone where there is one tunnel."""
    found: dict[str, Key] = {}
    for word in text.split():
        tunnel, equals, encoded = word.rstrip("=").rpartition("=")
        if not equals and len(tunnels) != 1:
            raise UsageError("which tunnel is the key for? write TUNNEL=KEY, as 'host-agent e2e-key' prints it")
        found[tunnel or tunnels[0]] = keys.parse(encoded, token)
    if tunnels and not found.keys() & set(tunnels):
        raise UsageError(f"--e2e-key: the keys are for {', '.join(found)}, and not for {', '.join(tunnels)}")
    return found
