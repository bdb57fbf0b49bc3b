"""Control messages: what is understood, passed on as unknown, or refused."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunnel_core.errors import ProtocolViolation
from tunnel_core.protocol import control
from tunnel_core.protocol.control import Decoder, Unknown
from tunnel_core.protocol.frames import CloseCode

DECODERS = [control.from_client, control.from_host, control.to_client, control.to_host, control.to_doctor]
KNOWN = sorted(control._KNOWN)


@pytest.mark.parametrize("decode", DECODERS)
@given(kind=st.text(min_size=1, max_size=40).filter(lambda text: text not in KNOWN), field=st.integers())
def test_an_unknown_type_is_unknown_whatever_its_fields(decode: Decoder[object], kind: str, field: int) -> None:
    """It is told apart from a violation in every direction."""
    payload = msgspec.json.encode({"type": kind, "stream": field, "received": {"nested": [field]}})
    assert decode(payload) == Unknown(kind)


@pytest.mark.parametrize(
    "payload",
    [b"", b"{}", b"[]", b"null", b"not JSON", b'{"type": 7}', b'{"type": ""}', b'{"type": "' + b"x" * 41 + b'"}',
     b'{"stream": "x"}', b'{"type": "new"', b'{"type": "new"} \xff', b"[" * 4000],
)  # fmt: skip
@pytest.mark.parametrize("decode", DECODERS[:4])  # where several types may come
def test_an_invalid_message_is_a_violation(decode: Decoder[object], payload: bytes) -> None:
    """No JSON, no object, or no type that could be one."""
    with pytest.raises(ProtocolViolation) as caught:
        decode(payload)
    assert caught.value.code == CloseCode.POLICY_VIOLATION


@pytest.mark.parametrize(
    ("decode", "allowed"),
    [
        (control.from_client, {"open", "resume", "ack", "fin", "reset"}),
        (control.from_host, {"accepted", "refused", "ack", "fin", "reset", "resumed", "gone"}),
        (control.to_doctor, {"probed"}),
    ],
)
def test_a_known_message_going_the_wrong_way_is_a_violation(decode: Decoder[object], allowed: set[str]) -> None:
    """It is never taken for unknown, whatever its fields."""
    for kind in set(KNOWN) - allowed:
        with pytest.raises(ProtocolViolation):
            decode(msgspec.json.encode({"type": kind, "more": 1}))
