"""Credentials of the client: encrypted, rotated, never sent in the clear and never shown."""

import asyncio
import json
from pathlib import Path

import grpc
import pytest
import trustme
from typer.testing import CliRunner

from detex_client import BearerToken, DetexClientError, GeneratorClient, Tls
from detex_client.cli import options
from detex_client.cli.application import application
from detex_core.access.audit_log import AuditLog
from tests.core.running_server import running
from tests.core.test_access import OTHER_KEY, jwks, policy, token, write_certificate

__all__ = ["policy"]  # a fixture


def test_a_token_travels_encrypted_and_is_read_again(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    certificate, key = write_certificate(authority, tmp_path, "localhost")
    root = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(root)
    file = tmp_path / "token"
    file.write_text(f"{token()}\n")

    def calls(address: str) -> None:
        port = address.rpartition(":")[2]
        with GeneratorClient(f"localhost:{port}", tls=Tls(root), token=BearerToken(file=file)) as client:
            assert client.prefetch("whoami").base_model == "acme"
            policy.with_name("jwks.json").write_text(jwks(("two", OTHER_KEY)))
            with pytest.raises(DetexClientError) as refused:
                client.prefetch("whoami")
            assert (refused.value.code, refused.value.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INVALID")
            file.write_text(token(OTHER_KEY, "two"))
            assert client.prefetch("whoami").base_model == "acme"
        with GeneratorClient(f"localhost:{port}", "rival", tls=Tls(root), token=BearerToken(file=file)) as client:
            with pytest.raises(DetexClientError) as refused:
                client.prefetch("whoami")
            assert refused.value.reason == "OTHER_TENANT"
        # As the commands do.
        monkeypatch.setenv("DETEX_TOKEN_FILE", str(file))
        with options.open_generator(f"localhost:{port}", "default", False, root) as client:
            assert client.prefetch("whoami").base_model == "acme"

    async def scenario() -> None:
        tls = {"tls_certificate_file": certificate, "tls_key_file": key}
        async with running(access_policy_file=policy, **tls) as run:
            await asyncio.to_thread(calls, run.server.address)

    asyncio.run(scenario())


def test_tokens_are_not_sent_in_the_clear_nor_shown(tmp_path: Path) -> None:
    secret = token()
    with pytest.raises(DetexClientError) as refused:
        GeneratorClient("detex.example.com:50052", token=BearerToken(secret))
    assert refused.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert secret not in refused.value.message
    assert secret not in repr(BearerToken(secret))
    GeneratorClient("127.0.0.1:50052", token=BearerToken(secret)).close()
    missing = tmp_path / "token"
    for text in (None, "", "two words", "two\nlines", "äö"):
        if text is not None:
            missing.write_text(text)
        with pytest.raises(DetexClientError) as refused:
            BearerToken(file=missing)
        assert refused.value.code is grpc.StatusCode.INVALID_ARGUMENT


def test_the_audit_log_is_checked_by_a_command(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    log = AuditLog(file)
    for name in ("mug", "vase"):
        log.write({"concept": name})
    log.close()
    found = CliRunner().invoke(application, ["audit", "verify", str(file), "--json"])
    assert found.exit_code == 0
    assert json.loads(found.stdout)["entries"] == 2
    file.write_text(file.read_text().replace("mug", "cup"))
    found = CliRunner().invoke(application, ["audit", "verify", str(file)])
    assert found.exit_code == 1
    assert "line 1 was changed" in found.output
    assert CliRunner().invoke(application, ["audit", "verify", str(tmp_path / "none")]).exit_code == 1
