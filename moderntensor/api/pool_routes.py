"""Routes: transactions that wait, and new ones."""

from __future__ import annotations

import msgspec

from ..blockchain.transaction import Transaction
from ..client import model
from ..errors import DecodeError, InvalidTransactionError
from ..node import FullNode
from .context import Context
from .node_routes import mempool_size
from .parameters import LIMIT
from .problems import Refusal, shown
from .routing import Call, route
from .views import fitting, transaction_view

__all__ = ["ROUTES"]


@route("GET", "/v1/mempool", model.Mempool, tag="mempool", parameters=(LIMIT,))
async def mempool(api: Context, call: Call) -> bytes:
    """What waits for a block. The latest first, up to `limit` and 4 MiB of them; `size` counts
    all."""
    return await api.reads.run(call.client, _encoded_pool, api.node, call["limit"])


def _encoded_pool(node: FullNode, limit: int) -> bytes:
    return msgspec.json.encode(
        model.Mempool(
            size=mempool_size(node),
            transactions=fitting(map(transaction_view, node.mempool.latest(limit))),
        )
    )


@route(
    "POST",
    "/v1/transactions",
    model.Submitted,
    tag="mempool",
    status=201,
    body=model.SubmitTransaction,
    problems={
        409: "The accounts of the chain are not here yet.",
        422: "The transaction breaks a rule; the detail names it.",
    },
)
async def submit(api: Context, call: Call) -> model.Submitted:
    """Submit a signed transaction. It waits for a block from then on, and peers are told. One that
    waits already is passed on again."""
    tx = _decoded(call.body.raw)
    if not await api.reads.run(call.client, lambda: api.node.chain.has_state):
        raise Refusal(409, "the accounts of the chain are not here yet")
    try:
        sent = await api.node.p2p.broadcast_transaction(tx)
    except InvalidTransactionError as error:
        raise Refusal(422, str(error)) from error
    return model.Submitted(hash=tx.hash.hex(), sent_to=sent)


def _decoded(text: str) -> Transaction:
    digits = text[2:] if text[:2] in ("0x", "0X") else text
    try:
        return Transaction.decode(bytes.fromhex(digits))  # that it is hex, the model has checked
    except DecodeError as error:
        raise Refusal(400, f"raw: no transaction: {shown(str(error))}") from error


ROUTES = (mempool, submit)
