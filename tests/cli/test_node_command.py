"""`moderntensor node`: a process that runs until it is told to stop."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest
from helpers.command import complaint, complaint_of, run_each, running, succeed

from moderntensor.blockchain.crypto import KeyPair
from moderntensor.blockchain.genesis import ChainConfig
from moderntensor.blockchain.key_files import save_key
from moderntensor.cli.node import run
from moderntensor.config import NodeConfig
from moderntensor.errors import StorageError
from moderntensor.node import FullNode

BLOCKS = 30
LOOPBACK = ("--listen", "127.0.0.1:0")


def port_of(line: str) -> int:
    return int(line.partition("127.0.0.1:")[2].partition(",")[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_runs_until_a_signal_and_leaves_nothing(net: Path, tmp_path: Path, number: int) -> None:
    data = tmp_path / "data"
    genesis = net / "genesis.json"
    with running("node", "--data", data, "--genesis", genesis, *LOOPBACK) as node:
        port = port_of(node.line_with("listening on"))
        node.line_with("block 0")
        socket.create_connection(("127.0.0.1", port), 10).close()
        code, out, err = node.stop(number)
    assert (code, out, err) == (0, "stopping\nstopped at block 0\n", "")
    assert {path.name for path in data.iterdir()} >= {"chain", "node.key"}
    # Nobody holds the directory, and the port is free.
    reopened = FullNode(data, genesis)
    assert reopened.chain.head.height == 0
    reopened.state_db.close()
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_one_node_syncs_from_another(net: Path, tmp_path: Path) -> None:
    fresh, genesis = tmp_path / "fresh", net / "genesis.json"
    with running("node", "--data", net / "data", "--genesis", genesis, *LOOPBACK) as server:
        address = server.line_with("listening on").split()[-3].rstrip(",")
        assert len(address.partition("@")[0]) == 64
        server.line_with(f"block {BLOCKS}")
        with running(
            "node", "--data", fresh, "--genesis", genesis, *LOOPBACK, "--peer", address
        ) as client:
            head = client.line_with("synced to block").partition("(")[2]
            code, out, err = client.stop()
        assert (code, err) == (0, "")
        assert f"stopped at block {BLOCKS}" in out

        line = complaint("node", "--data", net / "data", "--genesis", genesis, *LOOPBACK)
        assert "in use" in line
        assert server.stop(signal.SIGINT)[0] == 0

    reopened = FullNode(fresh, genesis)
    assert reopened.chain.head.height == BLOCKS
    assert head.startswith(reopened.chain.head.hash.hex()[:16])
    reopened.state_db.close()


def test_a_validator_makes_blocks(net: Path) -> None:
    """On a chain that ended in the past, so that every slot from now on is one of its."""
    config = ChainConfig.load(net / "genesis.json")
    assert config.block_time == 1
    key = net / "keys" / "validator-1.key"
    with running(
        *("--log-level", "info"),
        *("node", "--data", net / "data", "--genesis", net / "genesis.json", *LOOPBACK),
        *("--validator-key", key),
    ) as node:
        node.line_with("listening on")
        assert node.process.stderr is not None
        produced = next(line for line in node.process.stderr if "produced block" in line)
        assert f"produced block {BLOCKS + 1} " in produced
        code, out, _ = node.stop()
    assert code == 0
    assert "stopped at block 3" in out
    assert "blocks verified" in succeed("chain", "verify", net)


def test_port_in_use(net: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        line = complaint(
            *("node", "--data", tmp_path / "d", "--genesis", net / "genesis.json"),
            *("--listen", address),
        )
    assert f"cannot listen on {address}" in line
    assert "in use" in line


def test_unusable_genesis_files(made: Path, tmp_path: Path) -> None:
    data, torn, odd = tmp_path / "data", tmp_path / "torn.json", tmp_path / "odd.json"
    torn.write_text('{"chain_id": 1,')
    odd.write_text((made / "genesis.json").read_text().replace('"block_time": 1', '"when": 1'))
    results = run_each(
        ("node", "--data", data, "--genesis", genesis, *LOOPBACK)
        for genesis in (tmp_path / "missing.json", torn, odd)
    )
    for result, answer in zip(
        results, ("No such file", "not JSON", "when: no such field"), strict=True
    ):
        assert answer in complaint_of(result)
    assert not data.exists()


def test_the_key_of_a_stranger(made: Path, tmp_path: Path) -> None:
    key, data = tmp_path / "stranger.key", tmp_path / "data"
    save_key(key, KeyPair.generate())
    line = complaint(
        *("node", "--data", data, "--genesis", made / "genesis.json", *LOOPBACK),
        *("--validator-key", key),
    )
    assert "stranger.key" in line
    assert "no validator" in line
    assert not data.exists()


def test_a_directory_of_another_chain(net: Path, tmp_path: Path) -> None:
    other = tmp_path / "genesis.json"
    ChainConfig(chain_id=2, timestamp=0).save(other)
    line = complaint("node", "--data", net / "data", "--genesis", other, *LOOPBACK)
    assert "holds the chain of genesis" in line


def test_a_peer_that_is_another_one_than_expected(net: Path, tmp_path: Path) -> None:
    genesis = net / "genesis.json"
    with running("node", "--data", net / "data", "--genesis", genesis, *LOOPBACK) as server:
        port = port_of(server.line_with("listening on"))
        with running(
            *("--log-level", "info", "node", "--data", tmp_path / "fresh", "--genesis", genesis),
            *(*LOOPBACK, "--peer", f"{'ab' * 32}@127.0.0.1:{port}"),
        ) as client:
            assert client.process.stderr is not None
            line = next(line for line in client.process.stderr if "could not connect" in line)
            assert "another node_id than expected" in line
            assert client.stop()[0] == 0
        assert server.stop()[0] == 0


def test_plaintext_is_asked_for_by_name_and_talks_to_its_like(net: Path, tmp_path: Path) -> None:
    """Nothing falls back: the encrypted node stays alone."""
    genesis, plain = net / "genesis.json", ("--transport", "plaintext")
    with running("node", "--data", net / "data", "--genesis", genesis, *LOOPBACK, *plain) as server:
        peer = ("--peer", f"127.0.0.1:{port_of(server.line_with('listening on'))}")
        for name, transport in (("one", plain), ("two", ())):
            with running(
                *("--log-level", "info", "node", "--data", tmp_path / name),
                *("--genesis", genesis, *LOOPBACK, *peer, *transport),
            ) as client:
                if transport:
                    client.line_with("synced to block")
                else:
                    assert client.process.stderr is not None
                    line = next(x for x in client.process.stderr if "could not connect" in x)
                    assert "it may speak plaintext" in line
                assert client.stop()[0] == 0
        assert server.stop()[0] == 0


async def test_the_failure_of_a_part_ends_it(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the disk is full: the process must not go on as if nothing were."""
    full_node = FullNode(
        None,
        made / "genesis.json",
        settings=NodeConfig(listen_host="127.0.0.1", listen_port=0, discovery=False),
    )

    async def fail(**_: object) -> None:
        raise StorageError("no space left")

    monkeypatch.setattr(full_node.sync, "sync", fail)
    with pytest.raises(StorageError, match="no space left"):
        await run(full_node)
