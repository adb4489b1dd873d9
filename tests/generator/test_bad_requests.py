"""Wrong requests: the status, the field and the sentence of each, and that the service goes on serving."""

from pathlib import Path
from typing import Any

import grpc
import pytest

from detex_core.artifact import CONCEPT_FILE, StoredManifest
from detex_core.object_store import FolderStore
from detex_diffusion.base_model import BaseModel
from detex_protos.v1.generator_pb2 import PrefetchConceptRequest
from tests.generator.published_concepts import publish, random_concept
from tests.generator.running_generator import RunningGenerator, refusal_of

LANGUAGE = r"text with [concept], [concept:attribute:photo] (photo index from 0), or \[ and \] for literal brackets"
OF_CONCEPTS = "a concept name is 1 to 63 of a-z, 0-9 and hyphens, beginning with a letter"
PLAIN = {"prompt": "a mug"}

NOT_BLANK = ("''", "a prompt of 1 to 10,000 characters, not all blank")
CHARACTERS = ("10,001 characters", "at most 10,000 characters")
TOKENS = "at most 75 tokens, including the words of concepts and their nouns"
GUIDANCE = "a number from 0 to 50"
SOLVERS = (
    "one of SOLVER_UNSPECIFIED, SOLVER_DDIM, SOLVER_EULER, SOLVER_DPM_SOLVER_PP_2M, SOLVER_EULER_ANCESTRAL, "
    "SOLVER_LCM, SOLVER_TCD"
)
VERSION = "a published version such as 20260131T120000Z-0123abcd, or empty for the newest"

# What is wrong, the request, and by field what was given and what is accepted.
INVALID: list[tuple[str, dict[str, Any], dict[str, tuple[str, str]]]] = [
    ("empty prompt", {}, {"prompt": NOT_BLANK}),
    ("blank prompt", {"prompt": " \n"}, {"prompt": (r"' \n'", NOT_BLANK[1])}),
    ("endless prompt", {"prompt": "a" * 10_001}, {"prompt": CHARACTERS}),
    ("endless negative prompt", PLAIN | {"negative_prompt": "a" * 10_001}, {"negative_prompt": CHARACTERS}),
    ("too many tokens", {"prompt": "a " * 5_000}, {"prompt": ("5,000 tokens", TOKENS)}),
    ("negative tokens", PLAIN | {"negative_prompt": "a " * 80}, {"negative_prompt": ("80 tokens", TOKENS)}),
    ("open bracket", {"prompt": "a [mug on"}, {"prompt": ("an unmatched '[' at character 2", LANGUAGE)}),
    (
        "no word",
        {"prompt": "a [My Mug]"},
        {"prompt": (f"[My Mug], where 'M' is not allowed; {OF_CONCEPTS}", LANGUAGE)},
    ),
    (
        "no attribute",
        {"prompt": "[my-mug:colour:0]"},
        {"prompt": ("[my-mug:colour:0]", "an attribute of 'my-mug' (background, pose)")},
    ),
    ("no photo", {"prompt": "[my-mug:pose:3]"}, {"prompt": ("[my-mug:pose:3]", "a word with photo 0 to 2")}),
    ("no steps", PLAIN | {"steps": 0}, {"steps": ("0", "1 to 500")}),
    ("many steps", PLAIN | {"steps": 501}, {"steps": ("501", "1 to 500")}),
    ("guidance NaN", PLAIN | {"guidance_scale": float("nan")}, {"guidance_scale": ("nan", GUIDANCE)}),
    ("guidance infinite", PLAIN | {"guidance_scale": float("inf")}, {"guidance_scale": ("inf", GUIDANCE)}),
    ("guidance negative", PLAIN | {"guidance_scale": -0.5}, {"guidance_scale": ("-0.5", GUIDANCE)}),
    ("guidance high", PLAIN | {"guidance_scale": 50.1}, {"guidance_scale": ("50.1", GUIDANCE)}),
    ("odd width", PLAIN | {"width": 20}, {"width": ("20", "a multiple of 8")}),
    ("odd height", PLAIN | {"height": 1}, {"height": ("1", "a multiple of 8")}),
    (
        "too large",
        PLAIN | {"width": 4096, "height": 264},
        {"width": ("4096 with height 264", "at most 1,048,576 pixels in an image")},
    ),
    ("many images", PLAIN | {"count": 65}, {"count": ("65", "1 to 64")}),
    (
        "seed at the end",
        PLAIN | {"seed": 2**32 - 1, "count": 2},
        {"seed": ("4294967295", "0 to 2^32 - 2 (image i takes seed + i)")},
    ),
    ("unknown solver", PLAIN | {"solver": 77}, {"solver": ("77", SOLVERS)}),
    (
        "version of nothing",
        PLAIN | {"concept_versions": {"my-mug": ""}},
        {"concept_versions.my-mug": ("one that no prompt names", "a concept of a prompt (there is none)")},
    ),
    (
        "no version",
        {"prompt": "[my-mug]", "concept_versions": {"my-mug": "newest"}},
        {"concept_versions.my-mug": ("'newest'", VERSION)},
    ),
    (
        "many concepts",
        {"prompt": " ".join(f"[c{i}]" for i in range(9))},
        {"prompt": ("9", "at most 8 concepts, with the negative prompt's")},
    ),
    (
        "everything",
        {"steps": 0, "guidance_scale": -1, "width": 9, "count": 70},
        {
            "prompt": NOT_BLANK,
            "count": ("70", "1 to 64"),
            "steps": ("0", "1 to 500"),
            "guidance_scale": ("-1.0", GUIDANCE),
            "width": ("9", "a multiple of 8"),
        },
    ),
]


