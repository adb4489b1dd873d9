"""Studio before real services, in a browser and over HTTP; in one file, so that the services start once."""

import io
import json
import zipfile
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import Page, expect

from tests.studio.browser import LEARNING_MILLISECONDS, check_view, count, drop, mask
from tests.studio.conftest import PHOTOS, Services, Studio

pytestmark = pytest.mark.slow


def pictures_of(count: int) -> list[tuple[str, bytes]]:
    return [(path.name, path.read_bytes()) for path in PHOTOS[:count]]


@pytest.fixture(scope="module")
def learned(studio: Studio) -> dict[str, Any]:
    """A product that was learned through Studio, with the news of its job."""
    photos = studio.upload(pictures_of(3))
    assert photos.status == 201, photos.body
    body = {"training_set_id": photos.json()["training_set_id"], "label": "Green Mug №1", "quality": "fast"}
    answer = studio.send("POST", "/api/jobs", body | {"key": "a-key-of-this-test"})
    assert answer.status == 201, answer.body
    job = answer.json()
    again = studio.send("POST", "/api/jobs", body | {"key": "a-key-of-this-test"})
    assert again.json()["job_id"] == job["job_id"], "an order that is sent twice is one job"
    news = studio.news(f"/api/jobs/{job['job_id']}/news")
    return {"job": job, "news": news, "photos": photos.json(), "concept": job["concept"]}


def test_learning_is_told_and_judged(studio: Studio, learned: dict[str, Any]) -> None:
    states = [each["state"] for each in learned["news"] if each["event"] == "job"]
    assert states[-1] == "succeeded"
    assert any(each["event"] == "progress" and each["total_steps"] > 0 for each in learned["news"])
    previews = [each for each in learned["news"] if each["event"] == "preview"]
    assert previews
    verdict = studio.get(f"/api/products/{learned['concept']}/verdict")
    assert verdict["verdict"] in {"fit", "doubtful", "unfit"}
    assert all(finding["key"] for finding in verdict["findings"]), verdict
    report = studio.send("GET", f"/api/products/{learned['concept']}/report.png")
    assert Image.open(io.BytesIO(report.body)).format == "PNG"


def test_a_product_keeps_its_name_and_photos(studio: Studio, learned: dict[str, Any], services: Services) -> None:
    product = studio.get(f"/api/products/{learned['concept']}")
    assert product["label"] == "Green Mug №1"
    assert product["concept"].startswith("green-mug-no1-")
    assert product["words"] == {"pose": 3, "background": 3}
    assert product["photos"] == 3
    copy = studio.send("GET", f"/api/sets/{product['training_set_id']}/photos/2")
    assert Image.open(io.BytesIO(copy.body)).format == "WEBP"
    assert services.trainer.concept(learned["concept"]).class_word == "mug"
    listed = studio.get("/api/products")
    assert [each["label"] for each in listed["products"] if each["concept"] == learned["concept"]] == ["Green Mug №1"]
    times = {each["quality"]: each for each in studio.get("/api/qualities")["qualities"]}
    assert times["fast"]["steps"] < times["balanced"]["steps"] < times["best"]["steps"]
    assert 0 < times["fast"]["seconds"] < times["best"]["seconds"]


def order(studio: Studio, concept: str, **values: Any) -> list[dict[str, Any]]:
    answer = studio.send("POST", "/api/drawings", {"concept": concept, **values})
    assert answer.status == 201, answer.body
    followed = studio.send("GET", f"/api/drawings/{answer.json()['drawing_id']}/news")
    if followed.status == 404:  # it was done before anybody could look
        return studio.get(f"/api/products/{concept}/pictures")["pictures"]
    lines = [line.removeprefix("data: ") for line in followed.body.decode().splitlines() if line.startswith("data: {")]
    assert '"event": "error"' not in followed.body.decode()
    return [json.loads(line) for line in lines]


def enlarge(studio: Studio, picture_id: str) -> None:
    """A kept picture as a base model of usual size draws it: the tiny one's are smaller than what may be edited."""
    path = studio.folder / "default" / "pictures" / f"{picture_id}.png"
    with Image.open(path) as image:
        notes = PngInfo()
        notes.add_itxt("detex", image.text["detex"])  # type: ignore[attr-defined]
        image.resize((64, 64)).save(path, pnginfo=notes)


