"""The lists that a header commits to, against the published RFC 9162 (RFC 6962) roots."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderntensor.blockchain.crypto import KeyPair
from moderntensor.blockchain.merkle import MerkleTree, receipts_root, transactions_root
from moderntensor.blockchain.transaction import Transaction, TransactionReceipt

# Certificate Transparency's reference inputs and roots (merkle_tree_test.cc, trees of 1 to 8).
LEAVES = [
    bytes.fromhex(leaf)
    for leaf in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


@pytest.mark.parametrize("count", range(1, 9))
def test_published_roots(count: int) -> None:
    tree = MerkleTree(LEAVES[:count])
    assert tree.root.hex() == ROOTS[count - 1]
    assert len(tree) == count


def test_no_leaves() -> None:
    assert MerkleTree([]).root == bytes(32)
    with pytest.raises(IndexError):
        MerkleTree([]).proof(0)


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=40), st.data())
def test_proofs_prove_their_leaf_and_no_other(leaves: list[bytes], data: st.DataObject) -> None:
    tree = MerkleTree(leaves)
    index = data.draw(st.integers(0, len(leaves) - 1))
    proof = tree.proof(index)
    count = len(leaves)
    assert MerkleTree.verify(tree.root, leaves[index], index, count, proof) is True
    assert MerkleTree.verify(tree.root, leaves[index] + b"!", index, count, proof) is False
    assert MerkleTree.verify(tree.root, leaves[index], index, count, [*proof, bytes(32)]) is False
    assert MerkleTree.verify(tree.root, leaves[index], count, count, proof) is False
    if proof:
        assert MerkleTree.verify(tree.root, leaves[index], index, count, proof[1:]) is False
        at = data.draw(st.integers(0, len(proof) - 1))
        bad = [*proof[:at], sha256(proof[at]).digest(), *proof[at + 1 :]]
        assert MerkleTree.verify(tree.root, leaves[index], index, count, bad) is False


@given(st.lists(st.binary(max_size=4), min_size=1, max_size=20))
def test_a_repeated_last_leaf_is_another_list(leaves: list[bytes]) -> None:
    assert MerkleTree([*leaves, leaves[-1]]).root != MerkleTree(leaves).root


def test_what_headers_commit_to() -> None:
    key = KeyPair.from_secret(b"\x31" * 32)
    sent = [Transaction.create(key, chain_id=1, nonce=n, to=key.address) for n in range(5)]
    receipts = [TransactionReceipt(transaction_hash=t.hash, gas_used=21_000) for t in sent]
    assert transactions_root(sent) == MerkleTree([t.encode() for t in sent]).root
    assert receipts_root(receipts) == MerkleTree([r.encode() for r in receipts]).root
    assert transactions_root([]) == receipts_root([]) == bytes(32)
    assert transactions_root(sent[::-1]) != transactions_root(sent)


def test_leaves_are_bytes() -> None:
    with pytest.raises(TypeError):
        MerkleTree(["a leaf"])  # type: ignore[list-item]
