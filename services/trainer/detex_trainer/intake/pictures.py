"""A photo and its mask, decoded from what a caller sent."""

from dataclasses import dataclass

from PIL import Image, ImageStat

from detex_core.images import decode_mask, decode_photo, decoding_bytes
from detex_trainer.domain.training_set_record import MaskSource
from detex_trainer.intake.upload_parts import UploadedFile, naming_file

_WHITE = (255, 255, 255, 255)
_SUBJECT_LEVEL = 128


@dataclass(frozen=True)
class DecodedPhoto:
    """A photo with its mask.

    Attributes:
        picture: Mode RGB; transparent parts are white.
        mask: Mode L, of the same size; None where the segmenter is to find the subject.
        mask_source: Where the mask comes from.
    """

    picture: Image.Image
    mask: Image.Image | None
    mask_source: MaskSource

    @property
    def mask_share(self) -> float:
        """Share of the picture that the mask covers, 0 to 1; 0 where there is no mask."""
        return 0.0 if self.mask is None else float(ImageStat.Stat(self.mask).mean[0] / 255)


def decoding_bytes_of(photo: UploadedFile, mask: UploadedFile | None) -> int:
    """Memory that `decode_pictures` takes, by the headers of the files. Raises InvalidInputError as it does."""
    total = 0
    for file in (photo,) if mask is None else (photo, mask):
        with naming_file(file.header):
            total += decoding_bytes(file.path.read_bytes(), field=file.field)
    return total


def decode_pictures(photo: UploadedFile, mask: UploadedFile | None) -> DecodedPhoto:
    """Decode a photo; its mask is the one sent with it, or else its own alpha channel.

    Raises:
        InvalidInputError: A file is no picture that can be taken, or the mask has another size than the photo; the
            field is that of the file.
    """
    with naming_file(photo.header):
        picture = decode_photo(photo.path.read_bytes(), field=photo.field)
    alpha = picture.getchannel("A") if picture.mode == "RGBA" else None
    if alpha is not None:
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, _WHITE), picture).convert("RGB")
    if mask is not None:
        with naming_file(mask.header):
            sent = decode_mask(mask.path.read_bytes(), field=mask.field, size=picture.size)
        return DecodedPhoto(picture, sent, MaskSource.UPLOADED)
    if alpha is not None and _shows_subject(alpha):
        return DecodedPhoto(picture, alpha, MaskSource.ALPHA)
    return DecodedPhoto(picture, None, MaskSource.SEGMENTER)


def _shows_subject(alpha: Image.Image) -> bool:
    # A photo that is half transparent all over, a watermark for example, says nothing about where its subject is.
    counts = alpha.histogram()
    return sum(counts[_SUBJECT_LEVEL:]) > 0
