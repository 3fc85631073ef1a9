"""A transaction enters at one node, travels to a validator, and comes back in a block.

Three nodes stand in a line: alice - bob - carol. Only carol makes blocks, and alice does not know
her, so whatever happens here went through bob. Run it: ``python examples/broadcast_transaction.py``
"""

from __future__ import annotations

import asyncio
import time

from moderntensor import ChainConfig, FullNode, KeyPair, NodeConfig, Peer, Transaction
from moderntensor.blockchain.chain import HeadChanged
from moderntensor.network.messages import MessageType, NewTransactionMessage

# Without discovery nobody dials anyone but those whom we connect, so the line stays a line.
LOCAL = NodeConfig(listen_host="127.0.0.1", listen_port=0, discovery=False)


async def main() -> None:
    """All three nodes keep their chains in memory (data directory None)."""
    payer, payee, validator = (KeyPair.generate() for _ in range(3))
    config = ChainConfig(
        chain_id=7,
        timestamp=int(time.time()) - 10,
        block_time=1,
        validators=(validator.public_key,),
        alloc={payer.address: 1_000_000},
    )
    alice = FullNode(None, config, settings=LOCAL)
    bob = FullNode(None, config, settings=LOCAL)
    carol = FullNode(None, config, settings=LOCAL, producer_key=validator)
    async with alice, bob, carol:
        await alice.p2p.connect_peer("127.0.0.1", bob.p2p.listen_port)
        await bob.p2p.connect_peer("127.0.0.1", carol.p2p.listen_port)
        print("three nodes in a line: alice - bob - carol, who makes the blocks")
        await pay(alice, carol, payer, payee)


async def pay(alice: FullNode, carol: FullNode, payer: KeyPair, payee: KeyPair) -> None:
    """Send value through the network and wait until the first node knows that it moved."""
    transaction = Transaction.create(
        payer,
        chain_id=alice.chain.config.chain_id,
        nonce=alice.chain.get_account(payer.address).nonce,  # how many it sent before
        to=payee.address,
        value=500,
        gas_price=2,
    )

    # A handler sees messages of its type besides the node, which does its own work with them.
    async def heard(peer: Peer, message: NewTransactionMessage) -> None:
        print(f"carol hears of {len(message.transactions) or len(message.announced)} transaction")

    carol.p2p.register_handler(MessageType.NEW_TRANSACTION, heard)

    # Chains tell of a new head on the thread that writes, so the way back to the loop is
    # call_soon_threadsafe. By then the block is on disk and can be read.
    loop, included = asyncio.get_running_loop(), asyncio.Event()

    def head_changed(event: HeadChanged) -> None:
        if alice.chain.get_receipt(transaction.hash) is not None:
            loop.call_soon_threadsafe(included.set)

    unsubscribe = alice.chain.subscribe(head_changed)

    # Checked here first: a bad signature, nonce or balance is an InvalidTransactionError.
    told = await alice.p2p.broadcast_transaction(transaction)
    print(f"alice took transaction {transaction.hash.hex()[:16]}... and told {told} peer")
    await asyncio.wait_for(included.wait(), 30)
    unsubscribe()

    found = alice.chain.get_transaction(transaction.hash)
    receipt = alice.chain.get_receipt(transaction.hash)
    assert found and receipt
    _, height, position = found
    print(f"alice finds it in block {height}, position {position}")
    print(f"  receipt: status {receipt.status}, gas used {receipt.gas_used:,}")
    for name, key in (("payer", payer), ("payee", payee)):
        account = alice.chain.get_account(key.address)
        print(f"  {name} 0x{key.address.hex()}: balance {account.balance:,}, nonce {account.nonce}")
    assert alice.chain.get_account(payee.address).balance == transaction.value


if __name__ == "__main__":
    asyncio.run(main())
