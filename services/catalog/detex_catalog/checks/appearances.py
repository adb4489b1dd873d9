"""The look of each concept's product, read from its photos when its first picture comes."""

from detex_catalog.checks.likeness import ProductAppearance
from detex_catalog.checks.statistics import PictureStatistics, statistics_of
from detex_catalog.table.catalog import ConceptOrder
from detex_catalog.table.photo_files import PhotoFile
from detex_core.images import decode_mask, decode_photo


class Appearances:
    """Gives the look of a concept by its name.

    Args:
        concepts: By name.
    """

    def __init__(self, concepts: dict[str, ConceptOrder]) -> None:
        self._concepts = concepts
        self._read: dict[str, ProductAppearance | None] = {}

    def __call__(self, concept: str) -> ProductAppearance | None:
        """The look of a concept; None where the catalog names no photos of it."""
        if concept not in self._read:
            order = self._concepts[concept]
            photos = [_statistics(photo) for photo in order.references or order.photos]
            self._read[concept] = ProductAppearance(photos) if photos else None
        return self._read[concept]


def _statistics(photo: PhotoFile) -> PictureStatistics:
    image = decode_photo(photo.photo.photo.read_bytes(), field=photo.photo.photo.name)
    mask = None
    if photo.photo.mask is not None:
        mask = decode_mask(photo.photo.mask.read_bytes(), field=photo.photo.mask.name, size=image.size)
    return statistics_of(image, mask)
