"""Keys, certificates, ports and signatures: who may ask, who is believed."""

import hashlib
import os
import ssl
import threading
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fake_engine import FakeEngine, FakeVocabulary
from live_server import IDENTITY, threaded, wait_for

from qtool.errors import MismatchError, UsageError
from qtool.serve.admission.keys import Keys, read_keys
from qtool.serve.api.refusal import Refused
from qtool.serve.deployment import Deployment, Parts
from qtool.serve.http_server import HttpServer, listen
from qtool.serve.limits import Limits
from qtool.serve.options import Listening
from qtool.serve.service import Service
from qtool.serve.signature import SIGNATURE, verify_signature


def write_keys(path: Path, **keys: str) -> None:
    """A file with a key of that name for each secret; of "admin" an administrator."""
    tables = []
    for name, secret in keys.items():
        admin = "admin = true" if name == "admin" else "concurrency = 2"
        tables.append(f'[{name}]\nsha256 = "{hashlib.sha256(secret.encode()).hexdigest()}"\n{admin}\n')
    path.write_text("\n".join(tables), encoding="utf-8")
    later = path.stat().st_mtime + len(tables)  # file systems with coarse clocks
    os.utime(path, (later, later))


def changed(keys: Keys) -> Keys:
    """`keys` after the file has been looked at again."""
    keys._checked_s -= 10
    keys.refresh()
    return keys


def test_a_changed_file_of_keys_is_read_again(tmp_path: Path):
    path = tmp_path / "keys.toml"
    write_keys(path, one="a")
    keys = read_keys(path)
    first = keys.find("Bearer a")
    assert first is not None
    first.enter()
    write_keys(path, one="a", two="b", three="c")
    assert changed(keys).find("Bearer b") is not None
    assert keys.find("Bearer a") is first  # what it has running is not forgotten
    write_keys(path, two="b")
    with pytest.raises(Refused):
        changed(keys).find("Bearer a")


def test_a_file_of_keys_that_is_broken_or_gone_changes_nothing(tmp_path: Path):
    path = tmp_path / "keys.toml"
    write_keys(path, one="a")
    keys = read_keys(path)
    path.write_text("[one]\n", encoding="utf-8")
    assert changed(keys).find("Bearer a") is not None
    path.unlink()
    assert changed(keys).find("Bearer a") is not None
    with pytest.raises(Refused):
        keys.find("Bearer b")


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of this machine for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "tls.pem", folder / "tls.key"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
    return paths


def test_tls_keys_and_a_port_for_administration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(HttpServer, "_on_signals", lambda self: None)  # signals are for the main thread
    chain, key = certificate(tmp_path)
    write_keys(tmp_path / "keys.toml", team="a", admin="b")
    deployment = Deployment(IDENTITY, Parts(FakeVocabulary, threaded(FakeEngine)), Limits(queue_seconds=60.0))
    context = ssl.create_default_context(cafile=str(chain))
    with listen("127.0.0.1", 0) as public, listen("127.0.0.1", 0) as private:
        ports = [listener.getsockname()[1] for listener in (public, private)]
        service = Service(deployment, read_keys(tmp_path / "keys.toml"), ports[1])
        server = HttpServer(service, Listening(tls_certificate=chain, tls_key=key))
        thread = threading.Thread(target=server.run, args=([public, private],), daemon=True)
        thread.start()
        front, back = (f"https://127.0.0.1:{port}" for port in ports)
        try:
            with httpx.Client(verify=context, timeout=20) as client:
                wait_for(lambda: deployment.readiness.ready)
                body = {"model": "m", "prompt": "x=ok"}
                answer = client.post(f"{front}/v1/completions", json=body, headers={"authorization": "Bearer a"})
                assert answer.json()["choices"][0]["text"] == "ok"
                assert client.post(f"{front}/v1/completions", json=body).status_code == 401
                assert client.get(f"{front}/metrics").status_code == 404  # not on this port
                assert client.post(f"{back}/v1/completions", json=body).status_code == 404
                assert 'key_class="default"' in client.get(f"{back}/metrics").text
                assert client.get(f"{front}/health").status_code == client.get(f"{back}/health").status_code == 200
            with pytest.raises(httpx.ConnectError):  # nobody is told to trust this certificate
                httpx.get(f"{front}/health", timeout=20)
        finally:
            server._server.should_exit = True
            thread.join(10)
        assert not thread.is_alive()


def signed(folder: Path) -> tuple[Ed25519PrivateKey, Path]:
    """A folder with a signed manifest: the private key, and the file of the public one."""
    key, path = Ed25519PrivateKey.generate(), folder / "key.pem"
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    path.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, form))
    (folder / "bundle.json").write_bytes(b'{"name": "x"}')
    (folder / SIGNATURE).write_bytes(key.sign(b'{"name": "x"}'))
    return key, path


def test_a_signed_bundle_is_believed(tmp_path: Path):
    verify_signature(tmp_path, signed(tmp_path)[1])


def test_a_bundle_that_is_not_signed_or_was_edited_is_refused(tmp_path: Path):
    _, public = signed(tmp_path)
    (tmp_path / "bundle.json").write_bytes(b'{"name": "y"}')
    with pytest.raises(MismatchError, match="was not made with this key"):
        verify_signature(tmp_path, public)
    (tmp_path / SIGNATURE).unlink()
    with pytest.raises(MismatchError, match="not signed"):
        verify_signature(tmp_path, public)


def test_another_ones_key_and_another_kind_of_key_are_refused(tmp_path: Path):
    _, public = signed(tmp_path)
    (tmp_path / SIGNATURE).write_bytes(Ed25519PrivateKey.generate().sign(b'{"name": "x"}'))
    with pytest.raises(MismatchError, match="was not made with this key"):
        verify_signature(tmp_path, public)
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(other.public_bytes(serialization.Encoding.PEM, form))
    with pytest.raises(UsageError, match="no Ed25519 key"):
        verify_signature(tmp_path, public)
    public.write_text("nothing", encoding="utf-8")
    with pytest.raises(UsageError, match="cannot be read"):
        verify_signature(tmp_path, public)
