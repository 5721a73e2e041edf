# SPDX-License-Identifier: Apache-2.0
"""A lab's certificates, token and kubeconfigs, and how a kubeconfig is merged into the user's own."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ringfence.errors import UsageError
from ringfence.lab.config import API_SERVER_PORT, LabPaths
from ringfence.model.addresses import Address

SERVICE_NAMES = (
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)
_VALID = datetime.timedelta(days=3650)
_SKEW = datetime.timedelta(minutes=5)  # clocks of one machine step back too


def write_credentials(paths: LabPaths, *, name: str, port: int, fabric: Sequence[Address], service: Address) -> None:
    """Write CA, server certificate and key, token and both kubeconfigs into a lab's directory (mode 0600).

    ``fabric`` are the API server's addresses inside the lab (the first one goes into the nodes' kubeconfig; none in a
    simulated lab, whose agents use loopback), ``service`` is the ClusterIP of the Service ``kubernetes``.
    """
    addresses: list[Address] = [
        ipaddress.IPv4Address("127.0.0.1"),
        ipaddress.IPv6Address("::1"),
        *fabric,
        service,
    ]
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = _certificate(f"ringfence lab {name}", ca_key, issuer=None)
    server_key = ec.generate_private_key(ec.SECP256R1())
    server = _certificate("kube-apiserver", server_key, issuer=(ca, ca_key), addresses=addresses)
    ca_pem = ca.public_bytes(serialization.Encoding.PEM)
    key_pem = server_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    token = secrets.token_hex(24)
    inside = f"https://{_host(fabric[0])}:{API_SERVER_PORT}" if fabric else f"https://127.0.0.1:{port}"
    _write(paths.ca_certificate, ca_pem)
    _write(paths.server_certificate, server.public_bytes(serialization.Encoding.PEM))
    _write(paths.server_key, key_pem)
    _write(paths.token, (token + "\n").encode())
    outside = f"https://127.0.0.1:{port}"
    _write(paths.kubeconfig, _dump(kubeconfig(name, server=outside, ca=ca_pem, token=token)))
    _write(paths.node_kubeconfig, _dump(kubeconfig(name, server=inside, ca=ca_pem, token=token)))


def kubeconfig(name: str, *, server: str, ca: bytes, token: str) -> dict[str, Any]:
    """Return a kubeconfig with one cluster, user and context, all named after the lab."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": name,
                "cluster": {"server": server, "certificate-authority-data": base64.b64encode(ca).decode()},
            }
        ],
        "users": [{"name": f"clusterAdmin_{name}", "user": {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": f"clusterAdmin_{name}"}}],
        "current-context": name,
    }


def merge_kubeconfig(target: Path, addition: Path, *, overwrite: bool) -> None:
    """Merge a lab's kubeconfig into the user's, and make its context current, as ``az aks get-credentials`` does.

    Entries of the same name that differ are replaced only with ``overwrite``; raises ``UsageError`` otherwise, and if
    the target is no kubeconfig. The target is written whole or not at all.
    """
    new = yaml.safe_load(addition.read_text())
    merged = new
    if target.exists() and target.read_text().strip():
        merged = yaml.safe_load(target.read_text())
        if not isinstance(merged, dict):
            raise UsageError(f"{target} is not a kubeconfig; name another with --file, or move it away")
        for section in ("clusters", "users", "contexts"):
            merged[section] = _merged_section(merged.get(section) or [], new[section], target, overwrite=overwrite)
        merged["current-context"] = new["current-context"]
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = target.with_name(f"{target.name}.{os.getpid()}")
    _write(staged, _dump(merged))
    staged.replace(target)


def _merged_section(
    old: list[dict[str, Any]], new: list[dict[str, Any]], target: Path, *, overwrite: bool
) -> list[dict[str, Any]]:
    replaced = {entry["name"] for entry in new}
    for entry in old:
        if entry.get("name") in replaced and entry not in new and not overwrite:
            raise UsageError(
                f'{target} already has a different entry named "{entry["name"]}"; '
                "replace it with --overwrite-existing, or write elsewhere with --file"
            )
    return [entry for entry in old if entry.get("name") not in replaced] + new


def remove_from_kubeconfig(target: Path, addition: Path) -> bool:
    """Take a lab's entries out of the user's kubeconfig, if they are still the lab's own; tell whether any was."""
    if not (target.exists() and addition.exists()):
        return False
    config, own = yaml.safe_load(target.read_text()), yaml.safe_load(addition.read_text())
    if not isinstance(config, dict) or own["clusters"][0] not in (config.get("clusters") or []):
        return False
    for section in ("clusters", "users", "contexts"):
        config[section] = [entry for entry in config.get(section) or [] if entry not in own[section]]
    if config.get("current-context") == own["current-context"]:
        config["current-context"] = ""
    staged = target.with_name(f"{target.name}.{os.getpid()}")
    _write(staged, _dump(config))
    staged.replace(target)
    return True


def _certificate(
    common_name: str,
    key: ec.EllipticCurvePrivateKey,
    *,
    issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None,
    addresses: Sequence[Address] = (),
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + _VALID)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if issuer is None:
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        return builder.add_extension(usage, critical=True).sign(key, hashes.SHA256())
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in SERVICE_NAMES]
    names += [x509.IPAddress(address) for address in addresses]
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer[1].public_key())
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.add_extension(identifier, critical=False).sign(issuer[1], hashes.SHA256())


def _host(address: Address) -> str:
    return f"[{address}]" if address.version == 6 else str(address)


def _dump(config: dict[str, Any]) -> bytes:
    return yaml.safe_dump(config, sort_keys=False).encode()


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
