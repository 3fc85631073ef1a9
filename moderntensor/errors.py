"""Every exception that moderntensor raises on purpose.

All of them derive from `ModernTensorError`; those that mean "the bytes or values are wrong"
are `ValueError` as well, so that code which knows nothing of this package can still catch them.
"""

from __future__ import annotations


class ModernTensorError(Exception):
    """Base of every exception raised on purpose by this package."""


class EnginesMissingError(ModernTensorError, ImportError):
    """The compiled engines are not there; the message says how to build them."""


# --- bytes ---------------------------------------------------------------------------------


class EncodeError(ModernTensorError, ValueError):
    """A value cannot be put on the wire: wrong type, out of range, too long, or missing."""


class DecodeError(ModernTensorError, ValueError):
    """Bytes are not the one canonical encoding of what they are said to be."""


class FrameError(DecodeError):
    """A frame header is not acceptable; the byte stream cannot be read any further.

    `reason` is ``"empty"`` (length 0, no type byte), ``"unknown"`` (no such message type is
    admitted) or ``"too-large"`` (over the cap of its type). `frame_type` is None where the
    type byte was never reached; `length` and `cap` count payload bytes.
    """

    def __init__(
        self, reason: str, frame_type: int | None = None, length: int = 0, cap: int = 0
    ) -> None:
        self.reason = reason
        self.frame_type = frame_type
        self.length = length
        self.cap = cap
        super().__init__(reason, frame_type, length, cap)

    def __str__(self) -> str:
        if self.frame_type is None:
            return "frame of length 0 has no type byte"
        if self.reason == "unknown":
            return f"frame type 0x{self.frame_type:02x} is not admitted"
        return (
            f"frame of type 0x{self.frame_type:02x} announces {self.length} payload bytes, "
            f"over its cap of {self.cap}"
        )


# --- chain rules ---------------------------------------------------------------------------


class ConfigError(ModernTensorError, ValueError):
    """A setting, genesis file or key file cannot be used; the message names the field."""


class CryptoError(ModernTensorError, ValueError):
    """A key or signature is not a valid one of its kind."""


class ValidationError(ModernTensorError, ValueError):
    """Something breaks a rule of the chain."""


class HeaderChainError(ValidationError):
    """A header breaks a rule. `index` counts from 0 within the batch that was checked;
    `height` is the height that the header had to have; `rule` is its name
    (one of `moderntensor.blockchain.validation.HEADER_RULES`)."""

    def __init__(self, index: int, height: int, rule: str) -> None:
        self.index = index
        self.height = height
        self.rule = rule
        super().__init__(index, height, rule)

    def __str__(self) -> str:
        return f"header {self.index} of the batch (height {self.height}) breaks rule {self.rule!r}"


class InvalidTransactionError(ValidationError):
    """A transaction breaks a rule. `rule` names it; `hash` is None where it has none yet."""

    def __init__(self, rule: str, detail: str = "", tx_hash: bytes | None = None) -> None:
        self.rule = rule
        self.detail = detail
        self.hash = tx_hash
        super().__init__(rule, detail, tx_hash)

    def __str__(self) -> str:
        name = f" {self.hash.hex()[:16]}" if self.hash else ""
        return f"transaction{name} breaks rule {self.rule!r}" + (
            f": {self.detail}" if self.detail else ""
        )


class InvalidBlockError(ValidationError):
    """A block breaks a rule. `body_only` is true when only the body is wrong (it does not
    match its header), so that the header's hash must not be remembered as invalid."""

    def __init__(
        self,
        height: int,
        block_hash: bytes,
        rule: str,
        detail: str = "",
        *,
        body_only: bool = False,
    ) -> None:
        self.height = height
        self.hash = block_hash
        self.rule = rule
        self.detail = detail
        self.body_only = body_only
        super().__init__(height, block_hash, rule, detail)

    def __str__(self) -> str:
        return f"block {self.height} ({self.hash.hex()[:16]}) breaks rule {self.rule!r}" + (
            f": {self.detail}" if self.detail else ""
        )


class UnknownParentError(ValidationError):
    """A header or block does not attach to anything that this node knows."""


class FinalityError(ValidationError):
    """A chain forks off below what this node may still undo, or against a checkpoint."""


