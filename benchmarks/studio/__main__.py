"""Take the screenshots of Studio that the documents show.

Run: python -m benchmarks.studio [--out docs/images/studio] [--data FOLDER] [--subject NAME] [--product LABEL]

Starts trainer, generator and Studio on free ports, drives a headless Chromium from dropped photos of a sample subject
to its pictures, and writes small WebP files. Takes some minutes on two cores. With `--data` what was learned in an
earlier run is used again, so that only the page is looked at anew.
"""

import argparse
import io
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from detex_client import GeneratorClient, TrainerClient
from detex_showroom import sample_subjects

REPOSITORY = Path(__file__).resolve().parents[2]
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
START_SECONDS = 240.0
# The newest pictures are of this scene, in the pose of this photo, and so the page is shown.
SHOWN_SCENE = "beach"
SHOWN_POSE = 1
LEARNING_MILLISECONDS = 1_800_000
DRAWING_MILLISECONDS = 600_000


def main() -> int:
    """Take them; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs" / "images" / "studio")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--subject", default="dotted-vase")
    parser.add_argument("--product", default="Dotted vase")
    options = parser.parse_args()
    browser = shutil.which(str(REPOSITORY / ".tools/bin/chromium")) or shutil.which("chromium")
    if browser is None:
        print("no Chromium: run `make tools`, or install it")
        return 1
    options.out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        data = options.data or Path(stack.enter_context(TemporaryDirectory(prefix="detex-studio-")))
        address = stack.enter_context(served(data))
        playwright = stack.enter_context(sync_playwright())
        chromium = playwright.chromium.launch(executable_path=browser, args=FLAGS)
        view: dict[str, Any] = {
            "locale": "en-GB",
            "viewport": {"width": 1280, "height": 860},
            "device_scale_factor": 1.5,
        }
        page = chromium.new_context(**view).new_page()
        page.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)
        page.goto(address)
        page.locator("h1").wait_for()
        if page.locator(".products a").count() == 0:
            learn(page, options.subject, options.product, options.out)
            draw(page, options.out)
        show(page, address, options.out)
        others(chromium, address, options.out)
        chromium.close()
    return 0


def learn(page: Page, subject_name: str, product: str, out: Path) -> None:
    """From dropped photos to the verdict."""
    subject = next(each for each in sample_subjects() if each.name == subject_name)
    page.get_by_role("link", name="Start with photos").click()
    page.locator("#files").set_input_files([photo.image_path for photo in subject.photos])
    page.get_by_role("button", name=subject.class_word, exact=True).click()
    page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")
    page.mouse.move(0, 0)
    shoot(page, out / "photos.webp")
    page.get_by_role("button", name="Find the product").click()
    expect(page.locator(".masks canvas")).to_have_count(len(subject.photos))
    shoot(page, out / "masks.webp")
    page.locator(".masks button").first.click()
    page.locator(".painter canvas").wait_for()
    shoot(page, out / "painter.webp")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("link", name="Looks right").click()
    page.get_by_label("Name of the product").fill(product)
    shoot(page, out / "name.webp")
    page.get_by_role("button", name="Start learning").click()
    page.locator(".strip li").nth(4).wait_for(timeout=LEARNING_MILLISECONDS)
    shoot(page, out / "learning.webp")
    page.get_by_role("link", name="Make pictures").wait_for(timeout=LEARNING_MILLISECONDS)
    shoot(page, out / "verdict.webp")
    page.get_by_role("link", name="Make pictures").click()


def draw(page: Page, out: Path) -> None:
    """Some orders of pictures."""
    for scene, count in (("wooden table", 2), ("meadow", 4), (SHOWN_SCENE, 4)):
        page.get_by_label(scene, exact=True).check(force=True)
        if scene == SHOWN_SCENE:
            page.locator("[data-borrow=pose]").nth(SHOWN_POSE).click()
        page.locator(f"[name=count][value='{count}']").check(force=True)
        before = page.locator(".pictures li").count()
        page.get_by_role("button", name="Make pictures").click()
        if before == 0:
            page.locator(".drawing img").first.wait_for(timeout=DRAWING_MILLISECONDS)
            shoot(page, out / "drawing.webp")
        expect(page.locator(".pictures li")).to_have_count(before + count, timeout=DRAWING_MILLISECONDS)
    for index in (0, 2, 5):
        page.locator(".pictures .heart").nth(index).click()


def show(page: Page, address: str, out: Path) -> None:
    """A product and its pictures, one of them large, and all products."""
    page.goto(address)
    page.locator(".products a").first.wait_for()
    shoot(page, out / "home.webp")
    page.locator(".products a").first.click()
    page.locator(".pictures img").first.wait_for()
    page.get_by_label(SHOWN_SCENE, exact=True).check(force=True)
    page.locator("[data-borrow=pose]").nth(SHOWN_POSE).click()
    page.mouse.move(0, 0)
    page.evaluate("window.scrollTo(0, 0)")
    shoot(page, out / "pictures.webp")
    page.locator(".pictures .open").first.click()
    page.locator(".viewer img").wait_for()
    shoot(page, out / "viewer.webp")


def others(chromium: Browser, address: str, out: Path) -> None:
    """The same in Japanese, in the dark, and on a phone."""
    views: dict[str, dict[str, Any]] = {
        "japanese": {"locale": "ja-JP", "viewport": {"width": 1280, "height": 860}},
        "dark": {"locale": "en-GB", "viewport": {"width": 1280, "height": 860}, "color_scheme": "dark"},
        "phone": {"locale": "ja-JP", "viewport": {"width": 390, "height": 844}, "device_scale_factor": 2},
    }
    for name, view in views.items():
        page = chromium.new_context(**view).new_page()
        page.goto(address)
        page.locator(".products a").first.click()
        page.locator(".pictures img").first.wait_for()
        shoot(page, out / f"{name}.webp")
        page.goto(f"{address}#/new")
        page.locator(".drop").wait_for()
        shoot(page, out / f"{name}-photos.webp")


def shoot(page: Page, path: Path) -> None:
    """Write what the window shows as WebP, when all pictures in it are there."""
    page.wait_for_load_state("networkidle") if not page.locator(".drawing, .learning").count() else None
    page.evaluate("Promise.all([...document.images].filter((i) => i.complete && i.src).map((i) => i.decode()))")
    with Image.open(io.BytesIO(page.screenshot())) as image:
        image.convert("RGB").save(path, "WEBP", quality=80, method=6)
    print(path.name, path.stat().st_size // 1024, "kB", flush=True)


@contextmanager
def served(data: Path) -> Iterator[str]:
    """Trainer, generator and Studio over one folder; the address of the page."""
    trainer, generator, studio = free_address(), free_address(), free_address()
    kept = {key: value for key, value in os.environ.items() if not key.startswith("DETEX_")}
    kept |= {"DETEX_STUDIO_DATA_FOLDER": str(data / "studio"), "DETEX_STUDIO_PREVIEWS": "10"}
    detex = [sys.executable, "-c", "from detex_client.cli import main; main()"]
    commands = [
        [*detex, "serve", "trainer", "--listen", trainer, "--metrics", "", "--data", str(data)],
        [*detex, "serve", "generator", "--listen", generator, "--metrics", "", "--data", str(data)],
        [*detex, "studio", "--listen", studio, "--trainer", trainer, "--generator", generator],
    ]
    data.mkdir(parents=True, exist_ok=True)
    processes = []
    try:
        with (data / "services.log").open("ab") as log:
            processes = [subprocess.Popen(command, env=kept, stdout=log, stderr=log) for command in commands]
        with TrainerClient(trainer) as client, GeneratorClient(generator) as other:
            client.wait_until_serving(START_SECONDS)
            other.wait_until_serving(START_SECONDS)
        wait_for(studio)
        yield f"http://{studio}/"
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(60)


def wait_for(address: str) -> None:
    """Wait until somebody listens there."""
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection((host, int(port)), 1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


def free_address() -> str:
    """A loopback address that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


if __name__ == "__main__":
    sys.exit(main())
