"""Who calls: tokens, certificates, roles and tenants, on a server with a policy, before anything is parsed."""

import asyncio
import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import jwt
import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from google.protobuf import descriptor_pool
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from detex_core.access import audit_log
from detex_core.access.policy import load_policy
from detex_core.access.roles import ROLE_OF_METHOD, Role
from detex_core.errors import DataLossError, FailedPreconditionError
from detex_protos.v1 import common_pb2, generator_pb2, generator_pb2_grpc, trainer_pb2, trainer_pb2_grpc
from tests.core.running_server import Running, details, running
from tests.core.sample_services import GENERATOR, TRAINER

ISSUER, AUDIENCE = "https://login.example.com", "detex"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
CURVE_KEY = ec.generate_private_key(ec.SECP256R1())


def jwks(*keys: tuple[str, Any]) -> str:
    entries = []
    for name, key in keys:
        algorithm: Any = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
        entry = json.loads(algorithm.to_jwk(key.public_key()))
        alg = "RS256" if algorithm is RSAAlgorithm else "ES256"
        entries.append(entry | {"kid": name, "use": "sig", "alg": alg})
    return json.dumps({"keys": entries})


def token(key: Any = KEY, kid: str | None = "one", algorithm: str = "RS256", **changes: Any) -> str:
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "shop", "exp": time.time() + 600} | changes
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, key, algorithm=algorithm, headers=None if kid is None else {"kid": kid})


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    (tmp_path / "jwks.json").write_text(jwks(("one", KEY), ("curve", CURVE_KEY)))
    content = {
        "issuers": [{"issuer": ISSUER, "audience": AUDIENCE, "keys_file": str(tmp_path / "jwks.json")}],
        "callers": [
            {"name": "shop", "issuer": ISSUER, "subject": "shop", "tenant": "acme", "roles": ["generate", "read"]},
            {"name": "rival", "issuer": ISSUER, "subject": "rival", "tenant": "rival", "roles": ["generate", "train"]},
            {"name": "crew", "issuer": ISSUER, "claims": {"groups": "crew"}, "tenant": "acme", "roles": ["admin"]},
            {"name": "nightly", "certificate": "nightly.acme.example", "tenant": "acme", "roles": ["train"]},
        ],
    }
    path = tmp_path / "policy.yaml"
    path.write_text(json.dumps(content))
    return path


@asynccontextmanager
async def guarded(policy: Path, **changes: Any) -> AsyncIterator[Running]:
    async with running(access_policy_file=policy, **changes) as run:
        yield run


def credentials(text: str | None, tenant: str = "") -> dict[str, Any]:
    pairs = [] if text is None else [("authorization", f"Bearer {text}")]
    return {"metadata": (*pairs, *([("detex-tenant", tenant)] if tenant else []))}


async def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value.code(), details(raised.value)[ErrorInfo].reason


def unsigned() -> str:
    def part(content: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()

    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "shop", "exp": time.time() + 600}
    return f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(claims)}."


def signed_with_the_public_key() -> str:
    """HS256 with the public key as the secret, which some verifiers fall for."""
    head, body, _ = unsigned().split(".")
    head = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "kid": "one"}).encode()).rstrip(b"=").decode()
    secret = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signature = hmac.new(secret, f"{head}.{body}".encode(), hashlib.sha256).digest()
    return f"{head}.{body}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


