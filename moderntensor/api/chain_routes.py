"""Routes: headers, blocks, transactions and accounts of the executed chain. All of one answer is of
one commit."""

from __future__ import annotations

import msgspec

from ..blockchain.chain_queries import (
    BlockMissing,
    FoundBlock,
    account_at_head,
    find_block,
    headers_below,
    transaction_at,
    transactions_page,
)
from ..blockchain.proofs import prove_account
from ..client import model
from ..errors import StateMissingError
from ..node import FullNode
from ..storage import Store
from .context import Context
from .limits import BODIES_COUNTED, BODIES_OF_PAGE
from .parameters import ADDRESS, BEFORE_HEIGHT, BEFORE_TX, LIMIT, PROOF, REF, TX_HASH
from .problems import Refusal
from .routing import Call, route
from .views import fitting, header_view, transaction_view

__all__ = ["ROUTES"]

NO_STATE = "the accounts of the chain are not here yet: they are still to be fetched or loaded"


@route("GET", "/v1/headers", model.HeaderList, tag="chain", parameters=(BEFORE_HEIGHT, LIMIT))
async def headers(api: Context, call: Call) -> bytes:
    """Headers of the executed chain. The highest first: from the head down, or below a height."""
    return await api.reads.run(
        call.client, _encoded_headers, api.node.chain.store, call["before"], call["limit"]
    )


def _encoded_headers(store: Store, before: int | None, limit: int) -> bytes:
    found = headers_below(store, before, limit, BODIES_COUNTED)
    return msgspec.json.encode(
        model.HeaderList(headers=[header_view(header, count) for header, count in found])
    )


@route(
    "GET",
    "/v1/headers/{ref}",
    model.Header,
    tag="chain",
    parameters=(REF,),
    problems={404: "The executed chain has no such block."},
)
async def header(api: Context, call: Call) -> model.Header:
    """One header. By height, by hash, or that of the head."""
    found = await api.reads.run(
        call.client, find_block, api.node.chain.store, call["ref"], body=False
    )
    if isinstance(found, BlockMissing):
        raise _missing(api.node, found, call["ref"])
    return header_view(found.header)


@route(
    "GET",
    "/v1/blocks/{ref}",
    model.Block,
    tag="chain",
    parameters=(REF,),
    problems={404: "The executed chain has no such block, or its transactions are not here."},
)
async def block(api: Context, call: Call) -> bytes:
    """A block with its transactions. By height, by hash, or the head."""
    found = await api.reads.run(call.client, _encoded_block, api.node.chain.store, call["ref"])
    if isinstance(found, BlockMissing):
        raise _missing(api.node, found, call["ref"])
    return found


def _encoded_block(store: Store, ref: int | bytes | None) -> bytes | BlockMissing:
    """As JSON: thousands of transactions are no work for the loop's thread."""
    found = find_block(store, ref)
    if not isinstance(found, FoundBlock):
        return found
    height = found.header.height
    return msgspec.json.encode(
        model.Block(
            header=header_view(found.header, len(found.transactions)),
            size=found.size,
            transactions=[
                transaction_view(tx, height, i) for i, tx in enumerate(found.transactions)
            ],
        )
    )


def _missing(node: FullNode, missing: BlockMissing, ref: int | bytes | None) -> Refusal:
    name = ref.hex() if isinstance(ref, bytes) else "head" if ref is None else str(ref)
    if missing.executed is not None:
        return Refusal(
            404,
            f"block {name}: its transactions are not here, only its header: this node began with a"
            f" state that it fetched, and has blocks from {node.chain.earliest_height} on",
        )
    if missing.known:
        return Refusal(404, f"block {name}: known, but on another branch or not executed yet")
    head = node.chain.head.height
    return Refusal(404, f"block {name}: not on the executed chain, whose head is at {head}")


@route(
    "GET",
    "/v1/transactions/{hash}",
    model.Transaction,
    tag="chain",
    parameters=(TX_HASH,),
    problems={404: "Neither in a block that is here nor waiting for one."},
)
async def transaction(api: Context, call: Call) -> model.Transaction:
    """A transaction by its hash. In a block, or waiting for one."""
    tx_hash: bytes = call["hash"]
    waiting = api.node.mempool.get(tx_hash)  # first: it may get into a block meanwhile
    placed = await api.reads.run(call.client, transaction_at, api.node.chain.store, tx_hash)
    if placed is not None:
        return transaction_view(*placed)
    if waiting is not None:
        return transaction_view(waiting)
    earliest = api.node.chain.earliest_height
    before = f"; transactions of blocks before {earliest} are not here" if earliest else ""
    raise Refusal(404, f"transaction {tx_hash.hex()}: neither in a block nor waiting{before}")


@route(
    "GET",
    "/v1/accounts/{address}",
    model.Account,
    tag="chain",
    parameters=(ADDRESS, PROOF),
    problems={409: "The accounts of the chain are not here yet."},
)
async def account(api: Context, call: Call) -> model.Account:
    """An account after the head's block. Zeros where there is none; with `proof=true` a Merkle
    proof of either, in the state of that same block."""
    node, address = api.node, call["address"]
    return await api.reads.run(call.client, _account, node, address, proved=call["proof"])


def _account(node: FullNode, address: bytes, *, proved: bool) -> model.Account:
    store, proof = node.chain.store, None
    if not node.chain.has_state:
        raise Refusal(409, NO_STATE)
    if proved:
        try:
            shown = prove_account(store, address)
        except StateMissingError as error:
            raise Refusal(409, NO_STATE) from error
        height, block_hash, proof = shown.height, shown.block_hash, shown.to_json()
        nonce = 0 if shown.account is None else shown.account.nonce
        balance = 0 if shown.account is None else shown.account.balance
    else:
        found, head = account_at_head(store, address)
        height, block_hash, nonce, balance = head.height, head.hash, found.nonce, found.balance
    return model.Account(
        address=f"0x{address.hex()}",
        balance=str(balance),
        nonce=nonce,
        next_nonce=max(nonce, node.mempool.next_nonce(address)),
        height=height,
        block_hash=block_hash.hex(),
        proof=proof,
    )


@route(
    "GET",
    "/v1/accounts/{address}/transactions",
    model.TransactionList,
    tag="chain",
    parameters=(ADDRESS, LIMIT, BEFORE_TX),
    problems={404: "`before` is no transaction of the chain (any more)."},
)
async def account_transactions(api: Context, call: Call) -> bytes:
    """What an account sent and received. The newest first, a page at a time; a page may be shorter
    than `limit` and not the last one. Of blocks whose transactions are here."""
    found = await api.reads.run(
        call.client,
        _encoded_page,
        api.node.chain.store,
        call["address"],
        call["limit"],
        call["before"],
    )
    if found is None:
        raise Refusal(404, f"before: {call['before'].hex()} is no transaction of the chain")
    return found


def _encoded_page(store: Store, address: bytes, limit: int, before: bytes | None) -> bytes | None:
    found = transactions_page(store, address, limit, before, BODIES_OF_PAGE)
    if found is None:
        return None
    placed, more = found
    page = fitting(transaction_view(*each) for each in placed)
    return msgspec.json.encode(
        model.TransactionList(
            transactions=page,
            next=page[-1].hash if page and (more or len(page) < len(placed)) else None,
        )
    )


ROUTES = (headers, header, block, transaction, account, account_transactions)
