"""A real kube-apiserver on loopback, with its etcd and nothing else: no scheduler, no controllers, no kubelet.

The programs are taken from the folder that `KUBEBUILDER_ASSETS` names, as `setup-envtest` fills it, or from the path.
"""

import os
import secrets
import shutil
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

_START_SECONDS = 120.0


def find_program(name: str) -> str | None:
    """Path of `etcd` or `kube-apiserver`; None where there is none."""
    folder = os.environ.get("KUBEBUILDER_ASSETS", "")
    return shutil.which(name, path=folder) if folder else shutil.which(name)


def has_apiserver() -> bool:
    """Whether a server can be started."""
    return find_program("etcd") is not None and find_program("kube-apiserver") is not None


@contextmanager
def running_apiserver(folder: Path) -> Iterator[str]:
    """A server within a `with` block; gives the contents of a kubeconfig of its administrator.

    Args:
        folder: For its files; must be empty.
    """
    token = secrets.token_hex(16)
    (folder / "tokens.csv").write_text(f"{token},admin,admin,system:masters\n")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    (folder / "accounts.key").write_bytes(private)
    client, peer, port = _free_ports(3)
    with ExitStack() as stack:
        _start(
            stack,
            folder / "etcd.log",
            find_program("etcd"),
            f"--data-dir={folder / 'etcd'}",
            f"--listen-client-urls=http://127.0.0.1:{client}",
            f"--advertise-client-urls=http://127.0.0.1:{client}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster=default=http://127.0.0.1:{peer}",
        )
        server = _start(
            stack,
            folder / "apiserver.log",
            find_program("kube-apiserver"),
            f"--etcd-servers=http://127.0.0.1:{client}",
            f"--cert-dir={folder / 'certificates'}",
            "--bind-address=127.0.0.1",
            f"--secure-port={port}",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--disable-admission-plugins=ServiceAccount",
            "--authorization-mode=RBAC",
            f"--token-auth-file={folder / 'tokens.csv'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={folder / 'accounts.key'}",
            f"--service-account-signing-key-file={folder / 'accounts.key'}",
        )
        _wait_until_ready(server, port, token, folder / "apiserver.log")
        cluster = {"server": f"https://127.0.0.1:{port}", "insecure-skip-tls-verify": True}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
        yield yaml.safe_dump(document)


def _start(stack: ExitStack, log: Path, program: str | None, *arguments: str) -> "subprocess.Popen[bytes]":
    assert program is not None
    output = stack.enter_context(log.open("wb"))
    process = subprocess.Popen([program, *arguments], stdout=output, stderr=subprocess.STDOUT)

    def end() -> None:
        process.kill()
        process.wait()

    stack.callback(end)
    return process


def _wait_until_ready(server: "subprocess.Popen[bytes]", port: int, token: str, log: Path) -> None:
    context = ssl._create_unverified_context()
    request = urllib.request.Request(f"https://127.0.0.1:{port}/readyz", headers={"Authorization": f"Bearer {token}"})
    deadline = time.monotonic() + _START_SECONDS
    while True:
        if server.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"kube-apiserver did not start:\n{log.read_text()[-4_000:]}")
        try:
            with urllib.request.urlopen(request, timeout=5, context=context):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports: list[int] = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