BAD_TOKENS: dict[str, tuple[Callable[[], str | None], str]] = {
    "none at all": (lambda: None, "CREDENTIALS_MISSING"),
    "expired": (lambda: token(exp=time.time() - 60), "TOKEN_EXPIRED"),
    "not yet valid": (lambda: token(nbf=time.time() + 600), "TOKEN_INVALID"),
    "without an end": (lambda: token(exp=None), "TOKEN_INVALID"),
    "without a subject": (lambda: token(sub=None), "TOKEN_INVALID"),
    "of another issuer": (lambda: token(iss="https://elsewhere.example.com"), "TOKEN_INVALID"),
    "for another audience": (lambda: token(aud="other"), "TOKEN_INVALID"),
    "of another key": (lambda: token(OTHER_KEY), "TOKEN_INVALID"),
    "of a key that is not published": (lambda: token(OTHER_KEY, kid="two"), "TOKEN_INVALID"),
    "with a key of another kind": (lambda: token(KEY, kid="curve"), "TOKEN_INVALID"),
    "unsigned": (unsigned, "TOKEN_INVALID"),
    "signed with the public key": (signed_with_the_public_key, "TOKEN_INVALID"),
    "cut": (lambda: token()[:-9], "TOKEN_INVALID"),
    "no token": (lambda: "hello", "TOKEN_INVALID"),
    "too long": (lambda: "x" * 7_900, "TOKEN_INVALID"),
}


@pytest.mark.parametrize("kind", BAD_TOKENS)
def test_bad_tokens_are_refused(policy: Path, kind: str) -> None:
    make, reason = BAD_TOKENS[kind]

    async def scenario() -> None:
        async with guarded(policy) as run:
            found = await refusal(run.prefetch("mug", **credentials(make())))
            assert found == (grpc.StatusCode.UNAUTHENTICATED, reason)

    asyncio.run(scenario())


def test_good_tokens_are_let_in_for_their_tenant(policy: Path) -> None:
    async def scenario() -> None:
        async with guarded(policy) as run:
            for good in (token(), token(CURVE_KEY, "curve", "ES256"), token(aud=[AUDIENCE, "more"])):
                answer = await run.prefetch("whoami", **credentials(good))
                assert answer.concept.base_model == "acme"
            answer = await run.prefetch("whoami", **credentials(token(sub="rival"), "rival"))
            assert answer.concept.base_model == "rival"
            # An admin acts for the tenant that it names.
            crew = token(sub="anna", groups=["staff", "crew"])
            assert (await run.prefetch("whoami", **credentials(crew, "rival"))).concept.base_model == "rival"

    asyncio.run(scenario())


def methods() -> list[tuple[str, Any]]:
    pool = descriptor_pool.Default()
    return [(service, method) for service in (GENERATOR, TRAINER) for method in pool.FindServiceByName(service).methods]


def test_every_method_has_a_role() -> None:
    assert {f"{service}/{method.name}" for service, method in methods()} == set(ROLE_OF_METHOD)


async def called(run: Running, service: str, method: Any, **options: Any) -> None:
    """Call any method with an empty message, whatever it answers."""
    stub = run.generator if service == GENERATOR else run.trainer
    module: Any = generator_pb2 if service == GENERATOR else trainer_pb2
    request = getattr(module, method.input_type.name)()
    call = getattr(stub, method.name)
    argument = iter([request]) if method.client_streaming else request
    answer = call(argument, timeout=10, **options)
    if method.server_streaming:
        async for _ in answer:
            pass
    else:
        await answer


def test_no_method_crosses_tenants_or_lacks_its_role(policy: Path) -> None:
    async def scenario() -> None:
        async with guarded(policy) as run:
            for service, method in methods():
                needed = ROLE_OF_METHOD[f"{service}/{method.name}"]
                assert await refusal(called(run, service, method)) == (
                    grpc.StatusCode.UNAUTHENTICATED,
                    "CREDENTIALS_MISSING",
                )
                subject, lacks = ("rival", needed is Role.READ) if needed is not Role.TRAIN else ("shop", True)
                own = {"rival": "rival", "shop": "acme"}[subject]
                other = {"rival": "acme", "shop": "rival"}[subject]
                mine = token(sub=subject)
                expected = (grpc.StatusCode.PERMISSION_DENIED, "ROLE_MISSING" if lacks else "OTHER_TENANT")
                assert await refusal(called(run, service, method, **credentials(mine, other))) == expected
                if lacks:
                    assert await refusal(called(run, service, method, **credentials(mine, own))) == expected
            unknown = await refusal(run.prefetch("mug", **credentials(token(sub="nobody"))))
            assert unknown == (grpc.StatusCode.PERMISSION_DENIED, "CALLER_UNKNOWN")

    asyncio.run(scenario())


