"""What a segmenter does."""

from typing import Protocol

from PIL import Image

from detex_trainer.intake.masks import Mask


class Segmenter(Protocol):
    """Finds the subject of a photo that came without a mask."""

    def segment(self, photo: Image.Image) -> Mask:
        """Find the subject.

        Args:
            photo: Mode RGB, W x H pixels.

        Returns:
            (H, W) from 0 to 1.

        Raises:
            SubjectNotFoundError: Nothing stands out from its surroundings.
        """
