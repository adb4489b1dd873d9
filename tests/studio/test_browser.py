"""From dropped photos to a downloaded picture, in a real browser."""

import io
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.studio.conftest import PHOTOS, Studio

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]
LEARNING_MILLISECONDS = 120_000
expect.set_options(timeout=30_000)


def chromium() -> str | None:
    """The browser that `make tools` provides, or that the system has."""
    tool = Path(__file__).parents[2] / ".tools" / "bin" / "chromium"
    return str(tool) if tool.exists() else shutil.which("chromium") or shutil.which("google-chrome")


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


@contextmanager
def watched(browser: Browser, studio: Studio, **view: Any) -> Iterator[Page]:
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


def test_from_drop_to_download(page: Page, studio: Studio) -> None:
    page.goto(studio.address)
    page.get_by_role("link", name="Start with photos").click()
    drop(page, ".drop", PHOTOS)
    expect(page.locator(".chosen li")).to_have_count(len(PHOTOS))
    page.get_by_role("button", name="mug", exact=True).click()
    page.get_by_role("button", name="Find the product").click()

    expect(page.get_by_role("heading", name="Is this your product?")).to_be_visible()
    frames = page.locator(".masks canvas")
    expect(frames).to_have_count(len(PHOTOS))
    set_id = page.url.rpartition("/")[2]
    before = mask(studio, set_id, 0)
    frames.first.click()
    canvas = page.locator(".painter canvas")
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 12, box["y"] + 12)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 12, box["y"] + 12, steps=4)
    page.mouse.up()
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".painter")).to_have_count(0)
    after = mask(studio, set_id, 0)
    assert count(after) > count(before)
    assert after.getpixel((after.width // 2, round(12 / box["height"] * after.height))) == 255

    page.get_by_role("link", name="Looks right").click()
    page.get_by_label("Name of the product").fill("青いマグ")
    page.get_by_label("Fast").check()
    page.get_by_role("button", name="Start learning").click()
    expect(page.get_by_role("link", name="Make pictures")).to_be_visible(timeout=LEARNING_MILLISECONDS)
    page.reload()  # the verdict is there again
    page.get_by_role("link", name="Make pictures").click()

    expect(page.get_by_role("heading", name="青いマグ")).to_be_visible()
    page.get_by_label("beach").check(force=True)
    page.get_by_role("button", name="Pose: Photo 2").click()
    page.get_by_label("2", exact=True).check(force=True)
    page.get_by_role("button", name="Make pictures").click()
    pictures = page.locator(".pictures li")
    expect(pictures).to_have_count(2, timeout=60_000)
    page.get_by_role("button", name="Favourite", exact=True).first.click()
    page.get_by_role("button", name="Favourites", exact=True).click()
    expect(pictures).to_have_count(1)
    page.reload()
    expect(pictures).to_have_count(2)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download", exact=True).first.click()
    with Image.open(download.value.path()) as image:
        provenance = json.loads(image.text["detex"])
    assert " on a beach" in json.dumps(provenance)
    assert ":pose:1]" in json.dumps(provenance)

    page.get_by_text("About this product").click()
    expect(page.locator(".about-verdict h3")).to_be_visible()
    page.get_by_role("button", name="Delete this product").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", name="is deleted")).to_be_visible()
    expect(page.get_by_text("2 pictures")).to_be_visible()
    page.get_by_role("link", name="To your products").click()
    expect(page.locator(".products li")).to_have_count(0)


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


def test_on_a_phone_in_japanese_by_keyboard(phone: Page, studio: Studio) -> None:
    phone.goto(studio.address)
    expect(phone.get_by_role("heading", name="あなたの商品の、新しい写真を")).to_be_visible()
    check_view(phone)
    phone.get_by_role("link", name="写真からはじめる").press("Enter")
    phone.locator("#files").set_input_files(PHOTOS[:2])
    check_view(phone)
    phone.get_by_role("button", name="商品を見つける").press("Enter")
    expect(phone.get_by_role("alert")).to_have_text("商品の種類を入力してください。")
    phone.locator("#kind").fill("mug")
    phone.locator("#kind").press("Enter")
    expect(phone.locator(".masks canvas")).to_have_count(2)
    check_view(phone)
    set_id = phone.url.rpartition("/")[2]
    before = count(mask(studio, set_id, 1))
    phone.locator(".masks button").nth(1).press("Enter")
    canvas = phone.locator(".painter canvas")
    canvas.press("e")
    for key in ("ArrowUp", " ", " ", "ArrowDown", " "):
        canvas.press(key)
    phone.get_by_role("button", name="保存").click()
    expect(phone.locator(".painter")).to_have_count(0)
    assert count(mask(studio, set_id, 1)) < before
    phone.get_by_role("link", name="これでよい").press("Enter")
    expect(phone.get_by_label("商品の名前")).to_be_visible()
    check_view(phone)
    phone.reload()
    phone.get_by_role("link", name="戻る").press("Enter")
    phone.get_by_role("button", name="はじめからやり直す").press("Enter")
    phone.get_by_role("button", name="削除する").press("Enter")
    expect(phone.get_by_role("heading", name="商品の写真を選ぶ")).to_be_visible()
    phone.get_by_role("link", name="English").click()
    expect(phone.get_by_role("heading", name="Photos of one product")).to_be_visible()


def mask(studio: Studio, set_id: str, index: int) -> Image.Image:
    answer = studio.send("GET", f"/api/sets/{set_id}/masks/{index}")
    return Image.open(io.BytesIO(answer.body)).convert("L")


def count(picture: Image.Image) -> int:
    return sum(picture.histogram()[128:])
