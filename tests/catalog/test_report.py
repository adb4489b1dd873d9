"""The report page, the tables, the marks and the metrics of a run."""

import csv
import io
import json
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from detex_catalog.report.page import page_name, write_pages
from detex_catalog.report.results import Result, counts, write_results
from detex_catalog.report.run_metrics import RunMetrics
from detex_catalog.run.marks import Decision, Mark, read_marks
from detex_catalog.run.run_state import PictureStatus, RunState
from detex_catalog.sharding import Shard
from detex_catalog.table.catalog import Catalog
from detex_catalog.table.faults import CatalogFaultsError

HOSTILE = '"><script src="https://example.com/x.js"></script><img src=x onerror=alert(1)>{{ 7 * 7 }}'
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Elements of a page; tags must be closed in the order in which they were opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def result(output: str, status: PictureStatus, **values: Any) -> Result:
    likely: dict[str, Any] = {
        "sku": "A",
        "output": output,
        "status": status,
        "file": {"accepted": f"pictures/{output}", "review": f"review/{output}"}.get(status.value, ""),
        "sha256": "0123456789abcdef" * 4,
        "seed": 1,
        "tries": 1,
        "concept": "cup",
        "version": "v",
        "prompt": "a [cup]",
        "row": 2,
        "likeness": 0.5,
        "approved": False,
        "reasons": "",
    }
    unmeasured = dict.fromkeys(("colour", "structure", "contrast", "duplicate_distance", "unsafe"))
    return Result(**(likely | unmeasured | values))


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise((200, 100), 60).convert("RGB").save(path, "PNG")


def test_the_page_asks_no_server_and_runs_nothing_that_it_was_given(tmp_path: Path) -> None:
    picture(tmp_path / "pictures/a.png")
    picture(tmp_path / "review/b 1.png")
    results = [
        result("a.png", PictureStatus.ACCEPTED, sku=HOSTILE, prompt=HOSTILE),
        result("b 1.png", PictureStatus.REVIEW, reasons=HOSTILE, likeness=None),
        result("c.png", PictureStatus.FAILED, reasons="refused", sha256=""),
    ]
    (path,) = write_pages(results, tmp_path, tmp_path / "unfinished", title=HOSTILE)
    page = Page(path.read_text(encoding="utf-8"))
    addresses = [value or "" for _, found in page.elements for name, value in found.items() if name in {"src", "href"}]
    assert [address for address in addresses if ":" in address and not address.startswith("data:image/webp;")] == []
    assert Counter(tag for tag, _ in page.elements)["script"] == 1
    assert not any(name.startswith("on") for _, found in page.elements for name in found)
    assert page.text.count(HOSTILE) == 5
    cards = [found for tag, found in page.elements if tag == "article"]
    assert [card["data-status"] for card in cards] == ["review", "failed", "accepted"], "what wants a look comes first"
    assert Counter(found.get("data-mark") for tag, found in page.elements if tag == "button") == {
        None: 2,
        "approve": 1,
        "reject": 2,
    }
    assert "review/b%201.png" in addresses
    assert "default-src 'none'" in path.read_text(encoding="utf-8")
    for english, japanese in (("in review", "要確認"), ("Approve", "採用"), ("Reject", "却下")):
        assert english in page.text
        assert japanese in page.text


def test_many_pictures_make_several_pages(tmp_path: Path) -> None:
    results = [result(f"{number}.png", PictureStatus.OPEN) for number in range(1001)]
    paths = write_pages(results, tmp_path, tmp_path / "unfinished", title="many")
    assert [path.name for path in paths] == ["report.html", "report-2.html", "report-3.html"]
    assert [path.read_text().count("<article") for path in paths] == [500, 500, 1]
    assert 'link.download = "marks-2.csv"' in paths[1].read_text()
    write_pages(results[:1], tmp_path, tmp_path / "unfinished", title="few")
    assert sorted(path.name for path in tmp_path.glob("*.html")) == [page_name(1)]


def test_tables_hold_every_picture_and_no_formula(tmp_path: Path) -> None:
    results = [result("a.png", PictureStatus.ACCEPTED, sku="=HYPERLINK(1)"), result("b.png", PictureStatus.OPEN)]
    write_results(results, tmp_path, tmp_path / "unfinished")
    with (tmp_path / "results.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["output"], row["status"]) for row in rows] == [("a.png", "accepted"), ("b.png", "open")]
    assert rows[0]["sku"] == "'=HYPERLINK(1)"
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert lines[0]["sku"] == "=HYPERLINK(1)"
    assert counts(results) == {"open": 1, "accepted": 1, "review": 0, "failed": 0}


def test_marks_are_read_as_browsers_save_them(tmp_path: Path) -> None:
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerows([("output", "sha256", "mark"), ('a, "b".png', "0" * 16, "approve"), ("c.png", "1" * 16, "reject")])
    (tmp_path / "marks.csv").write_text("\ufeff" + table.getvalue(), encoding="utf-8")
    (tmp_path / "marks (1).csv").write_text(f"output,sha256,mark,note\nd.png,{'2' * 64},Reject,looks odd\ne.png,x,,\n")
    found = set(read_marks(tmp_path))
    assert found == {
        Mark('a, "b".png', "0" * 16, Decision.APPROVE),
        Mark("c.png", "1" * 16, Decision.REJECT),
        Mark("d.png", "2" * 64, Decision.REJECT),
    }


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("output,mark\n", (1, "")),
        ("output,sha256,mark\na.png,0000,approve\n", (2, "sha256")),
        (f"output,sha256,mark\na.png,{'0' * 16},delete\n", (2, "mark")),
        ('output,sha256,mark\n"a', (0, "")),
    ],
)
def test_wrong_marks_are_told(tmp_path: Path, text: str, place: tuple[int, str]) -> None:
    (tmp_path / "marks.csv").write_text(text)
    with pytest.raises(CatalogFaultsError) as raised:
        read_marks(tmp_path)
    (fault,) = raised.value.faults
    assert (fault.row, fault.column) == place
    assert "marks.csv" in fault.message


def test_metrics_are_documented_and_whole(tmp_path: Path) -> None:
    metrics = RunMetrics("night", Shard(1, 2))
    metrics.begin(1.0)
    metrics.update(Catalog(tmp_path / "night.csv", "", {}, ()), RunState(), None)
    metrics.end(2.0, 0)
    metrics.write(tmp_path / "night.prom")
    families = list(text_string_to_metric_families((tmp_path / "night.prom").read_text()))
    names = {family.name for family in families}
    assert len(names) == 7
    assert all(sample.labels["shard"] == "1" for family in families for sample in family.samples)
    document = (Path(__file__).resolve().parents[2] / "docs/catalog.md").read_text()
    assert [name for name in names if f"`{name}`" not in document] == []
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["night.prom"]
