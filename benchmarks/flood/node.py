"""The node under attack: `python -m benchmarks.flood.node SETUP`."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from adversity.control import obey

from moderntensor.blockchain.chain import Blockchain
from moderntensor.blockchain.genesis import ChainConfig
from moderntensor.blockchain.workload import build_chain, demo_config, demo_keys
from moderntensor.config import NodeConfig
from moderntensor.node import FullNode

ACCOUNTS, VALIDATORS = demo_keys(16), demo_keys(3, "validator")
RUN = 50  # blocks of a kind, empty or with two transfers, before the other kind follows


def config() -> ChainConfig:
    return demo_config(ACCOUNTS, VALIDATORS)


def grow(chain: Blockchain, blocks: int) -> None:
    """Runs of empty blocks and of blocks with two transfers, in turn."""
    for i in range(blocks // RUN):
        for _ in build_chain(
            chain,
            validators=VALIDATORS,
            accounts=ACCOUNTS,
            blocks=RUN,
            transfers_per_block=2 * (i % 2),
        ):
            pass


async def run(setup: dict[str, Any]) -> None:
    settings = NodeConfig(
        listen_host="127.0.0.1",
        listen_port=0,
        discovery=False,
        exempt_local=False,  # the addresses of this machine stand for so many strangers
        byte_budget=setup["byte_budget"],
    )
    node = FullNode(setup["data"], config(), settings=settings)
    async with node:
        await node.runtime.run_writer(grow, node.chain, setup["blocks"])

        def state() -> dict[str, Any]:
            return {
                "peers": len(node.p2p.peers),
                "open": len(node.p2p.gate),
                "offences": dict(node.p2p.reputation.counts.offences),
                "drops": dict(node.p2p.reputation.counts.drops),
                "bans": sum(node.p2p.reputation.counts.bans.values()),
            }

        await obey(
            {"state": state},
            {
                "port": node.p2p.listen_port,
                "node_id": node.p2p.node_id.hex(),
                "genesis": node.chain.genesis_hash.hex(),
            },
        )


if __name__ == "__main__":
    asyncio.run(run(json.loads(sys.argv[1])))
