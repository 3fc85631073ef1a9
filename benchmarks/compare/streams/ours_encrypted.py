"""Our `Connection` as nodes use it: Noise, then AES-256-GCM records."""

from __future__ import annotations

from moderntensor.backend import framing
from moderntensor.network.channel import new_read_buffer
from moderntensor.network.connection import Connection
from moderntensor.network.identity import NodeIdentity
from moderntensor.network.secure import SecureChannel, Workspace
from moderntensor.runtime import Runtime

from . import ours
from .work import Tally


def _connection(tally: Tally | None, *, dialling: bool) -> Connection:
    runtime = Runtime()

    def channel(decoder: framing.FrameDecoder) -> SecureChannel:
        return SecureChannel(
            decoder,
            NodeIdentity.generate(runtime),
            initiator=dialling,
            entropy=runtime.entropy,
            shared=new_read_buffer(),
            workspace=Workspace(),
        )

    return ours.connection(tally, channel)


class Sender(ours.Sender):
    def connection(self) -> Connection:
        return _connection(None, dialling=False)


class Receiver(ours.Receiver):
    def connection(self, tally: Tally) -> Connection:
        return _connection(tally, dialling=True)
