"""Uploads through a running trainer: what is kept, and what is refused with which sentence."""

import hashlib
import json
import struct
import zlib
from collections.abc import Iterable

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from detex_core.object_store import FolderStore
from detex_protos.v1 import trainer_pb2
from detex_trainer.intake.archive import TrainingSetArchive
from tests.trainer.refusals import refusal
from tests.trainer.running_trainer import RunningTrainer, eventually
from tests.trainer.uploads import (
    Request,
    cut_out,
    encoded,
    file,
    header,
    mask,
    mask_file,
    photo,
    stream,
    three_photos,
)

PNG = encoded(photo())
OTHER_PNG = encoded(photo(1))
# Orientation 6: the camera was held upright, the picture lies on its side.
ROTATED = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"


def upload(trainer: RunningTrainer, *parts: Request | Iterable[Request]) -> trainer_pb2.TrainingSet:
    return trainer.stub.UploadTrainingSet(stream(*parts), timeout=30).training_set


def kept_keys(trainer: RunningTrainer) -> list[str]:
    return [info.key for info in FolderStore(trainer.store_folder).list("training_sets/")]


def test_photos_masks_and_captions_are_kept(trainer: RunningTrainer) -> None:
    training_set = upload(
        trainer,
        header("  coffee mug "),
        file(PNG, 1, caption="on a table"),
        mask_file(encoded(mask()), 1),
        file(encoded(cut_out(2)), 0),
        file(encoded(photo(3, (64, 48)), "JPEG"), 2, chunk_bytes=100),
    )
    assert training_set.class_word == "coffee mug"
    assert [
        (each.photo_index, each.width, each.height, each.mask_source, each.mask_share, each.caption)
        for each in training_set.photos
    ] == [
        (0, 48, 40, trainer_pb2.MASK_SOURCE_ALPHA, 0.5, ""),
        (1, 48, 40, trainer_pb2.MASK_SOURCE_UPLOADED, 0.25, "on a table"),
        (2, 64, 48, trainer_pb2.MASK_SOURCE_SEGMENTER, 0, ""),
    ]
    assert training_set.photos[1].sha256 == hashlib.sha256(PNG).hexdigest()
    assert [warning for warning in training_set.warnings if "Photo 2 (2.png) has no mask" in warning]
    loaded = TrainingSetArchive(FolderStore(trainer.store_folder)).load("default", training_set.training_set_id)
    assert [each.picture.mode for each in loaded.photos] == ["RGB"] * 3
    assert loaded.photos[1].picture.tobytes() == photo().tobytes()
    assert [None if each.mask is None else each.mask.tobytes() for each in loaded.photos] == [
        mask(share=0.5).tobytes(),
        mask().tobytes(),
        None,
    ]
    assert loaded.photos[0].picture.getpixel((0, 39)) == (255, 255, 255), "transparent parts are white"
    assert loaded.record.digest == training_set.digest


def test_the_digest_tells_contents_apart(trainer: RunningTrainer) -> None:
    plain = upload(trainer, header(), file(PNG)).digest
    assert upload(trainer, header(), file(PNG, file_name="other", sha256="")).digest == plain
    others = [
        upload(trainer, header("cup"), file(PNG)),
        upload(trainer, header(), file(OTHER_PNG)),
        upload(trainer, header(), file(PNG, caption="red")),
        upload(trainer, header(), file(PNG), mask_file(encoded(mask()))),
    ]
    assert len({plain, *(each.digest for each in others)}) == 5


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (encoded(photo(mode="CMYK"), "JPEG"), (48, 40)),
        (encoded(photo(mode="P")), (48, 40)),
        (encoded(photo(mode="L").convert("I;16")), (48, 40)),
        (encoded(photo(mode="1")), (48, 40)),
        (encoded(photo(), "WEBP"), (48, 40)),
        (encoded(photo(), "JPEG", exif=ROTATED), (40, 48)),
    ],
    ids=["cmyk", "palette", "16-bit", "bilevel", "webp", "exif-rotated"],
)  # fmt: skip
def test_pictures_of_any_mode_become_upright_rgb(trainer: RunningTrainer, data: bytes, size: tuple[int, int]) -> None:
    training_set = upload(trainer, header(), file(data))
    assert (training_set.photos[0].width, training_set.photos[0].height) == size
    loaded = TrainingSetArchive(FolderStore(trainer.store_folder)).load("default", training_set.training_set_id)
    assert (loaded.photos[0].picture.mode, loaded.photos[0].picture.size) == ("RGB", size)


