"""Large messages of too many fields are refused before they are parsed, and all others reach the parser."""

from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from detex_core.errors import ResourceExhaustedError
from detex_core.grpc_server.message_outline import MAX_FIELDS, SMALL_MESSAGE_BYTES, check_outline
from detex_protos.v1 import generator_pb2, trainer_pb2


def refuses(message: Message | bytes, kind: Any) -> bool:
    data = message if isinstance(message, bytes) else message.SerializeToString()
    try:
        check_outline(data, kind.DESCRIPTOR)
    except ResourceExhaustedError as error:
        return error.reason == "TOO_MANY_FIELDS" and error.message.startswith("request: must have at most")
    return False


def many(count: int) -> generator_pb2.GenerateRequest:
    request = generator_pb2.GenerateRequest(prompt="a mug")
    for index in range(count):
        request.concept_versions[f"concept-{index}"] = "1" * 40
    return request


def test_a_million_small_fields_are_refused() -> None:
    assert refuses(many(100_000), generator_pb2.GenerateRequest)
    assert refuses(trainer_pb2.ListJobsRequest(states=[1] * 2_000_000), trainer_pb2.ListJobsRequest)
    inside = generator_pb2.GenerateManyRequest(key="one", request=many(10_000))
    assert refuses(inside, generator_pb2.GenerateManyRequest)
    unknown = b"\xf8\x07\x01" * SMALL_MESSAGE_BYTES  # field 127, a number, again and again
    assert refuses(unknown, generator_pb2.GenerateRequest)
    regions = generator_pb2.GenerateRequest(regions=[generator_pb2.Region(prompt="x" * 20)] * (MAX_FIELDS + 1))
    assert refuses(regions, generator_pb2.GenerateRequest)


@pytest.mark.parametrize("group", [b"\xfb\x07\xfc\x07", b"\xfb\x07\x0b\x08\x01\x0c\xfc\x07"])
def test_nothing_hides_behind_a_group(group: bytes) -> None:
    """Groups are of an older form of the wire format, which parsers of unknown fields still take."""
    hidden = group + many(10_000).SerializeToString()
    assert len(generator_pb2.GenerateRequest.FromString(hidden).concept_versions) == 10_000
    assert refuses(hidden, generator_pb2.GenerateRequest)
    inside = b"\xfb\x07" + b"\x08\x01" * SMALL_MESSAGE_BYTES + b"\xfc\x07"
    assert refuses(inside, generator_pb2.GenerateRequest)
    file = generator_pb2.GenerateRequest(edit=generator_pb2.Edit(image=bytes(1_000_000))).SerializeToString()
    assert not refuses(group + file, generator_pb2.GenerateRequest)


def test_large_files_in_few_fields_pass() -> None:
    request = many(8)
    request.edit.image = bytes(30_000_000)
    request.regions.add(mask=bytes(2_000_000))
    assert not refuses(request, generator_pb2.GenerateRequest)
    assert not refuses(generator_pb2.GenerateManyRequest(key="one", request=request), generator_pb2.GenerateManyRequest)
    assert not refuses(trainer_pb2.ReplaceMaskRequest(mask=bytes(30_000_000)), trainer_pb2.ReplaceMaskRequest)
    assert not refuses(
        trainer_pb2.UploadTrainingSetRequest(chunk=bytes(1_000_000)), trainer_pb2.UploadTrainingSetRequest
    )
    assert not refuses(trainer_pb2.ListJobsRequest(states=[1] * 1_000), trainer_pb2.ListJobsRequest)


@pytest.mark.parametrize("end", [0, 1, 2, 3, 11, 40])
def test_what_is_cut_off_is_left_to_the_parser(end: int) -> None:
    request = generator_pb2.GenerateRequest(prompt="x" * SMALL_MESSAGE_BYTES, negative_prompt="y" * 100)
    data = request.SerializeToString()
    assert not refuses(data[: len(data) - end], generator_pb2.GenerateRequest)


@given(st.binary(max_size=200), st.integers(0, 7))
def test_no_bytes_are_too_odd_to_walk(data: bytes, kind: int) -> None:
    padded = data + bytes([kind << 3]) * SMALL_MESSAGE_BYTES
    for message in (generator_pb2.GenerateRequest, generator_pb2.GenerateManyRequest, trainer_pb2.ListJobsRequest):
        refuses(padded, message)
