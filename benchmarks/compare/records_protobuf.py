"""Messages and transactions as protobuf messages: the fields of ours, in their order.

The classes are made from a descriptor when this is imported, which is what the code that `protoc`
generates does as well; so no generated code needs to be kept. A value is sixteen bytes, since
protobuf has no integers of 128 bits.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELD: Final = descriptor_pb2.FieldDescriptorProto
_TYPES: Final = {
    "uint32": _FIELD.TYPE_UINT32,
    "uint64": _FIELD.TYPE_UINT64,
    "fixed64": _FIELD.TYPE_FIXED64,  # for numbers of which most use all their bits
    "bytes": _FIELD.TYPE_BYTES,
    "string": _FIELD.TYPE_STRING,
}

_MESSAGES: Final = {
    "Hello": """
        uint32 protocol_version, uint64 network_id, bytes genesis_hash, uint64 best_height,
        bytes best_hash, uint32 listen_port, bytes node_id, repeated string capabilities,
        string user_agent, uint64 earliest_height, uint32 max_inflight, uint32 max_per_type,
        bytes observed_ip, uint32 observed_port, fixed64 nonce""",
    "GetHeaders": """
        uint32 request_id, uint64 start_height, uint32 max_headers, uint32 stride,
        bytes on_chain, repeated bytes locator""",
    "Headers": "uint32 request_id, uint32 status, uint32 retry_ms, bytes headers",
    "NewTransaction": "repeated bytes transactions, repeated bytes announced",
    "Transaction": """
        uint64 chain_id, uint64 nonce, bytes to, bytes value, uint64 gas_price,
        uint64 gas_limit, bytes data, uint32 v, bytes r, bytes s""",
}


def _classes() -> dict[str, type[Any]]:
    file = descriptor_pb2.FileDescriptorProto(name="records.proto", package="records")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, declared in enumerate(fields.split(","), 1):
            *repeated, kind, field = declared.split()
            label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
            message.field.add(name=field, number=number, type=_TYPES[kind], label=label)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"records.{name}"))
        for name in _MESSAGES
    }


CLASSES: Final = _classes()


def protobuf_record(record: Any, name: str) -> Any:
    """One of our records as the message of that name; what is None stays unset."""
    made = CLASSES[name]()
    for field in made.DESCRIPTOR.fields:
        value = getattr(record, field.name)
        if name == "Transaction" and field.name == "value":
            value = value.to_bytes(16, "big")
        if isinstance(value, tuple):
            getattr(made, field.name).extend(value)
        elif value is not None:
            setattr(made, field.name, value)
    return made


def held(made: Any) -> dict[str, Any]:
    """What a message holds, by name, as our record would hold it."""
    values: dict[str, Any] = {}
    for field in made.DESCRIPTOR.fields:
        value = getattr(made, field.name)
        if isinstance(value, int | bytes | str):
            values[field.name] = value if made.HasField(field.name) else None
        else:
            values[field.name] = tuple(value)
    if made.DESCRIPTOR.name == "Transaction":
        values["value"] = int.from_bytes(values["value"], "big")
    return values