def test_nothing_is_parsed_of_who_may_not_call(policy: Path) -> None:
    async def scenario() -> None:
        async with guarded(policy) as run, grpc.aio.insecure_channel(run.server.address) as channel:
            call = channel.unary_unary(f"/{GENERATOR}/PrefetchConcept")
            assert await refusal(call(b"\xff\xff no message", timeout=10)) == (
                grpc.StatusCode.UNAUTHENTICATED,
                "CREDENTIALS_MISSING",
            )
            mine = credentials(token())
            assert (await refusal(call(b"\xff\xff no message", timeout=10, **mine)))[0] is (
                grpc.StatusCode.INVALID_ARGUMENT
            )
            assert run.handlers.begun.is_set() is False

    asyncio.run(scenario())


def test_health_is_public_and_reflection_is_not(policy: Path) -> None:
    async def scenario() -> None:
        async with guarded(policy) as run:
            await run.health.Check(health_pb2.HealthCheckRequest(), timeout=10)
            request = reflection_pb2.ServerReflectionRequest(list_services="")
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                async for _ in run.reflection.ServerReflectionInfo(iter([request]), timeout=10):
                    pass
            assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
            shown = [
                each
                async for each in run.reflection.ServerReflectionInfo(
                    iter([request]), timeout=10, **credentials(token())
                )
            ]
            assert shown

    asyncio.run(scenario())


def test_policy_and_keys_follow_their_files(policy: Path) -> None:
    async def scenario() -> None:
        async with guarded(policy) as run:
            mine = token(OTHER_KEY, "two")
            assert (await refusal(run.prefetch("whoami", **credentials(mine))))[1] == "TOKEN_INVALID"
            replace(policy.with_name("jwks.json"), jwks(("two", OTHER_KEY)))
            assert (await run.prefetch("whoami", **credentials(mine))).concept.base_model == "acme"
            assert (await refusal(run.prefetch("whoami", **credentials(token(jti="new")))))[1] == "TOKEN_INVALID"
            changed = json.loads(policy.read_text())
            changed["callers"][0]["tenant"] = "newname"
            replace(policy, json.dumps(changed))
            assert (await run.prefetch("whoami", **credentials(mine))).concept.base_model == "newname"
            # What cannot be used is not taken over, and nobody is let in by it.
            replace(policy, "callers: [")
            assert (await run.prefetch("whoami", **credentials(mine))).concept.base_model == "newname"
            assert (await refusal(run.prefetch("whoami")))[1] == "CREDENTIALS_MISSING"

    asyncio.run(scenario())