def test_pictures_are_drawn_kept_marked_and_deleted(studio: Studio, learned: dict[str, Any]) -> None:
    concept = learned["concept"]
    order(studio, concept, preset="beach", scene="in [soft] light", pose=1, background=None, count=2)
    first, second = studio.get(f"/api/products/{concept}/pictures")["pictures"]
    assert first["prompt"] == f"a photo of a [{concept}] with [{concept}:pose:1] on a beach, in \\[soft\\] light"
    enlarge(studio, first["picture_id"])
    order(studio, concept, background=0, count=1, variation_of=first["picture_id"])
    newest = studio.get(f"/api/products/{concept}/pictures")["pictures"][0]
    assert newest["prompt"] == f"a photo of a [{concept}] in [{concept}:background:0]"
    assert newest["choice"]["variation_of"] == first["picture_id"]

    download = studio.send("GET", f"/api/pictures/{first['picture_id']}.png?download=1")
    assert download.headers["content-disposition"].startswith(f'attachment; filename="{concept}-')
    with Image.open(io.BytesIO(download.body)) as image:
        assert json.loads(image.text["detex"])["prompt"] == first["prompt"]
    assert studio.send("GET", f"/api/products/{concept}/favourites.zip").status == 404
    marked = studio.send("PATCH", f"/api/pictures/{first['picture_id']}", {"favourite": True})
    assert marked.json()["favourite"] is True
    archive = zipfile.ZipFile(io.BytesIO(studio.send("GET", f"/api/products/{concept}/favourites.zip").body))
    assert [archive.read(name) for name in archive.namelist()] == [download.body]

    gone = studio.send("DELETE", f"/api/pictures/{second['picture_id']}")
    assert gone.json() == {"pictures": 1}
    assert studio.send("GET", f"/api/pictures/{second['picture_id']}.png").status == 404
    assert not (studio.folder / "default" / "pictures" / f"{second['picture_id']}.png").exists()


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"count": 0}, "count: must be 1 to 8, got 0"),
        ({"count": 99}, "count: must be 1 to 8, got 99"),
        ({"count": "4"}, "count: must be 1 to 8, got '4'"),
        ({"preset": "moon"}, "preset: must be empty or one of"),
        ({"scene": "x" * 301}, "scene: must be 0 to 300 characters"),
        ({"pose": -1}, "pose: must be 0 to 9999, got -1"),
        ({"pose": True}, "pose: must be 0 to 9999, got True"),
    ],
)
def test_orders_are_refused_by_field(
    studio: Studio, learned: dict[str, Any], values: dict[str, Any], field: str
) -> None:
    answer = studio.send("POST", "/api/drawings", {"concept": learned["concept"], **values})
    assert answer.status == 400
    assert field in answer.json()["message"]


def test_what_the_generator_refuses_is_told(studio: Studio, learned: dict[str, Any]) -> None:
    news = order(studio, learned["concept"], preset="beach", count=1, pose=None)
    assert news
    answer = studio.send("POST", "/api/drawings", {"concept": "nobody-knows", "preset": "beach", "count": 1})
    assert answer.status == 201
    followed = studio.send("GET", f"/api/drawings/{answer.json()['drawing_id']}/news")
    assert followed.status == 404 or b"CONCEPT_NOT_FOUND" in followed.body


def test_masks_are_shown_and_painted(studio: Studio) -> None:
    found = studio.upload(pictures_of(2)).json()
    path = f"/api/sets/{found['training_set_id']}/masks/1"
    mask = Image.open(io.BytesIO(studio.send("GET", path).body))
    photo = Image.open(io.BytesIO(studio.send("GET", path.replace("masks", "photos")).body))
    assert mask.size == photo.size
    painted = Image.new("L", photo.size)
    painted.paste(255, (0, 0, photo.width // 2, photo.height))
    buffer = io.BytesIO()
    painted.save(buffer, "PNG")
    answer = studio.send("PUT", path, buffer.getvalue())
    assert answer.status == 200, answer.body
    assert answer.json()["photos"][1]["mask_share"] == pytest.approx(0.5, abs=0.02)
    shown = Image.open(io.BytesIO(studio.send("GET", path).body))
    assert shown.getpixel((2, 2)) == 255
    assert shown.getpixel((photo.width - 3, 2)) == 0

    black = io.BytesIO()
    Image.new("L", photo.size).save(black, "PNG")
    assert studio.send("PUT", path, black.getvalue()).json()["reason"] == "EMPTY_MASK"
    assert studio.send("PUT", path, b"no picture").json()["reason"] == "INVALID_INPUT"
    gone = studio.send("DELETE", f"/api/sets/{found['training_set_id']}")
    assert gone.json()["copies"] == 2
    assert studio.send("GET", f"/api/sets/{found['training_set_id']}").json()["reason"] == "TRAINING_SET_NOT_FOUND"


def test_photos_are_refused_in_words(studio: Studio) -> None:
    one = studio.upload(pictures_of(1))
    assert (one.status, one.json()["reason"]) == (400, "PHOTO_COUNT")
    wrong = studio.upload([("../../etc/passwd.png", b"no picture"), *pictures_of(1)])
    assert (wrong.status, wrong.json()["reason"]) == (400, "NOT_A_PHOTO")
    assert wrong.json()["message"] == "passwd.png: must be a photo, got something else"
    kind = studio.upload(pictures_of(2), class_word="")
    assert "class_word: must be 1 to 64 characters" in kind.json()["message"]
    many = studio.upload(pictures_of(2) * 12)
    assert many.status == 400


def test_what_goes_with_a_product_is_told(studio: Studio, learned: dict[str, Any], services: Services) -> None:
    concept = learned["concept"]
    kept = len(studio.get(f"/api/products/{concept}/pictures")["pictures"])
    gone = studio.send("DELETE", f"/api/products/{concept}").json()
    assert gone["versions"] == 1
    assert gone["files"] >= 2
    assert gone["pictures"] == kept
    assert gone["photos"] == 3
    assert studio.send("GET", f"/api/products/{concept}").json()["reason"] == "CONCEPT_NOT_FOUND"
    assert all(each.reference.name != concept for each in services.trainer.concepts())
    assert not (studio.folder / "default" / "photos" / learned["photos"]["training_set_id"]).exists()


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
