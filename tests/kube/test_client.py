# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ringfence.errors import ClusterError, UsageError
from ringfence.kube import oneshot
from ringfence.kube.client import Client, Patience
from ringfence.kube.config import ClusterAccess
from ringfence.kube.testing import ApiServer

PODS = "/api/v1/pods"
QUICK = Patience(connect=2, answer=5, longest_wait=0.01)


def pod(name: str) -> dict[str, Any]:
    """Return an object."""
    return {"metadata": {"namespace": "demo", "name": name}}


async def by_client(access: ClusterAccess, path: str) -> bytes:
    """GET with the asynchronous client."""
    async with Client(access, patience=QUICK) as client:
        return await client.get_bytes(path)


async def by_oneshot(access: ClusterAccess, path: str) -> bytes:
    """GET with the synchronous one, in a thread (the server lives in this one)."""
    return await asyncio.to_thread(oneshot.get, access, path)


BOTH = pytest.mark.parametrize("get", [by_client, by_oneshot], ids=["client", "oneshot"])
Get = Callable[[ClusterAccess, str], Any]


@dataclass
class Issued:
    """A certificate with its key, both as objects and as PEM."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The key."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def issue(name: str, issuer: Issued | None = None, *, alternative: list[x509.GeneralName] | None = None) -> Issued:
    """Make a certificate: an authority without an issuer, else one signed by it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if alternative:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternative), critical=False)
    return Issued(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)


def server_context(directory: Path, authority: Issued, server: Issued, *, ask: bool = False) -> ssl.SSLContext:
    """Make the server's side of TLS; ``ask`` demands a client certificate of the same authority."""
    file = directory / "server.pem"
    file.write_bytes(server.pem + server.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    if ask:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=authority.pem.decode())
    return context


LOOPBACK = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]


@BOTH
async def test_refusal_carries_code_reason_and_message(get: Get) -> None:
    """A Status becomes a ClusterError with the server's own words."""
    async with ApiServer().serving() as server:
        with pytest.raises(ClusterError, match="refused: NotFound") as caught:
            await get(ClusterAccess(server=server.url), "/api/v1/none")

    assert (caught.value.code, caught.value.reason) == (404, "NotFound")


@BOTH
async def test_server_that_is_not_there_is_one_sentence(get: Get) -> None:
    """Nobody listening: code 0, the address and the cause."""
    async with ApiServer().serving() as server:
        url = server.url
    with pytest.raises(ClusterError, match=f"cannot reach the API server {url}: ") as caught:
        await get(ClusterAccess(server=url), PODS)

    assert caught.value.code == 0
    assert "\n" not in str(caught.value)


@BOTH
async def test_tls_trusts_the_given_authority_only(get: Get, tmp_path: Path) -> None:
    """The cluster's CA verifies; another CA, and the machine's own trust, do not; skipping is possible."""
    authority, stranger = issue("ca"), issue("stranger")
    tls = server_context(tmp_path, authority, issue("server", authority, alternative=list(LOOPBACK)))
    server = ApiServer()
    server.put(PODS, pod("a"))
    async with server.serving(tls):
        assert b'"demo"' in await get(ClusterAccess(server=server.url, ca=authority.pem), PODS)
        assert b'"demo"' in await get(ClusterAccess(server=server.url, insecure=True), PODS)
        for wrong in (stranger.pem, None):
            with pytest.raises(ClusterError, match=r"its certificate is not trusted \(.*\); check the kubeconfig's CA"):
                await get(ClusterAccess(server=server.url, ca=wrong), PODS)
        with pytest.raises(UsageError, match="is not PEM"):
            await get(ClusterAccess(server=server.url, ca=b"nonsense"), PODS)


@BOTH
async def test_tls_server_name_replaces_the_address(get: Get, tmp_path: Path) -> None:
    """A certificate for a name only is accepted under tls-server-name and refused without."""
    authority = issue("ca")
    tls = server_context(tmp_path, authority, issue("server", authority, alternative=[x509.DNSName("api.internal")]))
    server = ApiServer()
    server.put(PODS, pod("a"))
    async with server.serving(tls):
        access = ClusterAccess(server=server.url, ca=authority.pem, tls_server_name="api.internal")
        assert b'"demo"' in await get(access, PODS)
        with pytest.raises(ClusterError, match=r"127\.0\.0\.1"):
            await get(ClusterAccess(server=server.url, ca=authority.pem), PODS)


