"""Fuzzes what reads control messages and tokens: any bytes.

    python -m fuzz.messages CORPUS [libFuzzer options]

Nothing but ProtocolViolation and AccessDenied may come of it; what was understood must read
the same again after it was written; and what may not travel one way must not get through.

msgspec is C, whose branches count for nothing here: -keep_seed=1 keeps good messages to start from.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["tunnel_core.protocol", "jwt"]):
    from tunnel_core.errors import AccessDenied, ProtocolViolation
    from tunnel_core.protocol import control, tokens
    from tunnel_core.protocol.endpoints import parse_leg_path

SECRET = b"a secret that no input of the fuzzer knows"
DECODERS = (control.from_client, control.from_host, control.to_client, control.to_host, control.to_doctor)


def one_input(data: bytes) -> None:
    """The first byte chooses what reads the rest."""
    if not data:
        return
    choice, rest = data[0] % (len(DECODERS) + 2), data[1 : control.MAX_MESSAGE + 1]
    if choice < len(DECODERS):
        try:
            message = DECODERS[choice](rest)  # type: ignore[operator]
        except ProtocolViolation:
            return
        again = DECODERS[choice](control.encode(message))  # type: ignore[operator]
        assert again == message
    elif choice == len(DECODERS):
        try:
            tokens.verify(rest.decode("latin-1"), [SECRET], 0.0)
        except AccessDenied:
            return
        raise AssertionError("a token was forged")
    else:
        parse_leg_path(rest.decode("latin-1"))


def main() -> None:
    """Run until the options of libFuzzer say stop."""
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
