"""Families of base models, by which defaults are chosen."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

_USUAL_TEXT_WIDTH = 1280  # where a config names none
_SMALLEST_TEXT_WIDTH = 512
"""Of text states that a model of Stable Diffusion's kind reads: 768 in 1.x, 1,024 in 2.x, 2,048 in XL. The embedded one
reads 192."""


class BaseModelFamily(StrEnum):
    """What a base model is, as far as methods care."""

    EMBEDDED = "embedded"
    """Small ones of the embedded one's kind, trained from scratch on few words, with latents that are little more than
    patches of pixels."""
    STABLE_DIFFUSION = "stable_diffusion"
    """Stable Diffusion 1.x and 2.x."""
    STABLE_DIFFUSION_XL = "stable_diffusion_xl"


def family_of(unet_config: Mapping[str, Any]) -> BaseModelFamily:
    """The family of a base model.

    Args:
        unet_config: `unet/config.json` of its folder.
    """
    width = unet_config.get("cross_attention_dim", _USUAL_TEXT_WIDTH)
    widest = max(width, default=0) if isinstance(width, (list, tuple)) else int(width or 0)
    if widest < _SMALLEST_TEXT_WIDTH:
        return BaseModelFamily.EMBEDDED
    if unet_config.get("addition_embed_type") == "text_time":
        return BaseModelFamily.STABLE_DIFFUSION_XL
    return BaseModelFamily.STABLE_DIFFUSION
