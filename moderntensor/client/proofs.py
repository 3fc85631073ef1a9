"""Checking here what a node says an account holds."""

from __future__ import annotations

from ..blockchain.proofs import AccountProof
from ..errors import DecodeError, ProofError

__all__ = ["checked_proof"]


def checked_proof(
    node: str,
    path: str,
    address: bytes,
    document: str | None,
    *,
    trusted_root: bytes | None,
    trusted_block: bytes | None,
) -> AccountProof:
    """The proof in `document`, which is about `address` and leads to its state root; that root, or
    its block, is the trusted one where one is given. ProofError otherwise."""
    if document is None:
        raise ProofError(node, path, "the node sent no proof")
    try:
        proof = AccountProof.from_json(document)
    except DecodeError as error:
        raise ProofError(node, path, f"the proof: {error}") from error
    if proof.address != address:
        raise ProofError(node, path, f"the proof is about address 0x{proof.address.hex()}")
    if trusted_root not in (None, proof.state_root):
        raise ProofError(
            node,
            path,
            f"the proof is about state root {proof.state_root.hex()}, not the one trusted",
        )
    if trusted_block not in (None, proof.block_hash):
        raise ProofError(
            node,
            path,
            f"the proof is about block {proof.height}, {proof.block_hash.hex()}, not the one "
            "trusted",
        )
    if not proof.verify(proof.state_root):
        raise ProofError(node, path, "the proof does not hold: it does not lead to the state root")
    return proof
