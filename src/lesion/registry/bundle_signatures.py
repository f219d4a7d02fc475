"""Signatures of bundles: Ed25519 over a bundle's facts, which have the hash of each of its files, in a file beside it.

The keys are PEM files as OpenSSL makes them: ``openssl genpkey -algorithm ed25519 -out key.pem``, and for those who
verify ``openssl pkey -in key.pem -pubout -out signer.pem``.
"""

from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from lesion.core.errors import BundleError, ConfigError
from lesion.core.files import write_atomically
from lesion.model.bundle import Bundle
from lesion.model.bundle_facts import FACTS_FILE

# Before what is signed, so that what the same key signed for another purpose is not taken for it.
_PURPOSE = b"lesion bundle 1\n"
_SIZE = 64  # bytes


class SignatureError(BundleError):
    """A bundle that nobody signed, or somebody who is not trusted."""

    default_code = "bundle_unsigned"


def signature_file(bundle: Bundle) -> Path:
    """Return where the signature of a bundle is: beside its folder, since a bundle holds no other files than listed."""
    return bundle.path.with_name(f"{bundle.path.name}.sig")


def sign(bundle: Bundle, key_file: Path) -> Path:
    """Sign a bundle, and return the file that has the signature.

    Raises:
        ConfigError: The file has no private Ed25519 key (``signing_key_unusable``).
    """
    signature = _private_key(key_file).sign(_signed_content(bundle))
    file = signature_file(bundle)
    write_atomically(file, signature)
    return file


def verify(bundle: Bundle, signers: Sequence[Path]) -> Path:
    """Return the file of the signer whose signature a bundle has.

    Args:
        bundle: A bundle whose files were checked when it was opened.
        signers: Files with the public keys of those who are trusted.

    Raises:
        SignatureError: The bundle has no signature, or that of somebody else.
        ConfigError: A file has no public Ed25519 key (``signing_key_unusable``).
    """
    file = signature_file(bundle)
    if not file.is_file():
        raise SignatureError(
            f"The bundle in '{bundle.path}' is not signed: there is no '{file.name}' beside it. Only signed bundles "
            "are accepted here; ask where it comes from for 'lesion models sign'."
        )
    with file.open("rb") as opened:
        signature = opened.read(_SIZE + 1)
    for signer in signers:
        try:
            _public_key(signer).verify(signature, _signed_content(bundle))
        except InvalidSignature:
            continue
        return signer
    raise SignatureError(
        f"The signature of the bundle in '{bundle.path}' is by none of {', '.join(signer.name for signer in signers)}: "
        "it was signed by somebody else, or changed since."
    )


def _signed_content(bundle: Bundle) -> bytes:
    return _PURPOSE + (bundle.path / FACTS_FILE).read_bytes()


def _private_key(file: Path) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(file.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:  # TypeError: it has a password
        raise _unusable(file, "private", str(error)) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _unusable(file, "private", "it is of another kind")
    return key


def _public_key(file: Path) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(file.read_bytes())
    except (OSError, ValueError) as error:
        raise _unusable(file, "public", str(error)) from error
    if not isinstance(key, Ed25519PublicKey):
        raise _unusable(file, "public", "it is of another kind")
    return key


def _unusable(file: Path, kind: str, reason: str) -> ConfigError:
    return ConfigError(
        f"'{file}' has no {kind} Ed25519 key in PEM without a password: {reason}. Make one with openssl genpkey "
        "-algorithm ed25519, and the public one of it with openssl pkey -pubout.",
        code="signing_key_unusable",
    )
