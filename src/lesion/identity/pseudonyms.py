"""Keyed hashes (HMAC-SHA-256, RFC 2104) that stand for patients, for DICOM's UIDs, and for files as they were sent.

The same text gets the same hash as long as the key is the same, so that images of a patient stay on one side of the
split. Without the key nobody can find a patient by trying numbers, as with a plain hash.
"""

import hashlib
import hmac
import re
import unicodedata

KEY_BYTES, MIN_KEY_BYTES = 32, 16
_PATIENT = re.compile(r"patient-[0-9a-f]{32}")


class Pseudonyms:
    """Makes keyed hashes with the identity key of a storage."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def patient(self, name: str) -> str:
        """Return what stands for a patient, or for another group that a sender names; empty for an empty name."""
        normal = unicodedata.normalize("NFC", name).strip()
        return f"patient-{self._hash('patient', normal).hex()[:32]}" if normal else ""

    def uid(self, uid: str) -> str:
        """Return a UID that stands for another one, of the kind that PS3.5 B.2 derives from a random number."""
        return f"2.25.{int.from_bytes(self._hash('uid', uid)[:16])}"

    def sent(self, sha256: str) -> str:
        """Return what stands for a file as it was sent, whose SHA-256 is given; 64 hexadecimal digits."""
        return self._hash("sent", sha256).hex()

    @property
    def record_key(self) -> bytes:
        """The key of the chains of records, see ``lesion.records.chain``; it does not tell the identity key."""
        return self._hash("records", "")

    @property
    def check(self) -> str:
        """A hash that tells whether another key is the same, and does not tell the key; 64 hexadecimal digits."""
        return self._hash("check", "").hex()

    def _hash(self, purpose: str, text: str) -> bytes:
        return hmac.digest(self._key, f"{purpose}\0{text}".encode(), hashlib.sha256)


def is_patient_pseudonym(text: str) -> bool:
    """Return whether a text was made by `Pseudonyms.patient`, with whatever key."""
    return _PATIENT.fullmatch(text) is not None
