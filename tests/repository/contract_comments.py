"""The comments of the wire contract, by what they belong to, as a reader of the protos alone has them."""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

_PROTOS = Path(__file__).resolve().parents[2] / "proto"
_PACKAGE = 2  # number of the field `package` of a FileDescriptorProto


@cache
def contract_comments() -> Mapping[str, str]:
    """Comments as one line each by their place: `GenerateRequest.count`, `TrainerService.SubmitJob`, `common.proto`."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "contract.pb"
        sources = sorted(str(path.relative_to(_PROTOS)) for path in _PROTOS.rglob("*.proto"))
        arguments = [f"-I{_PROTOS}", f"-I{files('grpc_tools').joinpath('_proto')}", f"--descriptor_set_out={target}"]
        assert protoc.main(["protoc", *arguments, "--include_source_info", *sources]) == 0
        described = FileDescriptorSet.FromString(target.read_bytes())
    return {place: text for file in described.file for place, text in _comments(file)}


def _comments(file: FileDescriptorProto) -> Iterable[tuple[str, str]]:
    for location in file.source_code_info.location:
        text = " ".join(location.leading_comments.split())
        if text:
            yield _place(file, location.path), text


def _place(file: FileDescriptorProto, path: Sequence[int]) -> str:
    if tuple(path) == (_PACKAGE,):
        return Path(file.name).name
    element: Any = file
    names = []
    for number, index in zip(path[::2], path[1::2], strict=True):
        element = getattr(element, element.DESCRIPTOR.fields_by_number[number].name)[index]
        names.append(element.name)
    return ".".join(names)
