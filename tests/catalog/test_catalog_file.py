"""Catalog files: what is read from them, and that everything wrong is told at once, by row and column."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import polars
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detex_catalog.sharding import Shard
from detex_catalog.table import output_names
from detex_catalog.table.catalog import Catalog
from detex_catalog.table.catalog_file import load_catalog
from detex_catalog.table.catalog_row import COLUMNS
from detex_catalog.table.faults import CatalogFaultsError
from tests.catalog.conftest import SAMPLES

SCENES = ["on a beach", "in the snow"]
PHOTOS = str(SAMPLES["green-mug"].photos[0].image_path.parent)


def load(folder: Path, text: str, name: str = "a.csv") -> Catalog:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return load_catalog(path)


def faults_of(folder: Path, text: str, name: str = "a.csv") -> list[tuple[int, str]]:
    with pytest.raises(CatalogFaultsError) as raised:
        load(folder, text, name)
    return [(fault.row, fault.column) for fault in raised.value.faults]


def test_every_format_says_the_same(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {
            "sku": "カップ-1",
            "concept": "cup",
            "photos": [PHOTOS],
            "class_word": "mug",
            "scenes": ["on a beach", "in the snow"],
        },
        {"sku": "B", "concept": "cup", "count": 2, "size": "64x128", "seed": 7, "guidance_scale": 2.5},
    ]
    cells = {name: {row["sku"]: row.get(name) for row in rows} for name in ("photos", "scenes")}
    table = io.StringIO(newline="")
    writer = csv.DictWriter(
        table, ["sku", "concept", "photos", "class_word", "scenes", "count", "size", "seed", "guidance_scale"]
    )
    writer.writeheader()
    for row in rows:
        joined = {name: "|".join(cells[name][row["sku"]] or []) for name in cells}
        writer.writerow(row | joined)
    (tmp_path / "a.csv").write_text("\ufeff" + table.getvalue(), encoding="utf-8")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    polars.DataFrame(rows).write_parquet(tmp_path / "a.parquet")
    found = [load_catalog(tmp_path / name) for name in ("a.csv", "a.jsonl", "a.parquet")]
    prints = [[(order.output, order.fingerprint) for order in catalog.pictures] for catalog in found]
    assert prints[0] == prints[1] == prints[2]
    assert [order.prompt for order in found[0].pictures[:2]] == [
        "a photo of a [cup] on a beach",
        "a photo of a [cup] in the snow",
    ]
    assert [(order.width, order.height, order.seed) for order in found[0].pictures[2:]] == [(64, 128, 7), (64, 128, 8)]
    assert found[0].pictures[0].output == "カップ-1/カップ-1-001.png"


def test_excel_of_japan_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("sku,concept,negative_prompt\nカップ,cup,ぼやけ\n".encode("cp932"))
    with pytest.raises(CatalogFaultsError, match="--encoding"):
        load_catalog(tmp_path / "a.csv")
    assert load_catalog(tmp_path / "a.csv", encoding="cp932").pictures[0].negative_prompt == "ぼやけ"


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    text = (
        "sku,concept,photos,class_word,template,scenes,count,size,seed,output,colour\n"
        "A,cup,,,,,0,100x100,-1,,red\n"
        "A,cup,,,no word,,,,,,\n"
        ",cup,,,,,,,,,\n"
        "C,Cup,,,,,,,,,\n"
        "D,,missing,mug,,,,,,,\n"
        "E,cup,,,,,,,,../../etc/passwd,\n"
        "F,cup,,,,,2,,,same,\n"
        "G,cup,,,,,,,,A/A-001,\n"
        "H,cup,,,[cup and {concept},,,,,,\n"
        f"I,own,{PHOTOS},,,,,,,,\n"
        "J,cup,,,a {concept},in snow,,,,,\n"
        "K,,,,,,,,,,\n"
    )
    assert faults_of(tmp_path, text) == [
        (2, "colour"),
        (2, "count"),
        (2, "seed"),
        (2, "size"),
        (3, "sku"),
        (3, "template"),
        (4, "sku"),
        (5, "concept"),
        (6, "photos"),
        (7, "output"),
        (8, "output"),
        (9, "output"),
        (10, "template"),
        (11, "class_word"),
        (12, "template"),
        (13, "concept"),
    ]


@pytest.mark.parametrize(
    ("name", "text", "place"),
    [
        ("a.txt", "sku\n", (0, "")),
        ("a.csv", "", (0, "")),
        ("a.csv", "sku,sku\nA,B\n", (1, "sku")),
        ("a.csv", 'sku,concept\n"A,cup\n', (2, "")),
        ("a.csv", "sku,concept\nA,cup,3\n", (2, "")),
        ("a.jsonl", '{"sku": "A", "sku": "B"}\n', (1, "")),
        ("a.jsonl", "[1]\n", (1, "")),
        ("a.jsonl", '{"sku": "A", "concept": "cup", "seed": NaN}\n', (1, "")),
        ("a.jsonl", '\n{"sku": "A", "concept": "cup", "count": true}\n', (2, "count")),
        ("a.jsonl", '{"sku": "A", "concept": "cup", "template": {"a": 1}}\n', (1, "template")),
        ("a.parquet", "no parquet", (0, "")),
    ],
)
def test_broken_files_are_refused(tmp_path: Path, name: str, text: str, place: tuple[int, str]) -> None:
    assert place in faults_of(tmp_path, text, name)


def test_a_concept_is_trained_in_one_way(tmp_path: Path) -> None:
    other = str(SAMPLES["red-clock"].photos[0].image_path.parent)
    text = f"sku,concept,photos,class_word\nA,cup,{PHOTOS},mug\nB,cup,{PHOTOS},mug\nC,cup,{other},mug\n"
    assert faults_of(tmp_path, text) == [(4, "photos")]


def test_words_that_a_training_will_not_give_are_refused(tmp_path: Path) -> None:
    rows = [f"A,cup,{PHOTOS},mug,a {{concept}} with {{concept:pose:3}}", "B,cup,,,a {concept} with {concept:pose:4}"]
    rows += ["C,cup,,,a {concept} in {concept:season:0}", "D,own,,,a {concept} with {concept:season:9}"]
    text = "sku,concept,photos,class_word,template\n" + "\n".join(rows) + "\n"
    assert faults_of(tmp_path, text) == [(3, "template"), (4, "template")]


def test_concepts_of_one_prompt_are_of_one_shard(tmp_path: Path) -> None:
    rows = [f"{name},{name},a {{concept}}" for name in "abcdefgh"] + [
        "x,a,{concept} beside [b]",
        "y,b,{concept} and [c]",
    ]
    catalog = load(tmp_path, "sku,concept,template\n" + "\n".join(rows) + "\n")
    assert catalog.pictures[-2].concepts == ("a", "b")
    parts = [Shard(index, 3).part(catalog) for index in range(3)]
    assert sorted(picture.output for part in parts for picture in part.pictures) == sorted(
        picture.output for picture in catalog.pictures
    )
    (together,) = (part for part in parts if "a" in part.concepts)
    assert {"a", "b", "c"} <= set(together.concepts)


def test_photos_are_looked_into(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.png").write_bytes((SAMPLES["green-mug"].photos[0].image_path).read_bytes()[:3000])
    (folder / "b.jpg").write_bytes(b"no picture")
    with pytest.raises(CatalogFaultsError) as raised:
        load(tmp_path, "sku,photos,class_word\nA,photos,mug\n")
    (fault,) = raised.value.faults
    assert (fault.row, fault.column) == (2, "photos")
    assert "a.png" in fault.message
    assert "b.jpg" in fault.message


def test_what_decides_a_picture_decides_its_fingerprint(tmp_path: Path) -> None:
    def fingerprint(cells: str) -> str:
        return load(tmp_path, f"sku,concept,template,seed,min_likeness,size\nA,{cells}\n").pictures[0].fingerprint

    first = fingerprint("cup,a {concept},1,,")
    assert fingerprint("cup,a {concept},1,0.5,") == first, "thresholds draw nothing anew"
    others = [fingerprint(cells) for cells in ("cup,the {concept},1,,", "cup,a {concept},2,,", "cup,a {concept},1,,64")]
    assert len({first, *others}) == 4


NAMES = st.sampled_from([*COLUMNS, "colour", ""])
CELLS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["cup", "A", "{concept}", "a {concept} {scene}", "64", "64x64", "../x", "1|2", "-1", "1e9", PHOTOS]
    ),
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | CELLS
VALUES = st.recursive(SCALARS, lambda each: st.lists(each, max_size=3), max_leaves=5)
UNTIDY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def loads_or_refuses(path: Path) -> None:
    """A file gives a catalog whose pictures are safe, or faults with a place; nothing else."""
    try:
        found = load_catalog(path)
    except CatalogFaultsError as error:
        told = error.faults
        found = None
    else:
        told = []
    if found is None:
        assert told
        assert all(fault.message and fault.row >= 0 for fault in told)
        return
    outputs = [output_names.identity(order.output) for order in found.pictures]
    assert len(set(outputs)) == len(outputs) > 0
    for order in found.pictures:
        path = (Path("/pictures") / order.output).resolve()
        assert path.is_relative_to("/pictures")
        assert path.suffix.lower() == ".png"
        assert f"[{order.concept}" in order.prompt
        order.request(order.seed, {"cup": "v"}).to_wire()


@UNTIDY
@given(st.lists(NAMES, max_size=6), st.lists(st.lists(CELLS, max_size=7), max_size=4))
def test_any_csv_is_read_or_refused(tmp_path: Path, heads: list[str], rows: list[list[str]]) -> None:
    table = io.StringIO(newline="")
    csv.writer(table).writerows([heads, *rows])
    (tmp_path / "a.csv").write_text(table.getvalue(), encoding="utf-8", errors="replace", newline="")
    loads_or_refuses(tmp_path / "a.csv")


@UNTIDY
@given(st.lists(st.dictionaries(NAMES, VALUES, max_size=6), max_size=4))
def test_any_json_lines_are_read_or_refused(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    loads_or_refuses(tmp_path / "a.jsonl")


@UNTIDY
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path: Path, data: bytes) -> None:
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        (tmp_path / name).write_bytes(data)
        loads_or_refuses(tmp_path / name)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60), st.text(max_size=20))
def test_names_stay_below_their_folder(pattern: str, sku: str) -> None:
    values = {"sku": sku, "concept": "c", "scene": "1", "number": "001"}
    try:
        name = output_names.expand(pattern, values)
    except ValueError:
        return
    assert (Path("/out") / name).resolve().is_relative_to("/out")
    assert not set('\\:*?"<>|\0') & set(name)
