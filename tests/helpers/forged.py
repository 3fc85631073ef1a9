"""Chains that obey every rule but that nobody has signed."""

from __future__ import annotations

from moderntensor.blockchain.block import EMPTY_BODY, BlockHeader
from moderntensor.blockchain.chain import Blockchain
from moderntensor.blockchain.chain_types import ChainHead
from moderntensor.blockchain.genesis import ChainConfig
from moderntensor.blockchain.prepared import prepare_body


def forged_header(parent: BlockHeader, config: ChainConfig) -> BlockHeader:
    """The next header, two slots later, under a signature of nobody."""
    timestamp = parent.timestamp + 2 * config.block_time
    key = config.validator_at(config.slot_of(timestamp))
    assert key is not None
    return BlockHeader(
        height=parent.height + 1,
        timestamp=timestamp,
        previous_hash=parent.hash,
        state_root=parent.state_root,
        validator=key,
        gas_limit=config.gas_limit,
        signature=bytes(64),
    )


def forge(chain: Blockchain, blocks: int) -> Blockchain:
    """Extend a chain, which asks for no signatures of one's own, by empty forged blocks."""
    header = chain.get_header(chain.head.height)
    assert header is not None
    with chain.extending(blocks) as writer:
        for _ in range(blocks):
            header = forged_header(header, chain.config)
            head = ChainHead(header.height, header.hash, header.timestamp, header.state_root)
            writer.record(head, header.encode(), prepare_body(EMPTY_BODY))
    return chain