@pytest.mark.parametrize(
    ("parts", "warning"),
    [
        ([file(PNG)], "There is only one photo"),
        ([file(PNG), file(PNG, 1)], "Photos 0 (0.png) and 1 (1.png) are the same file"),
        ([file(PNG), file(OTHER_PNG, 1)], "Photos 0 (0.png), 1 (1.png) have no mask"),
        ([file(encoded(photo(0, (120, 40))))], "Photo 0 (0.png) is long and narrow (120 x 40 pixels)"),
        ([file(PNG), mask_file(encoded(mask(share=1)))], "The mask of photo 0 (0.png) covers 100% of it"),
        ([file(encoded(photo(0, (96, 96)))), mask_file(encoded(mask((96, 96), 1 / 96)))], "covers 1.0% of it"),
    ],
)
def test_warnings(trainer: RunningTrainer, parts: list[Iterable[Request]], warning: str) -> None:
    training_set = upload(trainer, header(), *parts)
    assert any(warning in each for each in training_set.warnings), training_set.warnings


def test_cut_outs_of_different_sizes_need_no_warning(trainer: RunningTrainer) -> None:
    training_set = upload(
        trainer, header(), *(file(encoded(cut_out(index, (48 + 8 * index, 40))), index) for index in range(3))
    )
    assert list(training_set.warnings) == []
    assert [each.width for each in training_set.photos] == [48, 56, 64]


