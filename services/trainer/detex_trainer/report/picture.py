"""report.png: whose it is, the verdict, photos with their masks, where the word looks, sample pictures, losses.

It is read by people who decide whether a concept goes into a catalog, not by those who trained it.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from detex_trainer.report.training_report import Report, Verdict

TILE = 112
_COLUMNS = 6
_GAP = 8
_LINE = 14
_MARGIN = 12
_WIDTH = 2 * _MARGIN + _COLUMNS * (TILE + _GAP) - _GAP
_CURVE_HEIGHT = 120
_HEAD = 68
_INK, _PAPER, _FAINT, _QUIET = (25, 25, 25), (255, 255, 255), (225, 225, 225), (100, 100, 100)
_VERDICTS = {Verdict.FIT: (20, 120, 50), Verdict.DOUBTFUL: (180, 110, 0), Verdict.UNFIT: (180, 30, 30)}
_VERDICT_WORDS = {
    Verdict.FIT: "Fit for use",
    Verdict.DOUBTFUL: "Check its pictures first",
    Verdict.UNFIT: "Not fit for use",
}
_LINES = ((30, 90, 180), (200, 90, 30), (60, 140, 60), (130, 60, 150))
_BODY, _SMALL = 12, 11
_LOSSES = {
    "denoising": "how far its pictures are from the photos",
    "attention": "how much the word looks beside the product",
    "prior": "how much the class has changed",
}
_COLORS = 256

Heat = NDArray[np.float32]


@dataclass(frozen=True)
class ReportTitle:
    """Whose report it is.

    Attributes:
        name: Of the concept.
        class_word: What the subject is.
        version: Of the concept; begins with the time of publication.
        base_model: Name of the base model.
    """

    name: str
    class_word: str
    version: str
    base_model: str

    @property
    def date(self) -> str:
        """When it was published, human-readable; empty where the version does not begin with a time."""
        try:
            time = datetime.strptime(self.version.partition("-")[0], "%Y%m%dT%H%M%SZ")  # noqa: DTZ007  told as UTC
        except ValueError:
            return ""
        return f"{time.day} {time:%B %Y, %H:%M} UTC"


def draw_report(
    report: Report,
    title: ReportTitle,
    photos: Sequence[Image.Image],
    subjects: Sequence[Image.Image],
    attention: Sequence[Heat],
    samples: Sequence[Image.Image],
) -> bytes:
    """The picture as PNG of few colours, for an artifact is to stay small.

    Args:
        report: Verdict, prompts of the samples and losses.
        title: Whose it is.
        photos: RGB crops; the first 6 are shown.
        subjects: Grey, white where the subject is, one for each photo.
        attention: (n, n) from 0 to 1, where the subject word looks, one for each photo.
        samples: One picture for each of the report's sample prompts.
    """
    shown = min(len(photos), _COLUMNS)
    masked = [_masked(*pair) for pair in zip(photos[:shown], subjects[:shown], strict=True)]
    heated = [_heated(*pair) for pair in zip(photos[:shown], attention[:shown], strict=False)]
    facts = "   ".join(filter(None, (f"version {title.version}", f"base model {title.base_model}", title.date)))
    lines = wrapped(report.summary, _BODY, _WIDTH - 2 * _MARGIN)
    described = f" Initial description: {report.subject_words}." if report.subject_words else ""
    rows = [
        (
            f"The photos. The product as segmented is bright, the rest dimmed.{described}",
            masked,
            [_photo_caption(report, photo) for photo in range(shown)],
        ),
        (f"Attention of the word [{title.name}]: red should be on the product.", heated, []),
        (
            "Generated samples. The last picture is a generic product of the class, for comparison.",
            [*samples],
            list(report.sample_prompts),
        ),
    ]
    canvas = Image.new("RGB", (_WIDTH, _height(len(lines), rows)), _PAPER)
    pen = ImageDraw.Draw(canvas)
    pen.text(
        (_MARGIN, _MARGIN),
        _fitting(f"[{title.name}], {title.class_word}", 18, _WIDTH - 2 * _MARGIN),
        fill=_INK,
        font=_font(18),
    )
    pen.text((_MARGIN, _MARGIN + 24), _fitting(facts, _SMALL, _WIDTH - 2 * _MARGIN), fill=_QUIET, font=_font(_SMALL))
    pen.text((_MARGIN, _MARGIN + 44), _VERDICT_WORDS[report.verdict], fill=_VERDICTS[report.verdict], font=_font(16))
    top = _MARGIN + _HEAD
    for line in lines:
        pen.text((_MARGIN, top), line, fill=_INK, font=_font(_BODY))
        top += _LINE
    for heading, pictures, captions in rows:
        if pictures:
            top = _row(canvas, pen, top + _GAP, heading, pictures, captions)
    _curves(pen, top + _GAP, report)
    buffer = io.BytesIO()
    canvas.quantize(_COLORS, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(
        buffer, format="PNG", optimize=True
    )
    return buffer.getvalue()


def _photo_caption(report: Report, photo: int) -> str:
    """How much of a photo is its subject, and the plain words that describe it."""
    share = f"product: {report.mask_shares[photo]:.0%} of the photo" if photo < len(report.mask_shares) else ""
    words = [each[photo] for each in report.attribute_words.values() if photo < len(each) and each[photo]]
    return "; ".join(filter(None, (share, f"seen as {', '.join(words)}" if words else "")))


def wrapped(text: str, size: int, width: int) -> list[str]:
    """Text in lines no wider than so many pixels.

    Lines break at spaces and, inside of words of concepts that no line holds, behind colons and hyphens, never
    elsewhere: what is still too wide ends in an ellipsis.
    """
    lines: list[str] = []
    for word in text.split():
        pieces = [word]
        if word.startswith("[") and _width(word, size) > width:
            pieces = re.findall(r"[^:-]*[:-]|[^:-]+", word)
        for position, piece in enumerate(pieces):
            joined = f"{lines[-1]}{'' if position else ' '}{piece}" if lines else piece
            if lines and _width(joined, size) <= width:
                lines[-1] = joined
            else:
                lines.append(_fitting(piece, size, width))
    return lines


def _fitting(text: str, size: int, width: int) -> str:
    """The text, shortened by an ellipsis where it is too wide."""
    if _width(text, size) <= width:
        return text
    kept = len(text)
    while kept and _width(text[:kept] + "…", size) > width:
        kept -= 1
    return text[:kept] + "…"


def _width(text: str, size: int) -> float:
    return float(_font(size).getlength(text))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _height(lines: int, rows: Sequence[tuple[str, list[Image.Image], list[str]]]) -> int:
    height = _MARGIN + _HEAD + lines * _LINE
    for _, pictures, captions in rows:
        if pictures:
            height += _GAP + _LINE + 4 + TILE + _caption_lines(captions) * _LINE
    return height + _GAP + _LINE + 4 + _CURVE_HEIGHT + _LINE + _MARGIN


def _caption_lines(captions: Sequence[str]) -> int:
    return max((len(wrapped(caption, _SMALL, TILE)) for caption in captions), default=0)


def _row(
    canvas: Image.Image,
    pen: ImageDraw.ImageDraw,
    top: int,
    title: str,
    pictures: Sequence[Image.Image],
    captions: Sequence[str],
) -> int:
    """Draw a title and pictures side by side; returns where the row ends."""
    pen.text((_MARGIN, top), _fitting(title, _BODY, _WIDTH - 2 * _MARGIN), fill=_INK, font=_font(_BODY))
    top += _LINE + 4
    for column, picture in enumerate(pictures[:_COLUMNS]):
        left = _MARGIN + column * (TILE + _GAP)
        canvas.paste(picture.convert("RGB").resize((TILE, TILE), Image.Resampling.LANCZOS), (left, top))
        if column < len(captions):
            for i, line in enumerate(wrapped(captions[column], _SMALL, TILE)):
                pen.text((left, top + TILE + i * _LINE), line, fill=_INK, font=_font(_SMALL))
    return top + TILE + _caption_lines(captions) * _LINE


def _curves(pen: ImageDraw.ImageDraw, top: int, report: Report) -> None:
    """Each loss over the steps, divided by its own highest value, and the step that was chosen."""
    names = sorted({name for point in report.loss_curve for name in point.losses} - {"total"})
    pen.text(
        (_MARGIN, top),
        "Training losses: lower is better. The green line marks the published state.",
        fill=_INK,
        font=_font(12),
    )
    top += _LINE + 4
    right, bottom = _WIDTH - _MARGIN, top + _CURVE_HEIGHT
    pen.rectangle((_MARGIN, top, right, bottom), outline=_FAINT)

    def across(step: int) -> float:
        return _MARGIN + (right - _MARGIN) * step / max(report.steps, 1)

    chosen = across(report.chosen_step)
    pen.line((chosen, top, chosen, bottom), fill=_VERDICTS[Verdict.FIT], width=2)
    for name, color in zip(names, _LINES, strict=False):
        points = [(point.step, point.losses[name]) for point in report.loss_curve if name in point.losses]
        highest = max((value for _, value in points), default=0.0) or 1.0
        path = [(across(step), bottom - (bottom - top - 4) * value / highest) for step, value in points]
        if len(path) > 1:
            pen.line(path, fill=color, width=2)
    left = _MARGIN
    for name, color in zip(names, _LINES, strict=False):
        said = _LOSSES.get(name, name)
        pen.text((left, bottom + 2), said, fill=color, font=_font(_SMALL))
        left += round(_width(said, _SMALL)) + 2 * _GAP
    note = f"kept: step {report.chosen_step} of {report.steps}"
    pen.text((right, bottom + 2), note, fill=_VERDICTS[Verdict.FIT], font=_font(_SMALL), anchor="ra")


def _masked(photo: Image.Image, subject: Image.Image) -> Image.Image:
    """The photo with everything but its subject dimmed."""
    mask = np.asarray(subject.resize(photo.size), dtype=np.float32)[..., None] / 255
    return Image.fromarray((np.asarray(photo, dtype=np.float32) * (0.3 + 0.7 * mask)).astype(np.uint8))


def _heated(photo: Image.Image, attention: Heat) -> Image.Image:
    """The photo in grey under the attention in red."""
    grey = np.asarray(photo.convert("L"), dtype=np.float32)[..., None].repeat(3, axis=2)
    map_ = Image.fromarray((attention.clip(0, 1) * 255).astype(np.uint8)).resize(photo.size, Image.Resampling.BILINEAR)
    heat = np.asarray(map_, dtype=np.float32)[..., None] / 255
    red = np.array((230, 40, 20), dtype=np.float32)
    return Image.fromarray((grey * (1 - 0.7 * heat) + red * 0.7 * heat).astype(np.uint8))
