"""What a caller learns of a call that failed."""

from collections.abc import Callable
from dataclasses import dataclass

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from grpc_status import rpc_status


@dataclass(frozen=True)
class Refusal:
    """Status, stable reason, sentence, fields and wait of a failed call."""

    code: grpc.StatusCode
    reason: str
    sentence: str
    fields: tuple[str, ...]
    retry_seconds: float | None


def refusal(call: Callable[[], object]) -> Refusal:
    """Make a call that must fail."""
    with pytest.raises(grpc.RpcError) as raised:
        call()
    status = rpc_status.from_call(raised.value)
    assert status is not None, raised.value
    info, bad_request, retry = ErrorInfo(), BadRequest(), RetryInfo()
    retry_seconds = None
    for detail in status.details:
        detail.Unpack(info) or detail.Unpack(bad_request)
        if detail.Unpack(retry):
            retry_seconds = retry.retry_delay.ToTimedelta().total_seconds()
    assert info.domain == "detex"
    assert "Traceback" not in status.message
    fields = tuple(violation.field for violation in bad_request.field_violations)
    return Refusal(raised.value.code(), info.reason, status.message, fields, retry_seconds)
