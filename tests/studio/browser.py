"""A real browser before Studio: pages that are watched, and what tests do with them."""

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from playwright.sync_api import Browser, Page, expect

if TYPE_CHECKING:
    from tests.studio.conftest import Studio

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]
LEARNING_MILLISECONDS = 120_000
expect.set_options(timeout=30_000)


def chromium() -> str | None:
    """The browser that `make tools` provides, or that the system has."""
    tool = Path(__file__).parents[2] / ".tools" / "bin" / "chromium"
    return str(tool) if tool.exists() else shutil.which("chromium") or shutil.which("google-chrome")


@contextmanager
def watched(browser: Browser, studio: "Studio", **view: Any) -> Iterator[Page]:
    """A page; fails on errors of scripts and on requests to anywhere else."""
    context = browser.new_context(**view)
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on(
        "request",
        lambda request: None if request.url.startswith((studio.address, "blob:")) else problems.append(request.url),
    )
    yield page
    context.close()
    assert problems == []


def drop(page: Page, selector: str, files: list[Path]) -> None:
    """Drop files as a hand does it."""
    listed = [[path.name, list(path.read_bytes())] for path in files]
    transfer = page.evaluate_handle(
        """(files) => {
          const transfer = new DataTransfer();
          for (const [name, bytes] of files)
            transfer.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
          return transfer;
        }""",
        listed,
    )
    page.dispatch_event(selector, "drop", {"dataTransfer": transfer})


def check_view(page: Page) -> None:
    """Nothing is wider than the screen, everything that takes input has a name, and texts can be told from the page."""
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), page.url
    nameless = page.evaluate(
        """[...document.querySelectorAll("main button, main a, main input, main canvas, main progress")].filter(
          (each) => each.checkVisibility() && !each.ariaLabel && !each.labels?.length && !each.textContent.trim()
        ).map((each) => each.outerHTML)"""
    )
    assert nameless == []
    texts = page.evaluate(
        """() => {
          const channel = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
          const luminance = (colour) => {
            const [r, g, b] = colour.match(/[\\d.]+/g).map((part) => channel(part / 255));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const page = luminance(getComputedStyle(document.body).backgroundColor);
          return [...document.querySelectorAll("h1, h2, .lead, .hint")].filter((each) => each.checkVisibility()).map(
            (each) => {
              const text = luminance(getComputedStyle(each).color);
              return [(Math.max(text, page) + 0.05) / (Math.min(text, page) + 0.05), each.textContent];
            });
        }"""
    )
    assert [text for contrast, text in texts if contrast < 4.5] == []  # WCAG 2.2, 1.4.3


def mask(studio: "Studio", set_id: str, index: int) -> Image.Image:
    answer = studio.send("GET", f"/api/sets/{set_id}/masks/{index}")
    return Image.open(io.BytesIO(answer.body)).convert("L")


def count(picture: Image.Image) -> int:
    return sum(picture.histogram()[128:])