@pytest.mark.parametrize(("fields", "violations"), [case[1:] for case in INVALID], ids=[case[0] for case in INVALID])
def test_a_wrong_request_is_told_what_is_wrong(
    generator: RunningGenerator, concepts: object, fields: dict[str, Any], violations: dict[str, tuple[str, str]]
) -> None:
    before = generator.metric("requests_total", outcome="INVALID_ARGUMENT")
    refusal = refusal_of(generator.start(**fields))
    assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.reason == "INVALID_INPUT"
    assert refusal.violations == {field: f"Must be {may}, got {was}." for field, (was, may) in violations.items()}
    for field, (was, may) in violations.items():
        assert f"{field}: must be {may}, got {was}." in refusal.message
    assert generator.metric("requests_total", outcome="INVALID_ARGUMENT") == before + 1
    assert len(generator.draw(prompt="a mug", steps=1)) == 1


NO_CONCEPT = "Tenant 'default' has no concept"
NOT_FOUND: list[tuple[str, dict[str, Any], str, str]] = [
    ("concept", {"prompt": "[no]"}, "CONCEPT_NOT_FOUND", f"prompt: {NO_CONCEPT} 'no'."),
    ("another tenant's", {"prompt": "[secret]"}, "CONCEPT_NOT_FOUND", f"prompt: {NO_CONCEPT} 'secret'."),
    ("negative", PLAIN | {"negative_prompt": "[no]"}, "CONCEPT_NOT_FOUND", f"negative_prompt: {NO_CONCEPT} 'no'."),
    (
        "base model",
        PLAIN | {"base_model": "sd3"},
        "BASE_MODEL_NOT_FOUND",
        "base_model: there is no base model 'sd3'; available: tiny, other.",
    ),
]


@pytest.mark.parametrize(("fields", "reason", "message"), [c[1:] for c in NOT_FOUND], ids=[c[0] for c in NOT_FOUND])
def test_what_does_not_exist_is_not_found(
    generator: RunningGenerator, concepts: object, fields: dict[str, Any], reason: str, message: str
) -> None:
    refusal = refusal_of(generator.start(**fields))
    assert (refusal.code, refusal.reason, refusal.message) == (grpc.StatusCode.NOT_FOUND, reason, message)
    assert len(generator.draw(prompt="a mug", steps=1)) == 1


