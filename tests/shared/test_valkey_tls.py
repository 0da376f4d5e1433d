"""Valkey over TLS, and Sentinels that want a password."""

import asyncio
import os
import shutil
import subprocess

import pytest

from fastgrey.errors import EngineError
from fastgrey.shared.engine import Write
from fastgrey.shared.open import engine_from_url
from shared import redis_server
from shared.conftest import opened

NOW = 1_700_000_000
PASSWORD = "s3cret-of-the-engine"
PATIENT = 60.0


def openssl(place, *words):
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("no openssl here, which makes the certificates")
    subprocess.run([program, *words], cwd=place, check=True, capture_output=True, timeout=120)


def certificates(place, name):
    """Who signs, and a server's certificate for that name or address."""
    openssl(place, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
            "-subj", "/CN=test", "-keyout", "ca.key", "-out", "ca.crt")
    openssl(place, "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=server",
            "-keyout", "server.key", "-out", "server.csr")
    (place / "names").write_text(f"subjectAltName={name}\n")
    openssl(place, "x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days",
            "30", "-extfile", "names", "-out", "server.crt")


def written(url):
    """Write a record over that URL and read it; EngineError."""
    async def run():
        async with opened(engine_from_url(url, timeout=PATIENT)) as (engine,):
            slots = [("client", os.urandom(16))]
            assert await engine.swap(slots, [Write(0, 0, NOW, 60)])
            return await engine.fetch(slots)

    return asyncio.run(run())


@pytest.mark.parametrize(("names", "ca", "says"), [
    ("IP:127.0.0.1", True, None),
    # Signed by somebody whom the system does not know, and for another name.
    ("IP:127.0.0.1", False, "certificate in certificate chain"),
    ("DNS:other.example", True, "IP address mismatch"),
])
def test_certificates(names, ca, says):
    with redis_server.servers({"tls": True}) as (server,):
        certificates(server.place, names)
        server.settings |= {"tls-cert-file": server.place / "server.crt", "tls-key-file": server.place / "server.key",
                            "tls-ca-cert-file": server.place / "ca.crt", "tls-auth-clients": "no"}
        server.start()
        url = server.url + (f"?ca={server.place}/ca.crt" if ca else "")
        if says is None:
            assert written(url) == [NOW]
            return
        with pytest.raises(EngineError) as caught:
            written(url)
        line = str(caught.value)
        assert says in line and "\n" not in line and "?ca=FILE" in line


def test_a_file_of_signers_that_is_not_there():
    with pytest.raises(EngineError) as caught:
        written("valkeys://127.0.0.1?ca=/nowhere/ca.crt")
    assert "No such file" in str(caught.value)


def test_sentinels_with_a_password():
    with redis_server.watched(password=PASSWORD) as watched:
        for sentinel in watched.sentinels:
            sentinel.ask("ACL", "SETUSER", "default", f">{PASSWORD}")
        assert written(watched.url) == [NOW]
        with pytest.raises(EngineError, match="no Sentinel answers"):
            written(watched.url.replace(PASSWORD, "another"))
