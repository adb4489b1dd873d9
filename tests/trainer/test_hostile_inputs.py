"""More than five hundred inputs that nobody means well: typed answers, and a trainer that lives on.

Spoiled copies of good requests, noise, whatever hypothesis thinks of, and a corpus of files.
"""

import random
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from detex_protos.v1 import trainer_pb2
from tests.trainer.running_trainer import RunningTrainer
from tests.trainer.uploads import Request, cut_out, encoded, file, header, mask, mask_file, photo, stream, three_photos

pytestmark = pytest.mark.slow

INPUTS_PER_KIND = 125
TYPED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.ABORTED,
}
UPLOAD = "/detex.v1.TrainerService/UploadTrainingSet"
SUBMIT = "/detex.v1.TrainerService/SubmitJob"
TEXTS = (
    "",
    "\x00",
    "../../../etc/passwd",
    "my-mug",
    "a" * 5_000,
    "$(reboot)",
    "'; DROP TABLE jobs; --",
    "<script>",
    "\u202e\u0000\ufeff",
    "🫖" * 100,
    "{{7*7}}",
    "%n%s%x",
    "con",
    "ts-0123456789abcdef",
    "ts-0123456789ABCDEF",
    "file:///etc/passwd",
    "showroom",
)
NUMBERS = (0, 1, -1, 2, 63, 64, 65, 2**31 - 1, -(2**31), 2**32 - 1, 2**53, 2**63 - 1, 2**64 - 1)
FRACTIONS = (0.0, -0.0, 1e-300, 1e300, -1.0, 0.5, float("nan"), float("inf"), float("-inf"))


def answered(call: grpc.Call) -> None:
    """A call has ended well, or with a status that tells its caller what is wrong."""
    if call.code() is grpc.StatusCode.OK:
        return
    assert call.code() in TYPED, (call.code(), call.details())
    assert "Traceback" not in (call.details() or "")
    status = rpc_status.from_call(call)
    assert status is not None
    info = ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details)
    assert info.domain == "detex"
    assert info.reason


def send(trainer: RunningTrainer, method: str, data: bytes) -> None:
    call = trainer.channel.unary_unary(method)
    try:
        call(data, timeout=60)
    except grpc.RpcError as error:
        answered(error)  # type: ignore[arg-type]


def send_stream(trainer: RunningTrainer, parts: list[bytes]) -> None:
    try:
        trainer.channel.stream_unary(UPLOAD)(iter(parts), timeout=60)
    except grpc.RpcError as error:
        answered(error)  # type: ignore[arg-type]


def corpus() -> list[list[Request]]:
    """Uploads that are all right, to be spoiled."""
    return [
        list(three_photos()),
        list(stream(header("coffee mug"), file(encoded(photo(), "JPEG")), mask_file(encoded(mask())))),
        list(stream(header(upload_id="0123456789abcdef", file_count=1), file(encoded(cut_out(1), "WEBP")))),
        list(stream(header(), file(encoded(photo(2, mode="P"), "PNG"), caption="on a table", chunk_bytes=50))),
    ]


def spoil_field(message: Message, source: random.Random) -> None:
    """Put something odd into some field of a message."""
    field = source.choice(message.DESCRIPTOR.fields)
    if field.is_repeated:
        getattr(message, field.name).append(source.choice(TEXTS)) if field.type == field.TYPE_STRING else None
        return
    match field.type:
        case field.TYPE_MESSAGE:
            nested = getattr(message, field.name)
            nested.SetInParent()
            spoil_field(nested, source)
            return
        case field.TYPE_STRING:
            value: object = source.choice(TEXTS)
        case field.TYPE_DOUBLE:
            value = source.choice(FRACTIONS)
        case field.TYPE_BYTES:
            value = source.randbytes(source.choice((0, 1, 100, 100_000)))
        case field.TYPE_BOOL:
            value = source.random() < 0.5
        case _:
            value = source.choice(NUMBERS)
    try:
        setattr(message, field.name, value)
    except (ValueError, TypeError):
        return  # no such number can be sent


def spoiled_upload(source: random.Random) -> list[Request]:
    """An upload with a few parts lost, doubled, moved, changed or cut."""
    parts = [Request.FromString(part.SerializeToString()) for part in source.choice(corpus())]
    for _ in range(source.randint(1, 3)):
        place = source.randrange(len(parts))
        match source.randrange(6):
            case 0:
                del parts[place]
            case 1:
                parts.insert(place, parts[place])
            case 2:
                parts.insert(source.randrange(len(parts)), parts.pop(place))
            case 3:
                inner = parts[place].WhichOneof("part")
                if inner in {"header", "file"}:
                    spoil_field(getattr(parts[place], inner), source)
            case 4:
                chunks = [part for part in parts if part.WhichOneof("part") == "chunk"]
                if chunks:
                    chunk = bytearray(source.choice(chunks).chunk)
                    chunk[source.randrange(len(chunk))] ^= 1 << source.randrange(8)
                    parts[place].chunk = bytes(chunk)
            case 5:
                parts[place].chunk = source.randbytes(source.choice((0, 1, 1024**2 + 1)))
        if not parts:
            break
    return parts


@pytest.fixture
def source(request: pytest.FixtureRequest) -> random.Random:
    return random.Random(request.node.name)


@pytest.fixture(autouse=True)
def it_lives_on(trainer: RunningTrainer) -> Iterator[None]:
    yield
    assert trainer.process.poll() is None
    assert trainer.stub.UploadTrainingSet(three_photos(), timeout=60).training_set.photos
    assert not any('"level": "ERROR"' in line for line in trainer.log), "no defect came to light"


def test_spoiled_uploads(trainer: RunningTrainer, source: random.Random) -> None:
    for _ in range(INPUTS_PER_KIND):
        send_stream(trainer, [part.SerializeToString() for part in spoiled_upload(source)])