class StaleBodiesError(ModernTensorError):
    """The headers that wait for bodies are others by now than those that the bodies are for.
    Nothing is wrong with the bodies; ask the chain again which it wants."""


# --- storage -------------------------------------------------------------------------------


class StorageError(ModernTensorError):
    """The store cannot be opened, read or written; nothing was half-written."""


class StateMissingError(StorageError):
    """The accounts of the chain are not here: its genesis names their root alone, and none were
    loaded or fetched yet. Blocks cannot be executed."""


class StaleStateError(ModernTensorError):
    """The state that was fetched cannot be adopted: it is not whole, or the pending headers no
    longer lead to its block, or the chain is past it. Nothing is wrong with the state."""


# --- network -------------------------------------------------------------------------------


class NetworkError(ModernTensorError):
    """Base of what goes wrong between two nodes."""


class ConnectError(NetworkError):
    """A connection could not be made: refused, unreachable, timed out, or turned away, and then
    perhaps asked to stay away for `retry_after` seconds."""

    def __init__(self, message: str, *, retry_after: int = 0) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class HandshakeError(NetworkError):
    """The other side's HELLO is not acceptable. `code` is the DISCONNECT code, `offence` the name
    of what is wrong with its conduct, if something is."""

    def __init__(self, code: int, reason: str, offence: str | None = None) -> None:
        self.code = code
        self.reason = reason
        self.offence = offence
        super().__init__(code, reason)

    def __str__(self) -> str:
        return f"{self.reason} (code {int(self.code)})"


class SecureChannelError(NetworkError):
    """The encrypted transport could not be set up, or a record is not what the other side sent."""


class PeerDisconnectedError(NetworkError):
    """The peer went away before it answered."""


class RequestTimeoutError(NetworkError, TimeoutError):
    """The peer did not answer a request in time."""


class PeerBusyError(NetworkError):
    """The limits agreed with this peer admit no further request now."""


class CapabilityError(NetworkError):
    """The peer does not have the extension that a message belongs to; nothing was sent."""


class ProtocolViolationError(NetworkError):
    """The peer did something that the protocol does not allow.

    `code` is the DISCONNECT code, `offence` the name (`network.reputation.Offence`) that says what
    it costs; without one the code does.
    """

    def __init__(self, code: int, reason: str, offence: str | None = None) -> None:
        self.code = code
        self.reason = reason
        self.offence = offence
        super().__init__(code, reason)

    def __str__(self) -> str:
        return f"{self.reason} (code {int(self.code)})"


# --- sync ----------------------------------------------------------------------------------


class SyncError(ModernTensorError):
    """Sync cannot go on: no peers, no progress within the bound asked for, or a local fault."""


# --- talking to a node -------------------------------------------------------------------------


class ClientError(ModernTensorError):
    """A node was asked something over its HTTP API, in vain.

    `node` is its URL, `path` what was asked (``"GET /v1/status"``), `problem` what went wrong.
    """

    def __init__(self, node: str, path: str, problem: str) -> None:
        self.node = node
        self.path = path
        self.problem = problem
        super().__init__(node, path, problem)

    def __str__(self) -> str:
        return f"node {self.node}: {self.path}: {self.problem}"


class NodeUnreachableError(ClientError):
    """No answer: nobody listens there, the connection broke, or the time was over."""


class NodeRefusedError(ClientError):
    """The node answered that it will not. `status` is HTTP's, and the node asks to wait for
    `retry_after` seconds where that is not None."""

    def __init__(
        self, node: str, path: str, problem: str, status: int, retry_after: float | None = None
    ) -> None:
        super().__init__(node, path, problem)
        self.status = status
        self.retry_after = retry_after


class BadAnswerError(ClientError, ValueError):
    """The answer is not what the API says: too long, no JSON, or of another shape."""


class ProofError(ClientError, ValueError):
    """The node sent a proof that does not hold, or that is about something else than asked."""


# --- simulation ---------------------------------------------------------------------------------


class SimulationError(ModernTensorError):
    """A simulation cannot go on; nothing is said about the nodes in it."""


class DeadlockError(SimulationError):
    """Nothing is ready, no timer is set, and somebody still waits; the message names who."""


class LivelockError(SimulationError):
    """Callbacks follow each other without end and virtual time stands still."""
