from pathlib import Path

import pytest
from PIL import Image

from detex_client import ConceptReference, DetexClientError
from detex_client.demo.contact_sheet import CAPTION_LINES, TILE, Section, Tile, _wrapped, contact_sheet
from detex_client.demo.output_folder import OutputFolder
from detex_client.demo.scenario import DrawingKind, drawings
from detex_client.demo.service_process import ServiceProcess
from detex_showroom import sample_subjects


@pytest.mark.parametrize("subject", sample_subjects(), ids=lambda subject: subject.name)
def test_drawings_show_what_the_photos_do_not(subject) -> None:  # type: ignore[no-untyped-def]
    wanted = drawings(subject, ConceptReference(subject.name), seed=7)
    kinds = [drawing.kind for drawing in wanted]
    assert kinds == [DrawingKind.SCENE] * 6 + [DrawingKind.RECOMBINATION] * 2 + [DrawingKind.OTHER_CLASS]
    assert [drawing.seed for drawing in wanted] == list(range(7, 16))
    assert len({drawing.prompt for drawing in wanted}) == 9
    for photo in subject.photos:
        assert not any(photo.scene in drawing.prompt for drawing in wanted[:6])
    for drawing in wanted[6:8]:
        pose, background = (int(part.split("]")[0]) for part in drawing.prompt.split(":")[2::2])
        assert subject.photos[pose].scene != subject.photos[background].scene
    assert f" {subject.class_word} " not in wanted[8].prompt


def test_contact_sheet_holds_every_tile() -> None:
    red, blue = (Image.new("RGB", size, colour) for size, colour in (((8, 8), "red"), ((16, 8), "blue")))
    sections = [Section("seven", [Tile(red, "a")] * 7), Section("one", [Tile(blue, "b " * 500)])]
    sheet = contact_sheet("title", "subtitle", sections)
    assert sheet.width == 1752
    colours = {colour: count for count, colour in sheet.getcolors(sheet.width * sheet.height) or []}
    assert colours[(255, 0, 0)] == 7 * TILE * TILE
    assert colours[(0, 0, 255)] == TILE * TILE // 2
    assert contact_sheet("title", "subtitle", sections[:1]).height < sheet.height


def test_captions_are_wrapped_and_cut() -> None:
    lines = _wrapped("a photo of a [my-very-long-name] with [my-very-long-name:pose:0] in a place far away " * 3)
    assert len(lines) == CAPTION_LINES
    assert lines[-1].endswith("…")
    assert _wrapped("short") == ["short"]


def test_folder_of_others_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.txt").write_text("ten years")
    with pytest.raises(DetexClientError, match="has other files"):
        OutputFolder(tmp_path)
    assert (tmp_path / "data" / "thesis.txt").read_text() == "ten years"


def test_folder_of_a_demo_is_emptied(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path / "new" / "demo")
    folder.data.mkdir()
    (folder.data / "jobs.db").touch()
    folder.summary.touch()
    again = OutputFolder(tmp_path / "new" / "demo")
    assert not again.data.exists()
    assert not again.summary.exists()


def test_service_that_ends_while_it_starts(tmp_path: Path) -> None:
    service = ServiceProcess("nonexistent", environment={}, log=tmp_path / "log")
    with service, pytest.raises(DetexClientError, match="The nonexistent exited with code 1 during startup"):
        service.wait_until_serving(lambda: False)
    assert "No module named detex_nonexistent" in service.log_tail()
    assert service.exit_code == 1
