"""Pictures of one product that are nearly the same: perceptual hashes (Zauner, 2010; the library `imagehash`)."""

import imagehash
from PIL import Image


def perceptual_hash(image: Image.Image) -> str:
    """The 64-bit hash of a picture's low frequencies, in hexadecimal."""
    return str(imagehash.phash(image))


class AcceptedHashes:
    """Hashes of the pictures that are accepted, by concept."""

    def __init__(self) -> None:
        self._by_concept: dict[str, dict[str, int]] = {}

    def add(self, concept: str, output: str, hexadecimal: str) -> None:
        """Remember an accepted picture."""
        self._by_concept.setdefault(concept, {})[output] = int(hexadecimal, 16)

    def remove(self, concept: str, output: str) -> None:
        """Forget one that no longer is."""
        self._by_concept.get(concept, {}).pop(output, None)

    def nearest(self, concept: str, output: str, hexadecimal: str) -> tuple[str, int] | None:
        """The nearest other picture of the concept and its distance in bits, 0 to 64; None where there is no other."""
        given = int(hexadecimal, 16)
        others = self._by_concept.get(concept, {})
        distances = ((name, (value ^ given).bit_count()) for name, value in others.items() if name != output)
        return min(distances, key=lambda found: (found[1], found[0]), default=None)
