"""Chains of records: each one has a keyed hash of all before it, so that a change or a gap shows.

The hashes are made with a key that is kept apart from the database (the identity key): somebody who can change only
the database cannot make a chain that fits. Secure logs are linked like this (Schneier and Kelsey, "Cryptographic
support for secure logs on untrusted machines", 1998); here the key does not change from record to record.
"""

import hashlib
import hmac
from dataclasses import dataclass

HASH_BYTES = 32


@dataclass(frozen=True, slots=True)
class ChainKey:
    """Makes the links of chains."""

    key: bytes

    def beginning(self, chain: str) -> bytes:
        """Return what the first record of a chain, which is named by its id, is linked to."""
        return self._hash(b"beginning", chain.encode())

    def link(self, before: bytes, number: int, content_hash: bytes) -> bytes:
        """Return the link of a record: its number, from 1, and what it is linked to are bound to its content's hash."""
        return self._hash(b"link", before, number.to_bytes(8), content_hash)

    def seal(self, chain: str, first: int, before_first: bytes, last: int, last_link: bytes) -> str:
        """Return what shows that a chain runs from its first to its last record, and not less far; hexadecimal."""
        return self._hash(b"seal", chain.encode(), first.to_bytes(8), before_first, last.to_bytes(8), last_link).hex()

    def _hash(self, purpose: bytes, *parts: bytes) -> bytes:
        return hmac.digest(self.key, b"\0".join((purpose, *parts)), hashlib.sha256)


def content_hash(text: str) -> bytes:
    """Return the hash by which a record's content stands in its chain; it stays when the content is deleted."""
    return hashlib.sha256(text.encode()).digest()
