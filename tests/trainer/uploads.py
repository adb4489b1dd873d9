"""Photos, masks and the streams that send them."""

import hashlib
import io
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from PIL import Image

from detex_protos.v1 import trainer_pb2

Request = trainer_pb2.UploadTrainingSetRequest


def photo(seed: int = 0, size: tuple[int, int] = (48, 40), mode: str = "RGB") -> Image.Image:
    """A picture of random blocks."""
    blocks = np.random.default_rng(seed).integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST).convert(mode)


def mask(size: tuple[int, int] = (48, 40), share: float = 0.25) -> Image.Image:
    """A mask that is white over its upper part."""
    picture = Image.new("L", size)
    picture.paste(255, (0, 0, size[0], round(size[1] * share)))
    return picture


def cut_out(seed: int = 0, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """A photo with a transparent background."""
    picture = photo(seed, size)
    picture.putalpha(mask(size, 0.5))
    return picture


def encoded(picture: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def header(class_word: str = "mug", *, keep_photos: bool = True, upload_id: str = "", file_count: int = 0) -> Request:
    """The first part; photos stay unless it says otherwise, for most tests use a set for several jobs."""
    return Request(
        header=trainer_pb2.TrainingSetHeader(
            class_word=class_word, keep_photos=keep_photos, upload_id=upload_id, file_count=file_count
        )
    )


def file(
    data: bytes,
    index: int = 0,
    *,
    kind: int = trainer_pb2.FILE_KIND_PHOTO,
    chunk_bytes: int = 1024**2,
    **fields: Any,
) -> list[Request]:
    """The parts of one file, its header as it should be but for the fields given."""
    announced = {
        "file_name": f"{index}.png",
        "size_bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        **fields,
    }
    return [
        Request(file=trainer_pb2.FileHeader(kind=kind, photo_index=index, **announced)),
        *(Request(chunk=data[start : start + chunk_bytes]) for start in range(0, len(data), chunk_bytes)),
    ]


def mask_file(data: bytes, index: int = 0, **fields: Any) -> list[Request]:
    return file(data, index, kind=trainer_pb2.FILE_KIND_MASK, **fields)


def stream(*parts: Request | Iterable[Request]) -> Iterator[Request]:
    """All parts one after another."""
    for part in parts:
        if isinstance(part, Request):
            yield part
        else:
            yield from part


def three_photos(**fields: Any) -> Iterator[Request]:
    """An upload without fault."""
    return stream(header(**fields), *(file(encoded(cut_out(index)), index) for index in range(3)))
