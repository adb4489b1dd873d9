"""Messages of training sets to the domain and back."""

from collections.abc import AsyncIterator, Sequence

from detex_protos.v1 import trainer_pb2
from detex_trainer.domain.training_set_record import MaskSource, PhotoRecord, TrainingSetRecord
from detex_trainer.intake.upload_parts import (
    Chunk,
    FileHeader,
    FileKind,
    ReceivedFile,
    UnknownPart,
    UploadHeader,
    UploadPart,
)

_KINDS = {
    trainer_pb2.FILE_KIND_PHOTO: FileKind.PHOTO,
    trainer_pb2.FILE_KIND_MASK: FileKind.MASK,
}
_KIND_MESSAGES = {kind: message for message, kind in _KINDS.items()}
_MASK_SOURCES = {
    MaskSource.UPLOADED: trainer_pb2.MASK_SOURCE_UPLOADED,
    MaskSource.ALPHA: trainer_pb2.MASK_SOURCE_ALPHA,
    MaskSource.SEGMENTER: trainer_pb2.MASK_SOURCE_SEGMENTER,
}


async def upload_parts(
    requests: AsyncIterator[trainer_pb2.UploadTrainingSetRequest],
) -> AsyncIterator[UploadPart]:
    """The parts of an upload as they arrive."""
    async for request in requests:
        yield _upload_part(request)


def training_set_message(record: TrainingSetRecord) -> trainer_pb2.TrainingSet:
    """A training set as callers see it."""
    return trainer_pb2.TrainingSet(
        training_set_id=record.training_set_id,
        digest=record.digest,
        class_word=record.class_word,
        photos=[photo_message(photo) for photo in record.photos],
        warnings=record.warnings,
        keep_photos=record.keep_photos,
    )


def upload_message(record: TrainingSetRecord | None, received: Sequence[ReceivedFile]) -> trainer_pb2.GetUploadResponse:
    """How far an upload has come, as callers see it."""
    files = [
        trainer_pb2.ReceivedFile(
            kind=_KIND_MESSAGES[file.kind],
            photo_index=file.photo_index,
            sha256=file.sha256,
            received_bytes=file.received_bytes,
        )
        for file in received
    ]
    if record is None:
        return trainer_pb2.GetUploadResponse(files=files)
    return trainer_pb2.GetUploadResponse(training_set=training_set_message(record))


def _upload_part(request: trainer_pb2.UploadTrainingSetRequest) -> UploadPart:
    match request.WhichOneof("part"):
        case "header":
            header = request.header
            return UploadHeader(
                header.class_word,
                keep_photos=header.keep_photos,
                upload_id=header.upload_id,
                file_count=header.file_count,
            )
        case "file":
            file = request.file
            return FileHeader(
                kind=_KINDS.get(file.kind),
                photo_index=file.photo_index,
                file_name=file.file_name,
                size_bytes=file.size_bytes,
                sha256=file.sha256,
                caption=file.caption,
                offset_bytes=file.offset_bytes,
            )
        case "chunk":
            return Chunk(request.chunk)
        case _:
            return UnknownPart()


def photo_message(photo: PhotoRecord) -> trainer_pb2.TrainingPhoto:
    """A photo as callers see it."""
    return trainer_pb2.TrainingPhoto(
        photo_index=photo.photo_index,
        width=photo.width,
        height=photo.height,
        sha256=photo.sha256,
        mask_source=_MASK_SOURCES[photo.mask_source],
        mask_share=photo.mask_share,
        caption=photo.caption,
        file_name=photo.file_name,
    )
