"""The seals of the offered tunnels: which keys are valid now."""

from __future__ import annotations

from tunnel_core.errors import UsageError
from tunnel_core.protocol.seal.keys import Keyring
from tunnel_core.protocol.seal.tls import HostTls, require
from tunnel_core.service.logs import Logger
from tunnel_core.service.revoked import Revoked
from tunnel_core.service.signing import signing_secrets

from .settings import HostSettings


class Seals:
    """Follows the file of secrets and that of revoked ids. Raises SealUnavailable or UsageError at the start."""

    def __init__(self, settings: HostSettings, log: Logger) -> None:
        self._secret = settings.e2e_secret
        self._log = log
        self._secrets: tuple[bytes, ...] = ()
        self._error = ""
        self.revoked = Revoked(settings.revoked, log)
        self._rings: dict[str, Keyring] = {}
        self._tls: dict[str, HostTls] = {}
        names = [offer.tunnel for offer in settings.tunnel if settings.seals(offer.tunnel)]
        if names:
            require()
            self._secrets = signing_secrets(self._secret)
            self._rings = {name: Keyring(self._secrets, name) for name in names}
            self._tls = {name: HostTls(ring, self.revoked.__contains__) for name, ring in self._rings.items()}

    def of(self, tunnel: str) -> HostTls | None:
        """The TLS factory of `tunnel`; None if it is not sealed."""
        return self._tls.get(tunnel)

    def reread(self) -> bool:
        """Read the files if they have changed. Whether other ids are revoked now. With a mistake in a file, none is."""
        if not self._tls:
            return False
        try:
            secrets = signing_secrets(self._secret)
            if secrets != self._secrets:
                self._secrets = secrets
                for ring in self._rings.values():
                    ring.use(secrets)
                self._log.info("e2e secrets read", secrets=len(secrets))
            self._error = ""
        except UsageError as exc:
            if str(exc) != self._error:
                self._error = str(exc)
                self._log.error("e2e secrets unreadable", error=self._error)
        return self.revoked.reread()
