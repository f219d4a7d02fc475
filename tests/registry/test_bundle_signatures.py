"""Signatures of bundles, with keys as OpenSSL makes them, and with OpenSSL's own verdict."""

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from lesion.catalogue.first_model import import_run
from lesion.cli.storage.models import main
from lesion.core.errors import ConfigError, LesionError
from lesion.database.storage import Storage
from lesion.model.bundle import Bundle
from lesion.registry.bundle_signatures import SignatureError, sign, signature_file, verify
from tests.support.bundles.registry_bundles import sealed


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def key_pair(folder: Path, name: str) -> tuple[Path, Path]:
    """Return the files of a private and a public key."""
    private, public = folder / f"{name}.key.pem", folder / f"{name}.pem"
    openssl("genpkey", "-algorithm", "ed25519", "-out", private)
    openssl("pkey", "-in", private, "-pubout", "-out", public)
    return private, public


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle.open(sealed(tmp_path / "run" / "bundle", 1.0))


def test_the_signer_is_found_among_those_who_are_trusted(bundle: Bundle, tmp_path: Path) -> None:
    (ours, _), (_, other) = key_pair(tmp_path, "ours"), key_pair(tmp_path, "other")
    file = sign(bundle, ours)
    assert file == tmp_path / "run" / "bundle.sig"
    assert verify(bundle, [other, tmp_path / "ours.pem"]) == tmp_path / "ours.pem"
    with pytest.raises(SignatureError, match=r"by none of other\.pem"):
        verify(bundle, [other])


def test_openssl_verifies_the_same(bundle: Bundle, tmp_path: Path) -> None:
    private, public = key_pair(tmp_path, "ours")
    signature = sign(bundle, private)
    content = tmp_path / "content"
    content.write_bytes(b"lesion bundle 1\n" + (bundle.path / "bundle.json").read_bytes())
    check = partial(openssl, "pkeyutl", "-verify", "-pubin", "-rawin", "-inkey", public, "-sigfile", signature, "-in")
    check(content)
    content.write_bytes(content.read_bytes() + b" ")
    with pytest.raises(subprocess.CalledProcessError):
        check(content)


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"x", lambda data: bytes(64)])
def test_a_changed_signature_is_none(bundle: Bundle, tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    private, public = key_pair(tmp_path, "ours")
    file = sign(bundle, private)
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(SignatureError):
        verify(bundle, [public])


def test_a_signature_is_of_one_bundle(bundle: Bundle, tmp_path: Path) -> None:
    private, public = key_pair(tmp_path, "ours")
    other = Bundle.open(sealed(tmp_path / "other" / "bundle", 2.0))
    shutil.copy(sign(bundle, private), signature_file(other))
    with pytest.raises(SignatureError):
        verify(other, [public])


def test_a_file_that_is_no_such_key_is_named(bundle: Bundle, tmp_path: Path) -> None:
    private, public = key_pair(tmp_path, "ours")
    rsa, secret = tmp_path / "rsa.pem", tmp_path / "secret.pem"
    openssl("genpkey", "-algorithm", "rsa", "-out", rsa)
    openssl("pkcs8", "-topk8", "-in", private, "-out", secret, "-passout", "pass:word")
    for unusable in (public, rsa, secret, tmp_path / "absent.pem"):
        with pytest.raises(ConfigError, match="has no private Ed25519 key"):
            sign(bundle, unusable)
    sign(bundle, private)
    for unusable in (private, tmp_path / "absent.pem"):
        with pytest.raises(ConfigError, match="has no public Ed25519 key"):
            verify(bundle, [unusable])


def test_a_storage_with_signers_imports_only_what_they_signed(bundle: Bundle, tmp_path: Path) -> None:
    private, public = key_pair(tmp_path, "ours")
    storage = Storage(f"sqlite:///{tmp_path}/lesion.db", f"{tmp_path}/files", tmp_path / "cache")
    storage.upgrade()

    def refusal(storage: Storage) -> str:
        with pytest.raises(LesionError) as caught:  # the run has no manifest, which is asked for later
            import_run(storage, bundle.path.parent, "test", "first")
        return caught.value.code

    assert refusal(storage) == "manifest_missing"
    careful = replace(storage, signers=[str(public)])
    assert refusal(careful) == "bundle_unsigned"
    sign(bundle, private)
    assert refusal(careful) == "manifest_missing"


def test_the_command_signs_and_verifies(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = key_pair(tmp_path, "ours")
    monkeypatch.chdir(tmp_path)  # where no storage is made
    assert main(["--json", "sign", str(bundle.path.parent), "--key", str(private)]) == 0
    assert json.loads(capsys.readouterr().out)["version"] == bundle.version
    assert main(["--json", "verify", str(bundle.path), "--signer", str(public)]) == 0
    assert json.loads(capsys.readouterr().out) == {"version": bundle.version, "signer": str(public)}
    signature_file(bundle).unlink()
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(bundle.path), "--signer", str(public)])
    assert ended.value.code != 0
    assert "is not signed" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours.key.pem", "ours.pem", "run"]
