"""Message types of applications: declared like ours, known to one node, shared by capability.

    @extension_message(0x80, cap=1024)
    class Say(Message):
        room: str8
        text: str16

    node = P2PNode(extensions=[Extension("chat/1", [Say])])

An extension says its name in HELLO; its messages are admitted from, and sent to, those peers alone
that say the same one.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar, cast, dataclass_transform

from ..errors import ConfigError, EncodeError
from ..wire import cached, record, u16
from .messages import CAPS, MessageCodec, RequestId, StatusCode
from .protocol import FIRST_EXTENSION_TYPE, ExtensionType, Message, Reply, Request, Status
from .rates import Rate

__all__ = [
    "DEFAULT_RATE",
    "HANDLER_TIMEOUT",
    "MAX_EXTENSIONS",
    "MAX_EXTENSION_CAP",
    "NO_EXTENSIONS",
    "Extension",
    "ExtensionSet",
    "Message",
    "Rate",
    "Reply",
    "Request",
    "RequestId",
    "Status",
    "StatusCode",
    "extension_message",
]

R = TypeVar("R", bound=type)

MAX_EXTENSION_CAP: Final = max(CAPS.values())
"""Payload bytes of a message of an extension: as many as the largest of ours."""
MAX_EXTENSIONS: Final = 16
"""Of one node: with names of 32 characters they take a quarter of what HELLO may have."""
DEFAULT_RATE: Final = Rate(100, 400, 256 * 1024, MAX_EXTENSION_CAP)
"""Of a type that names no other."""
HANDLER_TIMEOUT: Final = 30.0
"""Seconds: whoever asked has given up by then (`NodeConfig.request_timeout`)."""

_NAME: Final = re.compile(r"[a-z][a-z0-9._-]{0,26}/[1-9][0-9]{0,3}", re.ASCII)
# Of the node's own capabilities, whatever their version.
_OURS: Final = frozenset({"sync", "relay", "state", "archive"})
_REPLY_FIELDS: Final = ("request_id", "status", "retry_ms")


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(cached,))
def extension_message(
    type: int, *, cap: int, reply: type[Reply] | None = None, rate: Rate | None = None
) -> Callable[[R], R]:
    """Declare a message of an extension: fields in wire order, as in `moderntensor.wire`.

    `type` is its type byte, 0x80 to 0xFF, `cap` the most payload bytes (at most
    `MAX_EXTENSION_CAP`). Its base says what it is:

    - `Message`: a notice;
    - `Request`: its first field is `request_id: RequestId = 0`, and `reply` is the class that
      answers it;
    - `Reply`: its first fields are `request_id: RequestId`, `status: StatusCode = Status.OK` and
      `retry_ms: u16 = 0`; the others have defaults, which they keep unless the status is OK or
      PARTIAL.

    `rate` is what a peer may send of it, per second and at once (default: `DEFAULT_RATE`); replies
    have none, since they are asked for. Raises `ConfigError`.
    """

    def declare(target: R) -> R:
        built: Any = record(target)
        built.TYPE = ExtensionType(type, built.__name__)
        built.CAP, built.REPLY, built.ANSWER = cap, getattr(reply, "TYPE", None), reply
        built.RATE = None if issubclass(built, Reply) else rate or DEFAULT_RATE
        fault = _fault(built, type, rate)
        if fault is not None:
            raise ConfigError(f"{built.__name__}: {fault}")
        if issubclass(built, Reply):
            _set_up_reply(built)
        return cast(R, built)

    return declare


def _fault(cls: Any, number: int, rate: Rate | None) -> str | None:
    """What is wrong with a declaration."""
    least = cls.LAYOUT.min_size
    if not FIRST_EXTENSION_TYPE <= number <= 0xFF:
        return f"type 0x{number:02x}, needs 0x{FIRST_EXTENSION_TYPE:02x} to 0xff"
    if not least <= cls.CAP <= MAX_EXTENSION_CAP:
        return f"cap {cls.CAP}, needs {least} to {MAX_EXTENSION_CAP}"
    if rate is not None and not (min(rate) > 0 and rate.burst >= 1):
        return "a rate of nothing"
    for base, judge in _JUDGES.items():
        if issubclass(cls, base):
            return judge(cls, rate)
    return "its base is none of Message, Request, Reply"


def _fault_of_reply(cls: Any, rate: Rate | None) -> str | None:
    if cls.ANSWER is not None or rate is not None:
        return "a reply has neither a reply nor a rate"
    like = _AnyReply.__fields__
    return None if cls.__fields__[: len(like)] == like else f"does not begin with {_REPLY_FIELDS}"


def _fault_of_request(cls: Any, rate: Rate | None) -> str | None:
    if not (isinstance(cls.ANSWER, type) and issubclass(cls.ANSWER, Reply)):
        return "a request needs reply=, a class of replies"
    begins = cls.__fields__[:1] == _AnyReply.__fields__[:1]
    return None if begins else "does not begin with request_id: RequestId"


def _fault_of_notice(cls: Any, rate: Rate | None) -> str | None:
    return None if cls.ANSWER is None else "a notice has no reply"


# The most particular base first.
_JUDGES: Final[dict[type[Message], Callable[[Any, Rate | None], str | None]]] = {
    Reply: _fault_of_reply,
    Request: _fault_of_request,
    Message: _fault_of_notice,
}


@record
class _AnyReply(Reply):
    """How all replies begin."""

    request_id: RequestId
    status: StatusCode = Status.OK
    retry_ms: u16 = 0


def _set_up_reply(cls: Any) -> None:
    """Refusals can be made, and hold nothing."""
    parameters = inspect.signature(cls.__init__).parameters
    own = cls.LAYOUT.names[len(_REPLY_FIELDS) :]
    empty = {name: parameters[name].default for name in own}
    for name, value in empty.items():
        if value is inspect.Parameter.empty:
            raise ConfigError(f"{cls.__name__}.{name}: needs a default, for replies that refuse")
    further = None if cls.fault is Reply.fault else cls.fault

    def fault(self: Any) -> str | None:
        if self.status not in (Status.OK, Status.PARTIAL):
            for name, value in empty.items():
                if getattr(self, name) != value:
                    return f"{Status(self.status).name} with {name}"
        return None if further is None else further(self)

    cls.fault = fault
    try:
        MessageCodec.encode(cls(request_id=1, status=Status.BUSY))
    except EncodeError as error:
        raise ConfigError(f"cannot refuse: {error}") from error


class Extension:
    """Messages that belong together, under a name with a version: ``"chat/1"``.

    It says nothing of handlers, so that any number of nodes can have the same one.
    """

    def __init__(
        self,
        name: str,
        messages: Iterable[type[Message]],
        *,
        handler_timeout: float = HANDLER_TIMEOUT,
    ) -> None:
        """`name` is lower-case letters, digits, ``.``, ``_`` and ``-``, at most 27 of them and a
        letter first, then ``/`` and a version from 1 to 9999. Messages that differ in any byte need
        another version. A handler that takes longer than `handler_timeout` seconds is cancelled.

        Raises `ConfigError` for a name that is none or the node's own, a message that was not
        declared by `extension_message`, two of one type or name, or a request without its reply.
        """
        self.name = name
        self.messages = tuple(messages)
        self.handler_timeout = handler_timeout
        if not _NAME.fullmatch(name):
            raise ConfigError(f"extension {name!r}: not a name and a version, like 'chat/1'")
        if name.partition("/")[0] in _OURS:
            raise ConfigError(f"extension {name!r}: the node has a capability of this name")
        if not self.messages:
            raise ConfigError(f"extension {name!r} has no messages")
        if not handler_timeout > 0:
            raise ConfigError(f"extension {name!r}: handler_timeout {handler_timeout}, needs more")
        for cls in self.messages:
            if not isinstance(getattr(cls, "TYPE", None), ExtensionType):
                raise ConfigError(f"extension {name!r}: {cls.__name__} is no message of extensions")
            answer = cls.ANSWER if issubclass(cls, Request) else None
            if answer is not None and answer not in self.messages:
                raise ConfigError(f"extension {name!r}: {answer.__name__} is missing")
        _by_type((self,))
        names = [cls.__name__ for cls in self.messages]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ConfigError(f"extension {name!r}: two messages are called {twice}")

    def __repr__(self) -> str:
        return f"<Extension {self.name}>"


def _by_type(extensions: Iterable[Extension]) -> dict[int, tuple[Extension, type[Message]]]:
    found: dict[int, tuple[Extension, type[Message]]] = {}
    for extension in extensions:
        for cls in extension.messages:
            if cls.TYPE in found:
                other, theirs = found[cls.TYPE]
                raise ConfigError(
                    f"type 0x{cls.TYPE:02x} is {theirs.__name__} of {other.name!r}, and also "
                    f"{cls.__name__} of {extension.name!r}"
                )
            found[int(cls.TYPE)] = extension, cls
    return found


class ExtensionSet:
    """The extensions of one node; it never changes."""

    def __init__(self, extensions: Iterable[Extension] = ()) -> None:
        """Raises `ConfigError` for two of one name, two that claim a type, or too many."""
        self.by_name: dict[str, Extension] = {}
        for extension in extensions:
            if extension.name in self.by_name:
                raise ConfigError(f"extension {extension.name!r} is there twice")
            self.by_name[extension.name] = extension
        if len(self.by_name) > MAX_EXTENSIONS:
            raise ConfigError(f"{len(self.by_name)} extensions, at most {MAX_EXTENSIONS}")
        claimed = _by_type(self.by_name.values())
        self.messages: dict[int, type[Message]] = {kind: cls for kind, (_, cls) in claimed.items()}
        self.owners: dict[type[Message], Extension] = {cls: ext for ext, cls in claimed.values()}
        self.caps: dict[int, int] = {kind: cls.CAP for kind, cls in self.messages.items()}
        self.all_caps: dict[int, int] = {**CAPS, **self.caps}
        # As counters call them: two extensions may each have a message of one name.
        self.type_names: dict[int, str] = {
            kind: f"{extension.name} {cls.__name__}" for kind, (extension, cls) in claimed.items()
        }
        self.rates: dict[int, Rate] = {
            kind: rate
            for kind, cls in self.messages.items()
            if (rate := getattr(cls, "RATE", None)) is not None
        }
        # No type is held back by what comes of others.
        self.total = Rate(*map(sum, zip((0.0,) * 4, *self.rates.values(), strict=True)))

    @property
    def names(self) -> tuple[str, ...]:
        """What HELLO says of them."""
        return tuple(self.by_name)

    def shared(self, capabilities: frozenset[str]) -> tuple[Extension, ...]:
        """Those that a peer of these capabilities has as well."""
        return tuple(one for name, one in self.by_name.items() if name in capabilities)


NO_EXTENSIONS: Final = ExtensionSet()
