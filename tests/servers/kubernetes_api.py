"""The part of the Kubernetes API that runs Jobs, with pods as child processes of the test.

Manifests are checked against the schemas of a real cluster, and a pod is a real process that is told to stop and killed
as a kubelet does. It serves tests of what stands on the API; how a cluster schedules is beyond it.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlparse

import kubernetes_validate
import yaml

_VERSION = kubernetes_validate.latest_version()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


class Pod:
    """A pod whose container is a child process."""

    def __init__(self, name: str, job: dict[str, Any], secrets: dict[str, dict[str, str]]) -> None:
        self.name = name
        self.job_name = job["metadata"]["name"]
        self.spec = job["spec"]["template"]["spec"]
        self.labels = job["spec"]["template"]["metadata"]["labels"] | {"job-name": self.job_name}
        self.created = _now()
        self.log: list[bytes] = []
        self.written = threading.Condition()
        self.ended = False
        self.deleted = False
        (container,) = self.spec["containers"]
        variables = {}
        for each in container["env"]:
            reference = each.get("valueFrom", {}).get("secretKeyRef")
            variables[each["name"]] = secrets[reference["name"]][reference["key"]] if reference else each["value"]
        program, *arguments = container["command"]
        self.process = subprocess.Popen(
            [sys.executable if program == "python" else program, *arguments],
            env=os.environ | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        threading.Thread(target=self._collect, daemon=True).start()

    def _collect(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self.written:
                self.log.append(f"{_now()} ".encode() + line)
                self.written.notify_all()
        self.process.wait()
        self.process.stdout.close()
        with self.written:
            self.ended = True
            self.written.notify_all()

    def stop(self, grace_seconds: float) -> None:
        """Delete it: SIGTERM, and SIGKILL after the grace time."""
        self.deleted = True
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        timer = threading.Timer(grace_seconds, self.kill)
        timer.daemon = True
        timer.start()

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def lines(self) -> Iterator[bytes]:
        """The log from its begin to the end of the pod."""
        position = 0
        while True:
            with self.written:
                self.written.wait_for(lambda: len(self.log) > position or self.ended)  # noqa: B023 - called at once
                if position == len(self.log):
                    return
                new = self.log[position:]
            yield from new
            position += len(new)

    def exit_code(self) -> int:
        code = self.process.returncode
        return 128 - code if code < 0 else code

    def document(self) -> dict[str, Any]:
        state: dict[str, Any] = {"running": {"startedAt": self.created}}
        phase = "Running"
        if self.ended:
            phase = "Failed" if self.exit_code() else "Succeeded"
            reason = "Error" if self.exit_code() else "Completed"
            state = {"terminated": {"exitCode": self.exit_code(), "reason": reason}}
        status = {
            "name": "worker",
            "image": self.spec["containers"][0]["image"],
            "imageID": "",
            "ready": not self.ended,
            "restartCount": 0,
            "state": state,
        }
        return {
            "metadata": {"name": self.name, "labels": self.labels, "creationTimestamp": self.created},
            "spec": self.spec,
            "status": {"phase": phase, "containerStatuses": [status]},
        }


class KubernetesServer:
    """The API on loopback.

    Attributes:
        secrets: Secrets of the namespace.
        failing: Status with which every call fails; 0 for none.
        manifests: All Jobs that were ever made.
    """

    def __init__(self) -> None:
        self.secrets: dict[str, dict[str, str]] = {}
        self.failing = 0
        self.manifests: list[dict[str, Any]] = []
        self._jobs: dict[str, dict[str, Any]] = {}
        self._pods: list[Pod] = []
        self._lock = threading.RLock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    @property
    def kubeconfig(self) -> str:
        """Contents of a file that leads here."""
        address = f"http://127.0.0.1:{self._http.server_port}"
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": address}}],
            "users": [{"name": "test", "user": {"token": "none"}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
        return yaml.safe_dump(document)

    def close(self) -> None:
        for pod in self._pods:
            pod.kill()
        self._http.shutdown()
        self._http.server_close()

    def pod(self, name: str) -> Pod | None:
        with self._lock:
            return next((pod for pod in self._pods if pod.name == name), None)

    def running_pods(self) -> list[Pod]:
        return [pod for pod in self._pods if not pod.ended]

    def call(
        self, method: str, kind: str, name: str, query: dict[str, str], body: dict[str, Any]
    ) -> tuple[int, dict[str, Any]]:
        """Status and answer of a call."""
        with self._lock:
            self._pods = [pod for pod in self._pods if not (pod.deleted and pod.ended)]
            if self.failing:
                return self.failing, {"message": "the API is on fire"}
            if kind == "pods":
                return self._call_pods(method, name, query)
            if method == "POST":
                return self._create(body)
            if name not in self._jobs:
                return 404, {"message": f'jobs.batch "{name}" not found'}
            if method == "PATCH":
                self._jobs[name]["metadata"]["annotations"] |= body["metadata"]["annotations"]
            if method == "DELETE":
                del self._jobs[name]
                for pod in self._pods:
                    if pod.job_name == name:
                        pod.stop(pod.spec["terminationGracePeriodSeconds"])
                return 200, {}
            return 200, self._document(name)

    def _create(self, manifest: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        name = manifest["metadata"]["name"]
        if name in self._jobs:
            return 409, {"message": f'jobs.batch "{name}" already exists'}
        try:
            kubernetes_validate.validate(manifest, _VERSION, strict=True)
        except kubernetes_validate.ValidationError as error:
            return 422, {"message": str(error)}
        manifest["metadata"]["creationTimestamp"] = _now()
        self._jobs[name] = manifest
        self.manifests.append(manifest)
        self._pods.append(Pod(f"{name}-{time.monotonic_ns()}", manifest, self.secrets))
        return 201, self._document(name)

    def _document(self, name: str) -> dict[str, Any]:
        ended = [pod for pod in self._pods if pod.job_name == name and pod.ended]
        conditions = [{"type": "Failed" if pod.exit_code() else "Complete", "status": "True"} for pod in ended[-1:]]
        return self._jobs[name] | {"status": {"conditions": conditions}}

    def _call_pods(self, method: str, name: str, query: dict[str, str]) -> tuple[int, dict[str, Any]]:
        if method == "DELETE":
            for pod in self._pods:
                if pod.name == name:
                    pod.deleted = True
                    pod.kill()
            return 200, {}
        key, _, value = query["labelSelector"].partition("=")
        return 200, {"items": [pod.document() for pod in self._pods if pod.labels.get(key) == value]}


def _handler(server: KubernetesServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def _answer(self, status: int, document: dict[str, Any]) -> None:
            data = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _handle(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            url = urlparse(self.path)
            query = {key: values[0] for key, values in parse_qs(url.query).items()}
            parts = url.path.strip("/").split("/")
            if parts[-1] == "log":
                self._log(parts[-2])
                return
            kind = "jobs" if "jobs" in parts else "pods"
            name = parts[-1] if parts[-1] != kind else ""
            self._answer(*server.call(self.command, kind, name, query, json.loads(data) if data else {}))

        def _log(self, name: str) -> None:
            pod = server.pod(name)
            if pod is None:
                self._answer(404, {"message": "no such pod"})
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            with suppress(BrokenPipeError, ConnectionResetError):
                for line in pod.lines():
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
                    self.wfile.flush()
                self.wfile.write(b"0\r\n\r\n")

        do_GET = do_POST = do_PATCH = do_DELETE = _handle  # noqa: N815 - named by the library

    return Handler
