"""What the page says: both languages, and the trainer's sentences in them."""

import re
import string
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detex_client import ConceptReference
from detex_core.prompt import CONCEPT_NAMES
from detex_studio.learning import Quality
from detex_studio.messages import CATALOGS, language_of
from detex_studio.photos import file_name
from detex_studio.plain_words import finding, warning
from detex_studio.product_names import concept_name
from detex_studio.scenes import SCENES, Choice, prompt_of

PAGE = Path(__file__).parents[2] / "services/studio/detex_studio/page"
KEYS = set(CATALOGS["en"])


def placeholders(text: str) -> list[str]:
    return sorted(name for _, name, _, _ in string.Formatter().parse(text) if name)


def test_both_languages_say_the_same_things() -> None:
    assert set(CATALOGS) == {"en", "ja"}
    for key in KEYS | set(CATALOGS["ja"]):
        english, japanese = CATALOGS["en"][key], CATALOGS["ja"][key]
        assert english.strip()
        assert japanese.strip()
        assert placeholders(english) == placeholders(japanese), key


def test_every_text_of_the_page_is_there_and_none_is_spare() -> None:
    paths = [path for path in PAGE.iterdir() if path.suffix in {".js", ".html"}]
    sources = {path.name: path.read_text(encoding="utf-8") for path in paths}
    asked = set(re.findall(r"text\.(\w+)", sources["index.html"]))
    mentioned, begins = set(asked), set()
    for text in sources.values():
        asked |= set(re.findall(r"""\bsay(?:Or)?\("(\w+)\"""", text))
        mentioned |= set(re.findall(r'"(\w+)"', text))
        begins |= set(re.findall(r"\bsay(?:Or)?\(`(\w+_)\$\{", text))
    assert asked - KEYS == set()
    assert {begin for begin in begins if not any(key.startswith(begin) for key in KEYS)} == set()
    assert {key for key in KEYS - mentioned if not key.startswith(tuple(begins))} == set()
    assert {f"scene_{scene}" for scene in SCENES} <= KEYS
    assert {f"quality_{quality}" for quality in Quality} <= KEYS


@pytest.mark.parametrize(
    ("chosen", "accepted", "language"),
    [
        ("", "ja,en-US;q=0.9", "ja"),
        ("", "en-US,ja;q=0.9", "en"),
        ("", "fr, ja;q=0.4, en;q=0.2", "ja"),
        ("ja", "en", "ja"),
        ("xx", "", "en"),
        ("", "ja;q=zero,;;,", "en"),
        ("", "ja;q=0", "en"),
    ],
)
def test_language_is_the_reader_s(chosen: str, accepted: str, language: str) -> None:
    assert language_of(chosen, accepted) == language


def test_all_findings_of_the_trainer_have_words() -> None:
    from detex_trainer.report.findings import Observations, find

    good = Observations(
        after={"subject_share": 0.3, "subject_attention_on_subject_alone": 0.9},
        background_similarity=0.0,
        delta_share=0.01,
        photos=4,
        class_word="mug",
        class_word_gain=0.1,
        subject_gain=0.2,
        surroundings_alike=False,
        learns_attributes=True,
    )
    assert find(good) == ()
    worse = [
        replace(good, photos=1),
        replace(good, photos=2),
        replace(good, surroundings_alike=True),
        replace(good, after={"subject_share": 0.01, "subject_attention_on_subject_alone": 0.9}),
        replace(good, class_word_gain=-0.2),
        replace(good, subject_gain=-0.1),
        replace(good, subject_gain=0.01),
        replace(good, after={"subject_share": 0.3, "subject_attention_on_subject_alone": 0.3}),
        replace(good, background_similarity=0.9),
        replace(good, background_similarity=0.5, learns_attributes=False),
        replace(good, delta_share=0.5),
    ]
    keys = set()
    for observed in worse:
        (found,) = find(observed)
        keys.add(finding(found.text).key)
    assert {f"finding_{key}" for key in keys} == {key for key in KEYS if key.startswith("finding_")}


