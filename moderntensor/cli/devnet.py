"""A chain of one's own in one directory: genesis file, keys, data. What ``chain new`` makes.

DIR/genesis.json             the chain, as every node of it needs it
DIR/keys/validator-0.key …   one key file per validator, for ``node --validator-key``
DIR/keys/accounts.seed       32 bytes in hex from which the keys of all accounts follow
DIR/data/                    a node's data directory, for ``node --data``
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..blockchain.chain import Blockchain
from ..blockchain.crypto import KeyPair, sha256
from ..blockchain.genesis import ChainConfig
from ..blockchain.key_files import load_key, save_key
from ..blockchain.tables import TABLES
from ..errors import ConfigError
from ..node import CHAIN_DIRECTORY
from ..storage import open_store

INITIAL_BALANCE = 10**18


@dataclass(frozen=True)
class Devnet:
    """Such a directory. The methods raise ConfigError naming the file that is wrong."""

    path: Path

    @property
    def genesis(self) -> Path:
        return self.path / "genesis.json"

    @property
    def data(self) -> Path:
        return self.path / "data"

    @property
    def keys(self) -> Path:
        return self.path / "keys"

    def create(
        self,
        seed: bytes,
        *,
        validators: int,
        accounts: int,
        block_time: int,
        timestamp: int,
        snapshot_interval: int = ChainConfig.snapshot_interval,
    ) -> ChainConfig:
        """Make the directory with keys that follow from `seed` (32 bytes) and nothing else."""
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise ConfigError(f"{self.path} exists and is not an empty directory")
        signers = derive_keys(seed, "validator", validators)
        owners = derive_keys(seed, "account", accounts)
        config = ChainConfig(
            chain_id=1,
            timestamp=timestamp,
            block_time=block_time,
            snapshot_interval=snapshot_interval,
            validators=tuple(key.public_key for key in signers),
            alloc={key.address: INITIAL_BALANCE for key in owners},
        )
        try:
            self.keys.mkdir(parents=True, mode=0o700)
            for i, key in enumerate(signers):
                save_key(self.keys / f"validator-{i}.key", key)
            _write_secret(self.keys / "accounts.seed", seed.hex() + "\n")
            config.save(self.genesis)
        except BaseException:
            # The directory was empty; half a chain in it would be in the way of a whole one.
            self.genesis.unlink(missing_ok=True)
            shutil.rmtree(self.keys, ignore_errors=True)
            raise
        return config

    def load(self) -> ChainConfig:
        """The chain's constants."""
        return ChainConfig.load(self.genesis)

    def validator_keys(self, config: ChainConfig) -> list[KeyPair]:
        """The keys of all validators, in slot order."""
        return [load_key(self.keys / f"validator-{i}.key") for i in range(len(config.validators))]

    def account_keys(self, config: ChainConfig) -> list[KeyPair]:
        """The keys of the accounts that the genesis file gives balances to."""
        path = self.keys / "accounts.seed"
        try:
            seed = bytes.fromhex(path.read_text(encoding="ascii").strip())
        except (OSError, ValueError) as error:
            raise ConfigError(f"seed file {path}: {error}") from error
        return derive_keys(seed, "account", len(config.alloc))

    @contextmanager
    def chain(self, config: ChainConfig) -> Iterator[Blockchain]:
        """The chain in the data directory, open as long as the `with` block lasts."""
        with open_store(self.data / CHAIN_DIRECTORY, TABLES) as store:
            yield Blockchain(store, config)


def blocks_per_commit(transfers: int) -> int:
    """How many blocks of so many transfers to sign between two looks at the user."""
    # Below a second. Large batches pay: the next one changes many of the same pages.
    return max(1, min(2048, 4000 // max(transfers, 1)))


def derive_keys(seed: bytes, label: str, count: int) -> list[KeyPair]:
    """`count` keys that follow from `seed`."""
    return [
        KeyPair.from_secret(sha256(b"moderntensor/devnet/%s/%d/" % (label.encode(), i) + seed))
        for i in range(count)
    ]


def _write_secret(path: Path, text: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(f"seed file {path}: {error.strerror or error}") from error