def test_streams_of_noise(trainer: RunningTrainer, source: random.Random) -> None:
    whole = [part.SerializeToString() for part in corpus()[0]]
    for number in range(INPUTS_PER_KIND):
        noise = source.randbytes(source.choice((0, 1, 10, 1_000)))
        if number % 2:
            send_stream(trainer, [*whole[: source.randrange(len(whole))], noise])
        else:
            send_stream(trainer, [noise] * source.randint(0, 3))


def test_spoiled_submissions(trainer: RunningTrainer, training_set_id: str, source: random.Random) -> None:
    for number in range(INPUTS_PER_KIND):
        request = trainer_pb2.SubmitJobRequest(training_set_id=training_set_id, concept_name=f"ok-hostile-{number}")
        for _ in range(source.randint(1, 4)):
            spoil_field(request, source)
        send(trainer, SUBMIT, request.SerializeToString())


def test_submissions_of_noise(trainer: RunningTrainer, training_set_id: str, source: random.Random) -> None:
    whole = trainer_pb2.SubmitJobRequest(training_set_id=training_set_id, concept_name="ok-noise").SerializeToString()
    for number in range(INPUTS_PER_KIND):
        data = bytearray(whole if number % 2 else source.randbytes(source.choice((1, 10, 1_000, 100_000))))
        for _ in range(source.randint(1, 3)):
            data[source.randrange(len(data))] = source.randrange(256)
        send(trainer, SUBMIT, bytes(data))


KNOB = st.one_of(
    st.floats(),
    st.integers(-(2**31), 2**31 - 1),
    st.sampled_from(FRACTIONS),
    st.text(max_size=80),
)


def set_anything(message: Message, values: dict[str, object]) -> None:
    """Set the fields that take their values as they are."""
    for name, value in values.items():
        with suppress(ValueError, TypeError, AttributeError):
            setattr(message, name, value)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    knobs=st.dictionaries(
        st.sampled_from([field.name for field in trainer_pb2.Hyperparameters.DESCRIPTOR.fields]), KNOB, max_size=6
    ),
    fields=st.dictionaries(
        st.sampled_from(["concept_name", "idempotency_key", "base_model", "method", "priority"]), KNOB, max_size=3
    ),
    attributes=st.lists(st.text(max_size=70), max_size=5),
    deadline=st.one_of(st.none(), st.tuples(st.integers(-(2**40), 2**40), st.integers(-(2**31), 2**31 - 1))),
)
def test_any_submission_is_taken_or_refused(
    trainer: RunningTrainer,
    training_set_id: str,
    knobs: dict[str, object],
    fields: dict[str, object],
    attributes: list[str],
    deadline: tuple[int, int] | None,
) -> None:
    request = trainer_pb2.SubmitJobRequest(training_set_id=training_set_id, concept_name="ok-any")
    set_anything(request, fields)
    set_anything(request.hyperparameters, knobs)
    with suppress(ValueError, UnicodeEncodeError):
        request.attributes.extend(attributes)
    if deadline is not None:
        request.deadline_time.seconds, request.deadline_time.nanos = deadline
    send(trainer, SUBMIT, request.SerializeToString())


def picture_of_header(width: int, height: int) -> bytes:
    """A PNG that says it is so large, and holds next to nothing."""
    whole = bytearray(encoded(photo()))
    whole[16:24] = struct.pack(">II", width, height)
    whole[29:33] = struct.pack(">I", zlib.crc32(whole[12:29]))
    return bytes(whole)


def hostile_files() -> dict[str, bytes]:
    """Files that are no photos, or none that anybody should decode."""
    plain = encoded(photo())
    jpeg = encoded(photo(), "JPEG")
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "A" * 60_000, 99
    large_text = PngInfo()
    large_text.add_text("Comment", "A" * 20_000_000, zip=True)
    return {
        "nothing": b"",
        "signature": plain[:8],
        "cut": plain[: len(plain) // 2],
        "cut jpeg": jpeg[: len(jpeg) // 2],
        "bomb by header": picture_of_header(100_000, 100_000),
        "largest header": picture_of_header(2**31 - 1, 2**31 - 1),
        "no size": picture_of_header(0, 0),
        "thin": picture_of_header(1, 40_000),
        "text bomb": encoded(photo(), pnginfo=large_text),
        "odd exif": encoded(photo(), "JPEG", exif=exif),
        "animation": encoded(photo(), "PNG", save_all=True, append_images=[photo(1)]),
        "gif": encoded(photo(), "GIF"),
        "tiff": encoded(photo(), "TIFF"),
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
        "html in a picture": plain + b"<script>alert(1)</script>",
        "zip in a picture": jpeg + b"PK\x03\x04" + b"\0" * 100,
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n(/etc/passwd) (r) file",
        "windows icon": b"\0\0\1\0\1\0" + plain,
        "two signatures": plain[:8] + jpeg,
        "webp of no frame": b"RIFF\x1a\0\0\0WEBPVP8L" + b"\0" * 14,
        "cmyk": encoded(photo().convert("CMYK"), "JPEG"),
        "one bit": encoded(photo().convert("1")),
        "sixteen bits": encoded(Image.new("I;16", (48, 40), 65_535)),
        "all transparent": encoded(Image.new("RGBA", (48, 40))),
        "noise": bytes(range(256)) * 40,
    }


def test_hostile_files(trainer: RunningTrainer) -> None:
    for data in hostile_files().values():
        for parts in (
            stream(header(), file(data)),
            stream(header(), file(encoded(photo())), mask_file(data)),
            stream(header("mug"), file(data, file_name="../../../etc/passwd")),
        ):
            send_stream(trainer, [part.SerializeToString() for part in parts])
