"""Every check of a simulation fails when what it watches for happens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.forks import ACCOUNTS, STRANGER, VALIDATORS, ChainMaker, SetClock

from moderntensor.blockchain import tables
from moderntensor.blockchain.block import Block
from moderntensor.blockchain.chain import Blockchain
from moderntensor.blockchain.chain_types import ChainHead, HeadChanged
from moderntensor.blockchain.crypto import KeyPair
from moderntensor.blockchain.evidence import Evidence
from moderntensor.blockchain.mempool import Mempool
from moderntensor.config import NodeConfig
from moderntensor.network.bans import Bans
from moderntensor.network.offences import Offence
from moderntensor.network.reputation import Reputation
from moderntensor.simulation.checks import Checks
from moderntensor.simulation.oracle import Oracle
from moderntensor.storage import open_store

DEPTH = 3


class ToyHost:
    """A host whose node is a chain and what checks ask of its network, without any."""

    def __init__(self, world: ToyWorld, name: str, ip: str, honest: bool = True) -> None:
        self.world, self.name, self.ip, self.honest = world, name, ip, honest
        self.port, self.node_id = 30303, name.encode().ljust(32)
        self.skew = 0.0
        self.validator: KeyPair | None = None
        self.node: Any = None

    def wall_time(self) -> float:
        return self.world.wall_time() + self.skew

    def boot(self, chain: Any) -> None:
        runtime = SetClock(self.world.wall_time())
        runtime.loop_time = lambda: 0.0  # type: ignore[method-assign]
        bans = Bans(runtime)
        p2p = SimpleNamespace(
            on_peer_disconnected=[],
            bans=bans,
            reputation=Reputation(NodeConfig(), runtime, bans),
        )
        self.node = SimpleNamespace(chain=chain, p2p=p2p, mempool=Mempool(chain))
        for tell in self.world.on_node:
            tell(self)


class ToyWorld:
    def __init__(self, maker: ChainMaker) -> None:
        self.config = maker.config
        self.now = 0.0
        self.on_node: list[Callable[[Any], None]] = []
        self.hosts: list[ToyHost] = []

    @property
    def honest(self) -> list[ToyHost]:
        return [host for host in self.hosts if host.honest]

    def wall_time(self) -> float:
        return float(self.config.timestamp) + 1000.0 + self.now

    def add(self, name: str, honest: bool = True) -> ToyHost:
        host = ToyHost(self, name, f"45.{len(self.hosts)}.0.1", honest)
        self.hosts.append(host)
        return host

    def host_at(self, ip: str) -> ToyHost | None:
        return next((host for host in self.hosts if host.ip == ip), None)


class CredulousChain:
    """A chain that accepts whatever it is given, as one with a fault might."""

    def __init__(self, genesis: Block) -> None:
        self.blocks = [genesis]
        self.proofs: list[Evidence] = []
        self.callbacks: list[Callable[[HeadChanged], object]] = []

    has_state = True

    def evidence(self) -> list[Evidence]:
        return self.proofs

    @property
    def head(self) -> ChainHead:
        header = self.blocks[-1].header
        return ChainHead(header.height, header.hash, header.timestamp, header.state_root)

    def headers_range(self, start: int, count: int) -> bytes:
        raw = [block.header.encode() for block in self.blocks[start : start + count]]
        return len(raw).to_bytes(2, "big") + b"".join(raw)

    def get_block(self, block_hash: bytes) -> Block | None:
        return next((block for block in self.blocks if block.hash == block_hash), None)

    def subscribe(self, callback: Callable[[HeadChanged], object]) -> None:
        self.callbacks.append(callback)

    def accept(self, *blocks: Block, undo: int = 0) -> None:
        gone = [self.blocks.pop() for _ in range(undo)]
        self.blocks += blocks
        self.tell(
            HeadChanged(
                self.head,
                tuple((block.height, block.hash) for block in blocks),
                tuple((block.height, block.hash) for block in gone),
            )
        )

    def tell(self, event: HeadChanged) -> None:
        for callback in self.callbacks:
            callback(event)


@pytest.fixture
def maker() -> ChainMaker:
    return ChainMaker(VALIDATORS, max_reorg_depth=DEPTH)


@pytest.fixture
def world(maker: ChainMaker) -> ToyWorld:
    return ToyWorld(maker)


@pytest.fixture
def check(world: ToyWorld) -> Checks:
    return Checks(world)  # type: ignore[arg-type]


@pytest.fixture
def real(maker: ChainMaker) -> Iterator[Callable[[], Blockchain]]:
    with ExitStack() as stack:
        clock = SetClock(maker.config.timestamp + 10_000)
        yield lambda: Blockchain(
            stack.enter_context(open_store(None, tables.TABLES)), maker.config, runtime=clock
        )


def credulous(world: ToyWorld, maker: ChainMaker, name: str) -> CredulousChain:
    chain = CredulousChain(maker.genesis)
    world.add(name).boot(chain)
    return chain


# --- blocks -----------------------------------------------------------------------------------


def test_what_real_chains_accept_is_good(
    world: ToyWorld, check: Checks, maker: ChainMaker, real: Callable[[], Blockchain]
) -> None:
    """Both branches of a fork, and transactions with all that they may have."""
    one, other = real(), real()
    world.add("one").boot(one)
    world.add("other").boot(other)
    trunk = maker.run(maker.genesis, 2, transfers=4)
    short = maker.run(trunk[-1], 1, transfers=2, value=7)
    creation = maker.transfer(trunk[-1], 0, None, data=b"\0\1\2", gas_limit=90_000)
    newcomer = maker.transfer(trunk[-1], 1, b"n" * 20, value=5)
    long = [maker.block(trunk[-1], [creation, newcomer], gap=2)]
    long += maker.run(long[-1], 1)
    for block in (*trunk, *short, *long):
        one.import_block(block)
    for block in (*trunk, *long, *short):
        other.import_block(block)
    check.finish()
    assert check.violations == []
    assert one.head == other.head
    assert check.metrics["blocks"] == 4.0
    assert check.metrics["blocks_seen"] == 5.0
    assert check.metrics["reorganisations"] == 1.0
    assert check.metrics["deepest_reorganisation"] == 1.0


HEADER_FAULTS: dict[str, dict[str, Any]] = {
    "version": {"version": 2},
    "gas limit": {"gas_limit": 1_000_000},
    "height": {"height": 3},
    "slot": {"gap": 0},
    "validator": {"key": STRANGER},
    "signature": {"signature": bytes(64)},
    "transactions root": {"txs_root": bytes(31) + b"\1"},
    "receipts root": {"receipts_root": bytes(31) + b"\1"},
    "state root": {"state_root": bytes(31) + b"\1"},
    "gas used": {"gas_used": 1},
}


@pytest.mark.parametrize("rule", HEADER_FAULTS)
def test_a_block_against_a_rule_of_headers(
    rule: str, world: ToyWorld, check: Checks, maker: ChainMaker
) -> None:
    chain = credulous(world, maker, "credulous")
    first = maker.block(maker.genesis)
    bad = maker.block(first, **HEADER_FAULTS[rule])
    chain.accept(first)
    assert check.violations == []
    chain.accept(bad)
    found = [text for text in check.violations if f"which is invalid: {rule} " in text]
    assert [text.startswith("safety: credulous accepted block ") for text in found] == [True]
    above = maker.block(bad, gap=2)
    assert check.oracle.judge(above) == "stands on a block that breaks a rule"


TRANSACTION_FAULTS: dict[str, dict[str, Any]] = {
    "chain id": {"chain_id": 2},
    "nonce": {"ahead": 1},
    "gas of a transaction": {"gas_limit": 20_999},
    "balance": {"value": 10**30},
}


@pytest.mark.parametrize("rule", TRANSACTION_FAULTS)
def test_a_block_with_a_transaction_against_a_rule(
    rule: str, world: ToyWorld, check: Checks, maker: ChainMaker
) -> None:
    chain = credulous(world, maker, "credulous")
    chain.accept(
        maker.block(maker.genesis, [maker.transfer(maker.genesis, **TRANSACTION_FAULTS[rule])])
    )
    assert [f"invalid: {rule} " in text for text in check.violations] == [True]


def test_a_transaction_that_nobody_signed(maker: ChainMaker) -> None:
    """The sender that is remembered beside it proves nothing."""
    transfer = maker.transfer(maker.genesis)
    sender = transfer.sender
    forged = transfer.replace(s=(int.from_bytes(transfer.s, "big") + 1).to_bytes(32, "big"))
    object.__setattr__(forged, "_sender", sender)
    assert Oracle(maker.config).judge(maker.block(maker.genesis, [forged])) is not None


def test_a_good_block_that_is_forbidden(world: ToyWorld, check: Checks, maker: ChainMaker) -> None:
    chain = credulous(world, maker, "credulous")
    block = maker.block(maker.genesis)
    check.forbid(block.hash, "made by an adversary")
    chain.accept(block)
    assert "made by an adversary" in check.violations[0]


def test_a_block_from_the_future(world: ToyWorld, check: Checks, maker: ChainMaker) -> None:
    """By the clock of the host that accepts it, when that was furthest ahead."""
    chain = credulous(world, maker, "credulous")
    host = world.hosts[0]
    soon = maker.block(maker.genesis, gap=1015)
    chain.accept(soon)
    late = maker.block(soon, gap=85)
    host.skew = 90.0
    check.clock_changes(host)  # type: ignore[arg-type]
    host.skew = 0.0
    chain.accept(late)
    assert check.violations == []
    chain.accept(maker.block(late, gap=30))
    assert "40 s ahead of its clock" in check.violations[0]


def test_a_chain_that_the_scenario_vouches_for(
    world: ToyWorld, check: Checks, maker: ChainMaker, real: Callable[[], Blockchain]
) -> None:
    built, node = real(), real()
    blocks = maker.run(maker.genesis, 3, transfers=2)
    for block in blocks:
        built.import_block(block)
    addresses = [key.address for key in (*ACCOUNTS, *VALIDATORS)]
    check.trust_chain(built, addresses)
    world.add("node").boot(node)
    for block in (*blocks, *maker.run(blocks[-1], 2, transfers=1)):
        node.import_block(block)
    assert check.violations == []
    assert len(check.oracle) == 6


# --- heads ------------------------------------------------------------------------------------


def test_two_hosts_final_on_two_chains(world: ToyWorld, check: Checks, maker: ChainMaker) -> None:
    one, other = credulous(world, maker, "one"), credulous(world, maker, "other")
    one.accept(*maker.run(maker.genesis, DEPTH + 1))
    fork = maker.run(maker.genesis, DEPTH, gap=2)
    other.accept(*fork)
    assert check.violations == []
    other.accept(maker.block(fork[-1]))
    assert check.violations[0].startswith("safety: other and one are final on two chains at 1")


def test_a_host_that_forgets_in_a_crash_what_was_final(
    world: ToyWorld, check: Checks, maker: ChainMaker
) -> None:
    chain = credulous(world, maker, "one")
    chain.accept(*maker.run(maker.genesis, DEPTH + 2))
    again = CredulousChain(maker.genesis)
    again.blocks += maker.run(maker.genesis, DEPTH + 2, gap=3)
    world.hosts[0].boot(again)
    assert any("final on two chains" in text for text in check.violations)


def test_a_final_block_is_undone(world: ToyWorld, check: Checks, maker: ChainMaker) -> None:
    chain = credulous(world, maker, "one")
    chain.accept(*maker.run(maker.genesis, DEPTH + 1))
    chain.accept(*maker.run(maker.genesis, DEPTH + 2, gap=2), undo=DEPTH + 1)
    assert "undid 1, which was final" in check.violations[0]


@pytest.mark.parametrize("what", ["gap", "reverted", "head"])
def test_news_of_a_head_that_do_not_add_up(
    what: str, world: ToyWorld, check: Checks, maker: ChainMaker
) -> None:
    chain = credulous(world, maker, "one")
    blocks = maker.run(maker.genesis, 3)
    chain.accept(*blocks[:2])
    applied: tuple[tuple[int, bytes], ...] = ((3, blocks[2].hash),)
    reverted: tuple[tuple[int, bytes], ...] = ()
    if what == "gap":
        applied = ((2, blocks[1].hash),)
    elif what == "reverted":
        reverted = ((1, blocks[0].hash),)
    head = chain.head if what == "head" else chain.head._replace(height=3, hash=blocks[2].hash)
    chain.tell(HeadChanged(head, applied, reverted))
    assert len(check.violations) == 1
    assert check.violations[0].startswith("safety: one: ")


def test_a_check_that_fails_is_told(world: ToyWorld, check: Checks, maker: ChainMaker) -> None:
    """The chain logs what its listeners raise, which nobody would see."""
    chain = credulous(world, maker, "one")
    chain.tell(HeadChanged(None, (), ()))  # type: ignore[arg-type]
    assert check.violations[0].startswith("failure: the checks of one ended by AttributeError")


def test_a_head_that_goes_to_a_chain_no_longer_than_its_own(
    world: ToyWorld, check: Checks, maker: ChainMaker
) -> None:
    chain = credulous(world, maker, "one")
    first, last = maker.run(maker.genesis, 2)
    chain.accept(first, last)
    assert check.violations == []
    chain.accept(maker.block(first, gap=3), undo=1)
    assert check.violations == ["safety: one: left a chain of height 2 for one of 2 (at 0.000 s)"]


# --- validators, mempools ---------------------------------------------------------------------


def test_an_honest_validator_that_signs_two_blocks_of_a_slot(
    world: ToyWorld, check: Checks, maker: ChainMaker
) -> None:
    one, other = credulous(world, maker, "one"), credulous(world, maker, "other")
    blocks = maker.block(maker.genesis), maker.block(maker.genesis, [maker.transfer(maker.genesis)])
    world.hosts[0].validator = next(
        key for key in VALIDATORS if key.public_key == blocks[0].header.validator
    )
    one.accept(blocks[0])
    assert check.violations == []
    other.accept(blocks[1])
    assert check.violations == [
        "safety: one, an honest validator, signed two blocks in slot 1 (at 0.000 s)"
    ]


def test_a_hostile_validator_that_signs_two_blocks_of_a_slot(
    world: ToyWorld, check: Checks, maker: ChainMaker
) -> None:
    one, other = credulous(world, maker, "one"), credulous(world, maker, "other")
    blocks = maker.block(maker.genesis), maker.block(maker.genesis, [maker.transfer(maker.genesis)])
    for host in (world.hosts[0], world.add("thief", honest=False)):
        host.validator = VALIDATORS[1]
        assert VALIDATORS[1].public_key == blocks[0].header.validator
    one.accept(blocks[0])
    other.accept(blocks[1])
    one.proofs = [Evidence(*(block.header.encode() for block in blocks))]
    check.finish()
    assert check.violations == []


def test_evidence_against_an_honest_validator(
    world: ToyWorld, check: Checks, maker: ChainMaker
) -> None:
    chain = credulous(world, maker, "judge")
    blocks = maker.block(maker.genesis), maker.block(maker.genesis, gap=1 + len(VALIDATORS))
    world.add("signer").validator = VALIDATORS[1]
    chain.proofs = [Evidence(*(block.header.encode() for block in blocks))]
    check.finish()
    assert check.violations == [
        "safety: judge has evidence that signer, an honest validator, signed two blocks of "
        "height 1 (at 0.000 s)"
    ]


def test_a_mempool_that_keeps_what_is_included(
    world: ToyWorld, check: Checks, maker: ChainMaker, real: Callable[[], Blockchain]
) -> None:
    chain = real()
    host = world.add("keeper")
    host.boot(chain)
    sent = maker.transfer(maker.genesis)
    host.node.mempool.add(sent)
    block = maker.block(maker.genesis, [sent])
    chain.import_block(block)  # which nobody tells the mempool
    check.finish()
    assert check.violations == [
        "safety: keeper keeps 1 transactions whose nonces are used (at 0.000 s)"
    ]
    host.node.mempool.remove_included(block)
    del check.violations[:]
    check.finish()
    assert check.violations == []


# --- peers ------------------------------------------------------------------------------------


def lost(ip: str, offence: Offence | None, by_us: bool = True) -> SimpleNamespace:
    return SimpleNamespace(
        host_address=ip, offence=offence, dropped_by_us=by_us, drop_reason="because"
    )


def test_an_honest_peer_dropped_for_an_offence(
    world: ToyWorld, check: Checks, maker: ChainMaker
) -> None:
    credulous(world, maker, "judge")
    credulous(world, maker, "victim")
    world.add("liar", honest=False)
    part = world.hosts[0].node.p2p.on_peer_disconnected[0]
    part(lost(world.hosts[1].ip, None))
    part(lost(world.hosts[1].ip, Offence.NO_PONG))
    part(lost(world.hosts[1].ip, Offence.BAD_HEADER, by_us=False))
    part(lost(world.hosts[2].ip, Offence.BAD_HEADER))
    assert check.violations == []
    part(lost(world.hosts[1].ip, Offence.BAD_HEADER))
    assert check.violations == [
        "safety: judge dropped victim, an honest node, for bad_header: because (at 0.000 s)"
    ]


def test_an_honest_host_banned(world: ToyWorld, check: Checks, maker: ChainMaker) -> None:
    credulous(world, maker, "judge")
    credulous(world, maker, "victim")
    liar = world.add("liar", honest=False)
    bans = world.hosts[0].node.p2p.bans
    bans.add(liar.ip, 60.0)
    check.finish()
    assert check.violations == []
    bans.add("45.1.0.0/16", 60.0)
    check.finish()
    assert "judge has banned victim" in check.violations[0]


# --- liveness ---------------------------------------------------------------------------------


def test_honest_hosts_that_stay_on_two_heads(
    world: ToyWorld, check: Checks, maker: ChainMaker
) -> None:
    one, other = credulous(world, maker, "one"), credulous(world, maker, "other")
    blocks = maker.run(maker.genesis, 2)
    one.accept(*blocks)
    other.accept(blocks[0])
    assert not check.on_one_head()
    world.now = -1.0
    asyncio.run(expired(world, check))
    assert check.violations[0].startswith("liveness: not on one head after 5 s: 1 ")
    assert "one" in check.violations[0] and "other" in check.violations[0]


async def expired(world: ToyWorld, check: Checks, progress: int = 0) -> None:
    """`recovered` of a bound that is over at its second look."""
    waiting = asyncio.create_task(check.recovered(progress=progress, within=5.0))
    await asyncio.sleep(0)
    world.now += 6.0
    await waiting


def test_one_head_at_once(world: ToyWorld, check: Checks, maker: ChainMaker) -> None:
    blocks = maker.run(maker.genesis, 2)
    for name in ("one", "other"):
        credulous(world, maker, name).accept(*blocks)
    assert asyncio.run(check.recovered(progress=0)) == 0.0
    check.finish()
    assert check.violations == []
    assert check.metrics["recovery_seconds"] == [0.0]


def test_one_head_that_stands_still(world: ToyWorld, check: Checks, maker: ChainMaker) -> None:
    credulous(world, maker, "one").accept(*maker.run(maker.genesis, 2))
    asyncio.run(expired(world, check, progress=1))
    assert check.violations[0].startswith("liveness: not on one head")


def test_a_host_that_is_down(world: ToyWorld, check: Checks, maker: ChainMaker) -> None:
    credulous(world, maker, "one")
    assert check.on_one_head()
    world.add("down")
    assert not check.on_one_head()