@BOTH
async def test_client_certificate_is_shown(get: Get, tmp_path: Path) -> None:
    """A server that demands a certificate gets it; from files as well as inline."""
    authority = issue("ca")
    me = issue("me", authority)
    tls = server_context(tmp_path, authority, issue("server", authority, alternative=list(LOOPBACK)), ask=True)
    (tmp_path / "me.crt").write_bytes(me.pem)
    (tmp_path / "me.key").write_bytes(me.key_pem)
    server = ApiServer()
    server.put(PODS, pod("a"))
    async with server.serving(tls):
        inline = ClusterAccess(server=server.url, ca=authority.pem, certificate=me.pem, key=me.key_pem)
        files = ClusterAccess(
            server=server.url, ca=authority.pem, certificate=tmp_path / "me.crt", key=tmp_path / "me.key"
        )
        assert b'"demo"' in await get(inline, PODS)
        assert b'"demo"' in await get(files, PODS)
        with pytest.raises(ClusterError):
            await get(ClusterAccess(server=server.url, ca=authority.pem), PODS)


@BOTH
async def test_rotated_token_is_read_again_on_401(get: Get, tmp_path: Path) -> None:
    """A token file that changed is read again when the server refuses the old token."""
    file = tmp_path / "token"
    file.write_text("old")
    server = ApiServer(tokens={"old"})
    server.put(PODS, pod("a"))
    async with server.serving():
        access = ClusterAccess(server=server.url, token_file=file)
        assert b'"demo"' in await get(access, PODS)
        if get is by_client:
            async with Client(access) as client:
                await client.get(PODS)
                file.write_text("new")
                server.tokens = {"new"}
                assert await client.get(PODS)
        else:
            connection = oneshot.Connection(access)
            await asyncio.to_thread(connection.get, PODS)
            file.write_text("new")
            server.tokens = {"new"}
            assert await asyncio.to_thread(connection.get, PODS)
            connection.close()
        server.tokens = {"another"}
        with pytest.raises(ClusterError) as caught:
            await get(access, PODS)

    assert caught.value.code == 401


async def test_429_is_obeyed_and_sent_again_for_every_method() -> None:
    """The server said that it did nothing, so even a create is sent again, after Retry-After."""
    server = ApiServer()
    async with server.serving(), Client(ClusterAccess(server=server.url), patience=QUICK) as client:
        server.refuse(429, times=2, Retry_After="3")
        created = await client.create(PODS, pod("a"))
        server.refuse(429, times=QUICK.tries)
        with pytest.raises(ClusterError) as caught:
            await client.get(PODS)

    assert created["metadata"]["name"] == "a"
    assert caught.value.code == 429
    assert [request.split()[0] for request in server.requests] == ["POST"] * 3 + ["GET"] * QUICK.tries


async def test_other_errors_are_not_sent_again() -> None:
    """A 500 may have happened after the work was done: it is reported, once."""
    server = ApiServer()
    async with server.serving(), Client(ClusterAccess(server=server.url), patience=QUICK) as client:
        server.refuse(500)
        with pytest.raises(ClusterError) as caught:
            await client.create(PODS, pod("a"))

    assert caught.value.code == 500
    assert len(server.requests) == 1


async def test_impersonation_headers_go_with_every_request() -> None:
    """The kubeconfig's as and as-groups are sent."""
    server = ApiServer()
    server.put(PODS, pod("a"))
    async with server.serving():
        headers = (("Impersonate-User", "jane"), ("Impersonate-Group", "ops"))
        await by_client(ClusterAccess(server=server.url, headers=headers), PODS)
        await by_oneshot(ClusterAccess(server=server.url, headers=headers), PODS)

    for seen in server.headers:
        assert seen["Impersonate-User"] == "jane"
        assert seen["Impersonate-Group"] == "ops"


async def test_oneshot_lists_page_by_page() -> None:
    """Every object of a long collection comes, over one connection."""
    server = ApiServer()
    for number in range(1100):
        server.put(PODS, pod(f"p{number}"))

    def names(access: ClusterAccess) -> int:
        with oneshot.Connection(access) as connection:
            return len(list(connection.items(PODS)))

    async with server.serving():
        assert await asyncio.to_thread(names, ClusterAccess(server=server.url)) == 1100

    assert len(server.requests) == 3