def test_all_warnings_of_the_trainer_have_words() -> None:
    from detex_trainer.domain.training_set_record import MaskSource, PhotoRecord
    from detex_trainer.intake.look import PhotoLook
    from detex_trainer.intake.warnings import training_set_warnings

    def photo(index: int, **values: object) -> PhotoRecord:
        sha256 = f"{index:064x}"
        usual = {"width": 600, "height": 600, "sha256": sha256, "picture_sha256": sha256, "mask_sha256": sha256}
        usual |= {
            "mask_source": MaskSource.UPLOADED,
            "mask_share": 0.3,
            "caption": "",
            "file_name": f"a, {index} (b).jpg",
        }
        return PhotoRecord.model_validate({"photo_index": index, **usual, **values})

    def said(photos: list[PhotoRecord], looks: tuple[PhotoLook, ...] = ()) -> dict[str, tuple[int, ...]]:
        found = [warning(text) for text in training_set_warnings(photos, 512, looks)]
        return {each.key: each.photos for each in found}

    one, two = photo(0), photo(1)
    surroundings = np.full(216, 1 / 216, np.float32)
    look = PhotoLook(0.1, 0, surroundings)
    found_itself = {"mask_source": MaskSource.SEGMENTER}
    seen = [
        (said([one]), {"one_photo": ()}),
        (said([one, two]), {}),
        (said([one, photo(1, sha256=one.sha256)]), {"same_file": (0, 1)}),
        (said([photo(0, **found_itself), two, photo(2, file_name="", **found_itself)]), {"masks_found": (0, 2)}),
        (said([one, photo(1, mask_sha256=None, mask_share=0, **found_itself)]), {"nothing_found": (1,)}),
        (said([one, photo(1, width=300, height=400)]), {"small": (1,)}),
        (said([one, photo(1, width=2000)]), {"narrow": (1,)}),
        (said([one, photo(1, mask_share=0.01)]), {"mask_small": (1,)}),
        (said([one, photo(1, mask_share=0.99)]), {"mask_large": (1,)}),
        (
            said([one, two], (replace(look, surroundings=None), replace(look, blur=0.9, fingerprint=2**64 - 1))),
            {"blurred": (1,)},
        ),
        (said([one, two], (replace(look, surroundings=None), look)), {"nearly_same": (0, 1)}),
        (said([one, two], (look, replace(look, fingerprint=2**64 - 1))), {"one_background": ()}),
    ]
    for found, expected in seen:
        assert found == expected
    keys = {f"warning_{key}" for found, _ in seen for key in found if key != "masks_found"}
    assert keys == {key for key in KEYS if key.startswith("warning_")}
    assert warning("Something new.").key == ""


@given(st.text(min_size=1, max_size=60), st.text(min_size=8, max_size=64))
def test_every_product_gets_a_name_that_a_concept_may_have(label: str, key: str) -> None:
    name = concept_name(label, key)
    assert CONCEPT_NAMES.is_name(name)
    assert concept_name(label, key) == name


@given(st.text(max_size=200))
def test_file_names_are_no_paths(sent: str) -> None:
    name = file_name(sent)
    assert "/" not in name
    assert "\\" not in name
    assert name.strip(".") == name.lstrip(".").rstrip(".") or not name.startswith(".")
    assert name not in {".", ".."}
    assert len(name) <= 80


def test_prompts_are_put_together() -> None:
    mug = ConceptReference("mug")
    assert prompt_of(mug, Choice()) == "a photo of a [mug]"
    assert prompt_of(mug, Choice("on a beach")) == "a photo of a [mug] on a beach"
    assert prompt_of(mug, Choice("", 1, 0)) == "a photo of a [mug] with [mug:pose:1] in [mug:background:0]"
    assert prompt_of(mug, Choice("at night", None, 2)) == "a photo of a [mug] in [mug:background:2], at night"
