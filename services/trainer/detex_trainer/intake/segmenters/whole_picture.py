"""The segmenter that takes the whole picture for the subject: no decoupling by masks."""

from PIL import Image

from detex_trainer.intake.masks import Mask, whole_picture


class WholePictureSegmenter:
    """For methods that know no masks, and for photos that show nothing but the subject."""

    def segment(self, photo: Image.Image) -> Mask:
        """Ones (H, W)."""
        return whole_picture(photo.width, photo.height)