def test_a_version_that_does_not_exist_is_not_found(
    generator: RunningGenerator, concepts: dict[str, StoredManifest]
) -> None:
    version = "20200101T000000Z-00000000"
    refusal = refusal_of(generator.start(prompt="[my-mug]", concept_versions={"my-mug": version}))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "CONCEPT_VERSION_NOT_FOUND")
    assert refusal.message == (
        f"concept_versions.my-mug: Concept 'my-mug' of tenant 'default' has no version '{version}'; its newest is "
        f"'{concepts['my-mug'].manifest.version}'."
    )


def test_a_concept_of_another_base_model_is_refused_by_both_names(
    generator: RunningGenerator, concepts: dict[str, StoredManifest], base_models: dict[str, BaseModel]
) -> None:
    refusal = refusal_of(generator.start(prompt="[foreign] on a beach"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "BASE_MODEL_MISMATCH")
    assert refusal.message == (
        f"prompt: concept 'foreign' version {concepts['foreign'].manifest.version} was trained on base model 'other' "
        f"({base_models['other'].fingerprint[:12]}) and does not fit 'tiny' ({base_models['tiny'].fingerprint[:12]})."
    )
    assert len(generator.draw(prompt="[foreign] on a beach", base_model="other", steps=1)) == 1


@pytest.mark.parametrize(
    ("name", "reason", "begin"),
    [
        ("no", "CONCEPT_NOT_FOUND", f"reference: {NO_CONCEPT} 'no'."),
        ("foreign", "BASE_MODEL_MISMATCH", "reference: concept 'foreign' version "),
    ],
)
def test_what_cannot_be_prefetched_is_named_by_its_field(
    generator: RunningGenerator, name: str, reason: str, begin: str
) -> None:
    prefetch = PrefetchConceptRequest()
    prefetch.reference.name = name
    refusal = refusal_of(iter(_raising(generator.stub.PrefetchConcept.future(prefetch).exception())))
    assert refusal.reason == reason
    assert refusal.message.startswith(begin)


def test_a_flipped_bit_is_data_loss(
    generator: RunningGenerator, store: FolderStore, store_folder: Path, base_model: BaseModel
) -> None:
    stored = publish(store, base_model, "damaged", random_concept(base_model, 9))
    version = stored.manifest.version
    flip_a_bit(store_folder, stored)
    for _ in range(2):
        refusal = refusal_of(generator.start(prompt="[damaged]"))
        assert refusal.code == grpc.StatusCode.DATA_LOSS
        assert f"concepts/default/damaged/{version}/{CONCEPT_FILE}" in refusal.message
    assert len(generator.draw(prompt="a mug", steps=1)) == 1
    prefetch = PrefetchConceptRequest()
    prefetch.reference.name = "damaged"
    with pytest.raises(grpc.RpcError) as caught:
        generator.stub.PrefetchConcept(prefetch)
    assert caught.value.code() == grpc.StatusCode.DATA_LOSS


@pytest.mark.parametrize(
    ("name", "version", "violations"),
    [
        ("", "", {"reference.name": "Must be 1 to 63 of a-z, 0-9 and hyphens, beginning with a letter, got ''."}),
        (
            "my-mug",
            "../secret",
            {
                "reference.version": "Must be a published version such as 20260131T120000Z-0a1b2c3d, or empty for the "
                "newest, got '../secret'."
            },
        ),
    ],
)
def test_a_malformed_reference_is_not_prefetched(
    generator: RunningGenerator, name: str, version: str, violations: dict[str, str]
) -> None:
    prefetch = PrefetchConceptRequest()
    prefetch.reference.name, prefetch.reference.version = name, version
    future = generator.stub.PrefetchConcept.future(prefetch)
    with pytest.raises(grpc.RpcError):
        future.result()
    refusal = refusal_of(iter(_raising(future.exception())))
    assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.violations == violations


def _raising(error: BaseException) -> Any:
    raise error
    yield


def flip_a_bit(folder: Path, stored: StoredManifest) -> None:
    """Damage the tensors of a concept where they lie."""
    manifest = stored.manifest
    name = f"{manifest.name}/{manifest.version}"
    (path,) = [p for p in folder.rglob(CONCEPT_FILE) if name in str(p) and p.is_file()]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