@contextmanager
def published(keys: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Serves the last of `keys` over HTTP on this machine; gives the URL and what was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = keys[-1].encode()
            self.send_response(200 if body else 503)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/keys", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_keys_behind_a_url_are_kept_and_their_loss_is_told(policy: Path) -> None:
    keys = [""]

    async def scenario() -> None:
        with published(keys) as (url, asked):
            content = json.loads(policy.read_text())
            content["issuers"][0] = {"issuer": ISSUER, "audience": AUDIENCE, "keys_url": url}
            policy.write_text(json.dumps(content))
            async with guarded(policy) as run:
                found = await refusal(run.prefetch("mug", **credentials(token())))
                assert found == (grpc.StatusCode.UNAVAILABLE, "KEYS_UNAVAILABLE")
                keys.append(jwks(("one", KEY)))
                for number in range(3):
                    mine = credentials(token(jti=str(number)))
                    assert (await run.prefetch("whoami", **mine)).concept.base_model == "acme"
                assert len(asked) == 2
                # Tokens with unknown keys do not become as many requests to the issuer.
                for number in range(5):
                    other = credentials(token(OTHER_KEY, "two", jti=str(number)))
                    assert (await refusal(run.prefetch("mug", **other)))[1] == "TOKEN_INVALID"
                assert len(asked) <= 3

    asyncio.run(scenario())


def replace(path: Path, text: str) -> None:
    """As deployments do: the new file takes the place of the old one at once."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def write_certificate(authority: trustme.CA, folder: Path, name: str) -> tuple[Path, Path]:
    issued = authority.issue_cert(name, common_name=name)
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    replace(certificate, "".join(part.bytes().decode() for part in issued.cert_chain_pems))
    replace(key, issued.private_key_pem.bytes().decode())
    return certificate, key


@asynccontextmanager
async def secure(address: str, authority: trustme.CA, client: tuple[Path, Path] | None = None) -> AsyncIterator[Any]:
    key, chain = (None, None) if client is None else (client[1].read_bytes(), client[0].read_bytes())
    shown = grpc.ssl_channel_credentials(authority.cert_pem.bytes(), key, chain)
    # A channel of its own for each handshake.
    options = [("grpc.ssl_target_name_override", "localhost"), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(address, shown, options) as channel:
        yield generator_pb2_grpc.GeneratorServiceStub(channel), trainer_pb2_grpc.TrainerServiceStub(channel)


def test_client_certificates_and_renewal(policy: Path, authority: trustme.CA, tmp_path: Path) -> None:
    certificate, key = write_certificate(authority, tmp_path, "localhost")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    client = write_certificate(authority, tmp_path, "nightly.acme.example")
    stranger = write_certificate(authority, tmp_path, "stranger.example")
    prefetch = generator_pb2.PrefetchConceptRequest(reference=common_pb2.ConceptReference(name="whoami"))

    async def scenario() -> None:
        tls = {
            "tls_certificate_file": certificate,
            "tls_key_file": key,
            "tls_client_authority_file": tmp_path / "ca.pem",
        }
        async with guarded(policy, **tls) as run:
            async with secure(run.server.address, authority, client) as (generator, trainer):
                # It may train, and not draw.
                chunks = iter([trainer_pb2.UploadTrainingSetRequest(chunk=b"abc")])
                uploaded = await trainer.UploadTrainingSet(chunks, timeout=10)
                assert uploaded.training_set.training_set_id == "acme/3"
                assert (await refusal(generator.PrefetchConcept(prefetch, timeout=10)))[1] == "ROLE_MISSING"
                # A token counts before a certificate.
                answer = await generator.PrefetchConcept(prefetch, timeout=10, **credentials(token()))
                assert answer.concept.base_model == "acme"
            async with secure(run.server.address, authority, stranger) as (generator, _):
                assert (await refusal(generator.PrefetchConcept(prefetch, timeout=10)))[1] == "CALLER_UNKNOWN"
            async with secure(run.server.address, authority) as (generator, _):
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await generator.PrefetchConcept(prefetch, timeout=10, **credentials(token()))
                assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
            before = run.value("detex_certificate_expiry_timestamp_seconds")
            assert before is not None
            assert before > time.time()
            other = trustme.CA()
            write_certificate(other, tmp_path, "localhost")
            async with secure(run.server.address, other, client) as (generator, _):
                answer = await generator.PrefetchConcept(prefetch, timeout=10, **credentials(token()))
                assert answer.concept.base_model == "acme"
            async with secure(run.server.address, authority, client) as (generator, _):
                with pytest.raises(grpc.aio.AioRpcError):
                    await generator.PrefetchConcept(prefetch, timeout=10, **credentials(token()))

    asyncio.run(scenario())


def test_a_network_is_not_served_by_accident(policy: Path, authority: trustme.CA, tmp_path: Path) -> None:
    certificate, key = write_certificate(authority, tmp_path, "localhost")
    tls = {"tls_certificate_file": certificate, "tls_key_file": key}

    async def opened(**changes: Any) -> None:
        async with running(listen_address="0.0.0.0:0", **changes):
            pass

    for missing in ({}, tls, {"access_policy_file": policy}):
        with pytest.raises(FailedPreconditionError, match="can be reached from the network without") as caught:
            asyncio.run(opened(**missing))
        assert caught.value.reason == "INSECURE"
    asyncio.run(opened(insecure=True))
    asyncio.run(opened(access_policy_file=policy, **tls))


BAD_POLICIES = {
    "callers: []": "callers: ",
    "issuers: [{issuer: a, audience: b, keys_url: 'http://far.example/keys'}]\ncallers: []": "must be https",
    "issuers: [{issuer: a, audience: b, keys_file: k, algorithms: [HS256]}]": "issuers.0.algorithms.0",
    "issuers: [{issuer: a, audience: b, keys_file: k, algorithms: [none]}]": "issuers.0.algorithms.0",
    "callers: [{name: a, issuer: b, subject: c, tenant: t, roles: [read]}]": "must be one of issuers",
    "callers: [{name: a, certificate: b, tenant: T!, roles: [read]}]": "callers.0.tenant",
    "callers: [{name: a, certificate: b, tenant: t, roles: [rule]}]": "callers.0.roles",
    "callers: [{name: a, certificate: b, tenant: t, roles: [read], role: x}]": "callers.0.role",
    "callers: [{name: a, issuer: b, tenant: t, roles: [read]}]": "give subject or claims",
    "]": "neither YAML nor JSON",
    "- a": "the file: ",
}


@pytest.mark.parametrize("text", BAD_POLICIES)
def test_faults_of_a_policy_are_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    with pytest.raises(FailedPreconditionError) as caught:
        load_policy(path)
    assert BAD_POLICIES[text] in caught.value.message
    assert caught.value.reason == "ACCESS_POLICY_UNUSABLE"


def test_the_audit_log_tells_who_did_what_and_is_chained(policy: Path, tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"

    async def scenario() -> None:
        async with guarded(policy, audit_log_file=log) as run:
            await run.prefetch("whoami", **credentials(token()))
            await refusal(run.prefetch("mug", **credentials(token(sub="rival"), "acme")))
            await refusal(run.prefetch("mug", **credentials(token(sub="nobody"))))
            await refusal(run.prefetch("mug"))
            await run.health.Check(health_pb2.HealthCheckRequest(), timeout=10)

    asyncio.run(scenario())
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    told = [(e["caller"], e["subject"], e["tenant"], e.get("concept"), e["outcome"], e["reason"]) for e in entries]
    assert told == [
        ("shop", "shop", "acme", "whoami", "OK", ""),
        ("rival", "rival", "rival", None, "PERMISSION_DENIED", "OTHER_TENANT"),
        ("", "nobody", "", None, "PERMISSION_DENIED", "CALLER_UNKNOWN"),
        ("", "", "", None, "UNAUTHENTICATED", "CREDENTIALS_MISSING"),
    ]
    assert {e["method"] for e in entries} == {f"{GENERATOR}/PrefetchConcept"}
    assert "Bearer" not in log.read_text()
    whole = audit_log.verify(log)
    assert (whole.lines, whole.last_hash) == (4, entries[-1]["hash"])
    assert log.stat().st_mode & 0o077 == 0

    lines = log.read_text().splitlines(keepends=True)
    for broken, where in (
        ([lines[0].replace("shop", "else"), *lines[1:]], "line 1 was changed"),
        ([lines[0], *lines[2:]], "line 2 does not follow"),
        ([lines[1], lines[0], *lines[2:]], "line 1 does not follow"),
        ([*lines, "{\n"], "line 5 is no entry"),
    ):
        log.write_text("".join(broken))
        with pytest.raises(DataLossError, match=where):
            audit_log.verify(log)
    log.write_text("".join(lines[:2]))
    assert audit_log.verify(log).lines == 2
    with pytest.raises(DataLossError, match="entries were cut off"):
        audit_log.verify(log, whole.last_hash)
