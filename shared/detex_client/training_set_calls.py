"""Calls about training sets: upload, looks, corrections, deletion."""

import time
from collections.abc import Callable, Sequence
from uuid import uuid4

import grpc

from detex_client.background_call import answer_of
from detex_client.connection import Connection
from detex_client.errors import DetexClientError
from detex_client.job_watch import RECONNECT_PAUSES_SECONDS
from detex_client.request_stream import RequestStream
from detex_client.training_photo import TrainingPhoto
from detex_client.training_set import MaskView, TrainingSet
from detex_client.upload import ReceivedBytes, UploadHeader, UploadProgress, UploadRequests
from detex_client.wire_message import wire_message
from detex_protos.v1 import trainer_pb2, trainer_pb2_grpc

UPLOAD_TIMEOUT_SECONDS = 600.0
UPLOAD_ATTEMPTS = 3
_WORTH_ANOTHER_TRY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED)


class TrainingSetCalls(Connection):
    """The part of `TrainerClient` that is about training sets."""

    _stub: trainer_pb2_grpc.TrainerServiceStub

    def upload(
        self,
        photos: Sequence[TrainingPhoto],
        *,
        class_word: str,
        keep_photos: bool = False,
        on_progress: Callable[[UploadProgress], None] = lambda _: None,
        on_note: Callable[[str], None] = lambda _: None,
        timeout_seconds: float = UPLOAD_TIMEOUT_SECONDS,
    ) -> TrainingSet:
        """Send photos, masks and captions; where the connection breaks, the rest is sent in up to two more tries.

        The trainer deletes them when the jobs of the set have ended, unless `keep_photos` is set. `on_progress` is
        called after each chunk, and `on_note` with a sentence on each file that is converted or reduced before it is
        sent, both from another thread; `timeout_seconds` is the deadline of one attempt.
        """
        files = len(photos) + sum(photo.mask is not None for photo in photos)
        header = UploadHeader(class_word, keep_photos, upload_id=uuid4().hex, file_count=files)
        for attempt in range(1, UPLOAD_ATTEMPTS + 1):
            try:
                progress = self._progress(header.upload_id) if attempt > 1 else trainer_pb2.GetUploadResponse()
                if progress.HasField("training_set"):
                    return TrainingSet.from_wire(progress.training_set)
                received = ReceivedBytes(progress.files)
                noted = on_note if attempt == 1 else lambda _: None
                requests = UploadRequests(header, photos, on_progress, received, noted)
                return self._upload(requests, timeout_seconds)
            except DetexClientError as error:
                if error.code not in _WORTH_ANOTHER_TRY or attempt == UPLOAD_ATTEMPTS:
                    raise
                time.sleep(RECONNECT_PAUSES_SECONDS[attempt])
        raise AssertionError("every attempt returns or raises")

    def training_set(self, training_set_id: str) -> TrainingSet:
        """One training set; NOT_FOUND once its photos are deleted."""
        request = wire_message(trainer_pb2.GetTrainingSetRequest, training_set_id=training_set_id)
        return TrainingSet.from_wire(self.unary(self._stub.GetTrainingSet, request).training_set)

    def mask(self, training_set_id: str, photo_index: int) -> MaskView:
        """The mask of a photo as training will use it, whoever made it."""
        request = wire_message(trainer_pb2.GetMaskRequest, training_set_id=training_set_id, photo_index=photo_index)
        return MaskView.from_wire(self.unary(self._stub.GetMask, request))

    def replace_mask(self, training_set_id: str, photo_index: int, mask: bytes) -> TrainingSet:
        """Put another mask (a PNG) in the place of one, while no job uses the set."""
        request = wire_message(
            trainer_pb2.ReplaceMaskRequest, training_set_id=training_set_id, photo_index=photo_index, mask=mask
        )
        return TrainingSet.from_wire(self.unary(self._stub.ReplaceMask, request).training_set)

    def delete_training_set(self, training_set_id: str) -> tuple[str, ...]:
        """Delete a training set that no job uses; returns the keys of what is gone."""
        request = wire_message(trainer_pb2.DeleteTrainingSetRequest, training_set_id=training_set_id)
        return tuple(self.unary(self._stub.DeleteTrainingSet, request).deleted_keys)

    def _progress(self, upload_id: str) -> trainer_pb2.GetUploadResponse:
        try:
            return self.unary(self._stub.GetUpload, wire_message(trainer_pb2.GetUploadRequest, upload_id=upload_id))
        except DetexClientError as error:
            if error.code is grpc.StatusCode.UNIMPLEMENTED:  # a trainer that takes uploads in one piece alone
                return trainer_pb2.GetUploadResponse()
            raise

    def _upload(self, upload_requests: UploadRequests, timeout_seconds: float) -> TrainingSet:
        requests = RequestStream(upload_requests)

        def upload() -> trainer_pb2.UploadTrainingSetResponse:
            call = self._stub.UploadTrainingSet.future(iter(requests), timeout=timeout_seconds, metadata=self.metadata)
            requests.attach(call)
            return call.result()

        with self.errors():
            try:
                answer = answer_of(upload)
            except (grpc.RpcError, grpc.FutureCancelledError):
                if requests.failure is not None:
                    raise requests.failure from None
                raise
        return TrainingSet.from_wire(answer.training_set)
