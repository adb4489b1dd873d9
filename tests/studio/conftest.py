"""Studio before the real services, on a tiny base model of random weights, with which training takes seconds."""

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from detex_client import GeneratorClient, TrainerClient
from detex_showroom import sample_subjects
from detex_studio.server import StudioServer
from detex_studio.settings import StudioSettings
from tests.e2e.conftest import START_TIMEOUT_SECONDS, served
from tests.studio.browser import FLAGS, chromium, watched
from tests.tiny_models import write_tiny_model

PHOTOS = [photo.image_path for photo in next(each for each in sample_subjects() if each.name == "green-mug").photos]
NOWHERE = "127.0.0.1:9"


@dataclass(frozen=True)
class Answer:
    """What came back over HTTP."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Studio:
    """A Studio that serves."""

    port: int
    folder: Path

    @property
    def address(self) -> str:
        """Where its page is."""
        return f"http://127.0.0.1:{self.port}"

    def send(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """One request as the page sends it; `headers` win, and those of None are left out."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        sent: dict[str, str | None] = {"Origin": self.address, **(headers or {})}
        connection = HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, path, data, {name: value for name, value in sent.items() if value is not None})
            answer: HTTPResponse = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        """The JSON at a path."""
        answer = self.send("GET", path)
        assert answer.status == 200, answer.body
        return answer.json()

    def news(self, path: str) -> list[dict[str, Any]]:
        """All news of a stream, to its end."""
        body = self.send("GET", path).body.decode()
        assert body.endswith("event: end\ndata: {}\n\n"), body[-200:]
        lines = [line.removeprefix("data: ") for line in body.splitlines() if line.startswith("data: ")]
        return [json.loads(line) for line in lines[:-1]]

    def upload(self, photos: list[tuple[str, bytes]], class_word: str = "mug") -> Answer:
        """Drops photos, (name, bytes) each."""
        boundary = "photos-of-a-mug"
        parts = [f'--{boundary}\r\nContent-Disposition: form-data; name="class_word"\r\n\r\n{class_word}\r\n'.encode()]
        for name, data in photos:
            head = f'--{boundary}\r\nContent-Disposition: form-data; name="photos"; filename="{name}"\r\n\r\n'
            parts.append(head.encode() + data + b"\r\n")
        body = b"".join(parts) + f"--{boundary}--\r\n".encode()
        return self.send("POST", "/api/photos", body, {"Content-Type": f"multipart/form-data; boundary={boundary}"})


@contextmanager
def running_studio(folder: Path, **values: Any) -> Iterator[Studio]:
    """Studio in a thread of this process."""
    given = {"listen_address": "127.0.0.1:0", "trainer_address": NOWHERE, "generator_address": NOWHERE, **values}
    server = StudioServer(StudioSettings(data_folder=folder, **given))
    with server.listen() as listener:
        thread = threading.Thread(target=server.run, args=([listener],), name="studio")
        thread.start()
        try:
            yield Studio(listener.getsockname()[1], folder)
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


@dataclass(frozen=True)
class Services:
    """Both services with a client each."""

    trainer: TrainerClient
    generator: GeneratorClient
    addresses: dict[str, str]


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    folder = tmp_path_factory.mktemp("studio_services")
    with ExitStack() as stack:
        base_model = write_tiny_model(folder / "tiny")
        trainer_service = stack.enter_context(served("trainer", folder, base_model))
        generator_service = stack.enter_context(served("generator", folder, base_model))
        trainer = stack.enter_context(TrainerClient(trainer_service.address))
        generator = stack.enter_context(GeneratorClient(generator_service.address))
        trainer.wait_until_serving(START_TIMEOUT_SECONDS)
        generator.wait_until_serving(START_TIMEOUT_SECONDS)
        addresses = {"trainer_address": trainer_service.address, "generator_address": generator_service.address}
        yield Services(trainer, generator, addresses)


@pytest.fixture(scope="module")
def studio(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """Studio before the services; "fast" is a few steps."""
    folder = tmp_path_factory.mktemp("studio_data")
    with running_studio(folder, fast_share=0.02, **services.addresses) as running:
        yield running


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """Studio without services."""
    with running_studio(tmp_path_factory.mktemp("studio_alone")) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = chromium()
    if path is None:
        pytest.skip("no Chromium: `make tools` could not get one, and none is on PATH")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def page(browser: Browser, studio: Studio) -> Iterator[Page]:
    """An English page on a desk."""
    with watched(browser, studio, locale="en-GB", viewport={"width": 1280, "height": 900}) as page:
        yield page


@pytest.fixture
def phone(browser: Browser, studio: Studio) -> Iterator[Page]:
    """A Japanese page on a phone, in the dark."""
    view = {"viewport": {"width": 360, "height": 780}, "has_touch": True, "color_scheme": "dark"}
    with watched(browser, studio, locale="ja-JP", **view) as page:
        yield page