def bomb() -> bytes:
    """A PNG whose header claims 40,000 by 40,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def wide_mask() -> bytes:
    return encoded(mask((64, 40)))


ORDER = "must be the upload header, then for each file its header and its bytes in chunks"
REFUSED = {
    # What there is no photo of.
    "nothing": ([], "part", f"part: {ORDER}, got a stream without header."),
    "no photo": ([header()], "files", "files: must be 1 to 64 photos, got none."),
    "mask alone": ([header(), mask_file(encoded(mask()))], "files", "files: must be 1 to 64 photos, got none."),
    # Order.
    "file first": ([file(PNG)], "part", f"part: {ORDER}, got a file before the header."),
    "chunk first": ([Request(chunk=b"x")], "part", "got a chunk before any file"),
    "chunk after header": ([header(), Request(chunk=b"x")], "part", "got a chunk before any file"),
    "second header": ([header(), file(PNG), header()], "part", "got a second header"),
    "empty part": ([header(), Request()], "part", "got a part without content"),
    # Class word.
    "no class word": ([header("")], "header.class_word", "header.class_word: must be 1 to 64 letters"),
    "class word of digits": ([header("12 3")], "header.class_word", "with at least one letter"),
    "long class word": ([header("x" * 65)], "header.class_word", "1 to 64 letters, digits, spaces and hyphens"),
    "class word with a bracket": ([header("mug]")], "header.class_word", "got 'mug]'"),
    "class word with a line": ([header("mug\nred")], "header.class_word", "where '\\n' (U+000A) is not allowed"),
    "class word with an underscore": ([header("tea_pot")], "header.class_word", "'tea_pot', where '_' is not allowed"),
    # File headers.
    "no kind": ([header(), file(PNG, kind=0)], "files[0].kind", "must be FILE_KIND_PHOTO or FILE_KIND_MASK"),
    "unknown kind": ([header(), file(PNG, kind=9)], "files[0].kind", "must be FILE_KIND_PHOTO or FILE_KIND_MASK"),
    "far index": ([header(), file(PNG, 64)], "files[0].photo_index", "must be 0 to 63, got 64"),
    "index twice": (
        [header(), file(PNG), file(OTHER_PNG, 0)],
        "files[1].photo_index",
        "must be unique among the photos, got 0, which files[0] has",
    ),
    "gap": (
        [header(), file(PNG), file(OTHER_PNG, 2)],
        "files[1].photo_index",
        "photo 2 (2.png): files[1].photo_index: must be one of indices from 0 without gaps, got 2 without a photo 1",
    ),
    "mask without photo": (
        [header(), file(PNG), mask_file(encoded(mask()), 1)],
        "files[1].photo_index",
        "mask of photo 1 (1.png): files[1].photo_index: must be the index of an uploaded photo, got 1.",
    ),
    "no bytes": ([header(), file(b"")], "files[0].size_bytes", "must be 1 to 33,554,432 bytes, got 0."),
    "too large": ([header(), file(PNG, size_bytes=2**40)], "files[0].size_bytes", "got 1,099,511,627,776"),
    "long name": ([header(), file(PNG, file_name="x" * 256)], "files[0].file_name", "at most 255 characters"),
    "long caption": ([header(), file(PNG, caption="x" * 1_001)], "files[0].caption", "at most 1,000 characters"),
    "caption of a mask": (
        [header(), file(PNG), mask_file(encoded(mask()), caption="red")],
        "files[1].caption",
        "must be empty for a mask, got 'red'",
    ),
    "no hash": ([header(), file(PNG, sha256="xyz")], "files[0].sha256", "64 lower-case hexadecimal digits"),
    # Bytes.
    "wrong hash": (
        [header(), file(PNG), file(OTHER_PNG, 1, sha256="0" * 64)],
        "files[1].sha256",
        f"must be the hash of the bytes sent, {hashlib.sha256(OTHER_PNG).hexdigest()}, got {'0' * 64}",
    ),
    "too short": (
        [header(), file(PNG, size_bytes=len(PNG) + 1)],
        "files[0].size_bytes",
        f"must be the size of the file as sent, got {len(PNG) + 1:,} for {len(PNG):,} bytes sent.",
    ),
    "no chunk": ([header(), file(PNG)[:1], file(PNG, 1)], "files[0].size_bytes", " for 0 bytes sent."),
    "too long": ([header(), file(PNG, size_bytes=1)], "files[0].size_bytes", "got 1 for "),
    "large chunk": (
        [header(), file(bytes(2**20 + 1), chunk_bytes=2**21)],
        "chunk",
        "chunk: must be 1 to 1,048,576 bytes, got 1,048,577 bytes of files[0]",
    ),
    "empty chunk": ([header(), file(PNG)[:1], Request(chunk=b"")], "chunk", "got 0 bytes of files[0]"),
    # Pictures.
    "not an image": ([header(), file(b"hello, world")], "files[0]", "got a file that begins with b'hello, w'"),
    "gif": ([header(), file(encoded(photo(), "GIF"))], "files[0]", "must be a still PNG, JPEG or WebP picture"),
    "cut off": ([header(), file(PNG[: len(PNG) // 2])], "files[0]", "a damaged or truncated file"),
    "bomb": ([header(), file(bomb())], "files[0]", "got 40,000 x 40,000 pixels"),
    "tiny": ([header(), file(encoded(Image.new("RGB", (16, 16))))], "files[0]", "got 16 x 16 pixels"),
    "mask of another size": (
        [header(), file(PNG), mask_file(wide_mask())],
        "files[1]",
        "files[1]: must be the size of its photo, 48 x 40 pixels, got 64 x 40 pixels",
    ),
    "black mask": (
        [header(), file(PNG), mask_file(encoded(mask(share=0)))],
        "files[1]",
        "must be the subject in white on black, got an all-black mask",
    ),
    "broken second photo": ([header(), file(PNG), file(b"hello", 1)], "files[1]", "got a file that begins"),
}  # fmt: skip


@pytest.mark.parametrize(("parts", "field", "sentence"), REFUSED.values(), ids=REFUSED)
def test_bad_uploads_are_refused_and_leave_nothing(
    trainer: RunningTrainer, parts: list[Request | Iterable[Request]], field: str, sentence: str
) -> None:
    before = kept_keys(trainer)
    refused = refusal(lambda: upload(trainer, *parts))
    assert (refused.code, refused.reason, refused.fields) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_INPUT",
        (field,),
    )
    assert sentence in refused.sentence
    assert kept_keys(trainer) == before
    assert list((trainer.folder / "work" / "uploads").iterdir()) == []


def test_good_uploads_are_taken_after_all_of_these(trainer: RunningTrainer) -> None:
    assert len(upload(trainer, three_photos()).photos) == 3


REQUESTS = st.one_of(
    st.builds(header, st.text(max_size=3)),
    st.just(header()),
    st.builds(
        lambda index, kind, size: file(PNG, index, kind=kind, size_bytes=size, sha256="")[0],
        st.integers(0, 2),
        st.integers(0, 3),
        st.sampled_from([0, 3, len(PNG)]),
    ),
    st.sampled_from([Request(), Request(chunk=b""), Request(chunk=b"abc"), Request(chunk=PNG)]),
)


@given(st.lists(REQUESTS, max_size=6))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_stream_is_taken_or_refused_with_a_field(trainer: RunningTrainer, requests: list[Request]) -> None:
    call = trainer.stub.UploadTrainingSet.future(iter(requests), timeout=30)
    assert call.code() in (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT)
    if call.code() is grpc.StatusCode.OK:
        chunks = b"".join(request.chunk for request in requests)
        assert len(chunks) >= len(PNG) * len(call.result().training_set.photos) > 0


@given(st.lists(st.integers(1, len(PNG)), min_size=1, max_size=20), st.booleans())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_files_may_come_in_any_pieces(trainer: RunningTrainer, sizes: list[int], mask_first: bool) -> None:
    begin, whole = file(PNG)
    pieces, rest = [begin], whole.chunk
    for size in [*sizes, len(PNG)]:
        if rest:
            pieces.append(Request(chunk=rest[:size]))
            rest = rest[size:]
    parts = [mask_file(encoded(mask())), pieces]
    training_set = upload(trainer, header(), *(parts if mask_first else reversed(parts)))
    assert training_set.photos[0].sha256 == hashlib.sha256(PNG).hexdigest()
    assert training_set.photos[0].mask_source == trainer_pb2.MASK_SOURCE_UPLOADED


def test_a_caller_that_goes_away_leaves_nothing(trainer: RunningTrainer) -> None:
    before = kept_keys(trainer)
    sent: list[Request] = []

    def parts() -> Iterable[Request]:
        for request in (header(), *file(PNG)):
            sent.append(request)
            yield request
        while not call.done():
            eventually(lambda: folders() or call.done())
            call.cancel()

    def folders() -> list[object]:
        return list((trainer.folder / "work" / "uploads").iterdir())

    call = trainer.stub.UploadTrainingSet.future(parts(), timeout=30)
    with pytest.raises(grpc.FutureCancelledError):
        call.result()
    eventually(lambda: not folders())
    assert kept_keys(trainer) == before


def test_a_caller_that_falls_silent_is_sent_away(start_trainer: object) -> None:
    trainer = start_trainer(upload_idle_seconds=0.2)  # type: ignore[operator]
    over = []

    def parts() -> Iterable[Request]:
        yield header()
        eventually(lambda: over)

    try:
        refused = refusal(lambda: trainer.stub.UploadTrainingSet(parts(), timeout=30))
    finally:
        over.append(True)
    assert (refused.code, refused.reason) == (grpc.StatusCode.ABORTED, "UPLOAD_IDLE")
    assert refused.sentence == "Nothing was received for 0.2 seconds; send the upload again."


def test_limits_are_settings(start_trainer: object) -> None:
    trainer = start_trainer(  # type: ignore[operator]
        max_photos=2, max_file_bytes=len(PNG) + 2_000, max_training_set_bytes=2 * len(PNG) + 2_000, max_uploads=1
    )
    refused = refusal(lambda: upload(trainer, three_photos()))
    assert refused.fields == ("files[2].photo_index",)
    refused = refusal(lambda: upload(trainer, header(), file(bytes(len(PNG) + 2_001))))
    assert refused.fields == ("files[0].size_bytes",)
    refused = refusal(lambda: upload(trainer, header(), *(file(bytes(len(PNG) + 2_000), index) for index in range(2))))
    assert "for all files" in refused.sentence
    waiting = iter([header()])
    over = []

    def parts() -> Iterable[Request]:
        yield next(waiting)
        eventually(lambda: over)

    first = trainer.stub.UploadTrainingSet.future(parts(), timeout=30)
    eventually(lambda: list((trainer.folder / "work" / "uploads").iterdir()))
    for tenant, reason in (("default", "TOO_MANY_UPLOADS_OF_TENANT"), ("other", "TOO_MANY_UPLOADS")):
        metadata = [("detex-tenant", tenant)]
        refused = refusal(
            lambda metadata=metadata: trainer.stub.UploadTrainingSet(  # type: ignore[misc]
                stream(header(), file(PNG)), timeout=30, metadata=metadata
            )
        )
        assert (refused.code, refused.reason, refused.retry_seconds) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            reason,
            5,
        )
    over.append(True)
    with pytest.raises(grpc.RpcError):
        first.result()
    assert upload(trainer, header(), file(PNG)).photos


def test_the_record_is_what_others_rely_on(trainer: RunningTrainer) -> None:
    training_set = upload(trainer, header(), file(PNG))
    store = FolderStore(trainer.store_folder)
    prefix = f"training_sets/default/{training_set.training_set_id}/"
    assert [info.key.removeprefix(prefix) for info in store.list(prefix)] == ["photo_0.png", "set.json"]
    record = json.loads(store.get(f"{prefix}set.json"))
    assert (record["schema_version"], record["class_word"]) == (1, "mug")
