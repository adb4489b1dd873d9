"""From what people call a product to a name that a concept may have."""

import hashlib
import re
import unicodedata

LONGEST_LABEL = 60
_LONGEST_STEM = 40


def concept_name(label: str, key: str) -> str:
    """A concept's name for a product: `Blue Mug No. 2` is `blue-mug-no-2`, with four digits of the key's hash behind.

    Names in scripts other than Latin give `product`; the label itself is kept by Studio. The digits keep two products
    of one label apart, and are the same where an order is sent twice.
    """
    plain = unicodedata.normalize("NFKD", label).encode("ascii", "ignore").decode().lower()
    stem = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:_LONGEST_STEM].strip("-")
    if not stem or not stem[0].isalpha():
        stem = f"product-{stem}".rstrip("-")
    return f"{stem}-{hashlib.sha256(key.encode()).hexdigest()[:4]}"
