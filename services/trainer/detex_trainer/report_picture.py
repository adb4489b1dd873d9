"""report.png: photos with their masks, where the subject word looks, sample pictures, losses, and the verdict."""

import io
import textwrap
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from detex_trainer.report import Report, Verdict

TILE = 112
_COLUMNS = 6
_GAP = 8
_LINE = 14
_MARGIN = 12
_WIDTH = 2 * _MARGIN + _COLUMNS * (TILE + _GAP) - _GAP
_CURVE_HEIGHT = 120
_INK, _PAPER, _FAINT = (25, 25, 25), (255, 255, 255), (225, 225, 225)
_VERDICTS = {Verdict.FIT: (20, 120, 50), Verdict.DOUBTFUL: (180, 110, 0), Verdict.UNFIT: (180, 30, 30)}
_LINES = ((30, 90, 180), (200, 90, 30), (60, 140, 60), (130, 60, 150))
_CHARACTERS = 108
_CAPTION_CHARACTERS = 18
_COLORS = 160

Heat = NDArray[np.float32]


def draw_report(
    report: Report,
    photos: Sequence[Image.Image],
    subjects: Sequence[Image.Image],
    attention: Sequence[Heat],
    samples: Sequence[Image.Image],
) -> bytes:
    """The picture as PNG of few colours, for an artifact is to stay small.

    Args:
        report: Verdict, prompts of the samples and losses.
        photos: RGB crops; the first 6 are shown.
        subjects: Grey, white where the subject is, one for each photo.
        attention: (n, n) from 0 to 1, where the subject word looks, one for each photo.
        samples: One picture for each of the report's sample prompts.
    """
    shown = min(len(photos), _COLUMNS)
    masked = [_masked(*pair) for pair in zip(photos[:shown], subjects[:shown], strict=True)]
    heated = [_heated(*pair) for pair in zip(photos[:shown], attention[:shown], strict=False)]
    lines = textwrap.wrap(report.summary, _CHARACTERS)
    described = f"; the subject: {report.subject_words}" if report.subject_words else ""
    rows = [
        (f"photos and masks{described}", masked, [_photo_caption(report, photo) for photo in range(shown)]),
        ("where the subject word looks", heated, []),
        ("samples", list(samples), list(report.sample_prompts)),
    ]
    canvas = Image.new("RGB", (_WIDTH, _height(len(lines), rows)), _PAPER)
    pen = ImageDraw.Draw(canvas)
    pen.text((_MARGIN, _MARGIN), f"{report.verdict.value.upper()}  ", fill=_VERDICTS[report.verdict], font=_font(18))
    top = _MARGIN + 26
    for line in lines:
        pen.text((_MARGIN, top), line, fill=_INK, font=_font(12))
        top += _LINE
    for title, pictures, captions in rows:
        if pictures:
            top = _row(canvas, pen, top + _GAP, title, pictures, captions)
    _curves(pen, top + _GAP, report)
    buffer = io.BytesIO()
    canvas.quantize(_COLORS, dither=Image.Dither.NONE).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _photo_caption(report: Report, photo: int) -> str:
    """How much of a photo is its subject, and the plain words that describe it: `12% subject; lying, beach`."""
    share = f"{report.mask_shares[photo]:.0%} subject" if photo < len(report.mask_shares) else ""
    words = [each[photo] for each in report.attribute_words.values() if photo < len(each) and each[photo]]
    return "; ".join(filter(None, (share, ", ".join(words))))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _height(lines: int, rows: Sequence[tuple[str, list[Image.Image], list[str]]]) -> int:
    height = _MARGIN + 26 + lines * _LINE
    for _, pictures, captions in rows:
        if pictures:
            height += _GAP + _LINE + 4 + TILE + _caption_lines(captions) * _LINE
    return height + _GAP + _LINE + 4 + _CURVE_HEIGHT + _LINE + _MARGIN


def _caption_lines(captions: Sequence[str]) -> int:
    return max((len(textwrap.wrap(caption, _CAPTION_CHARACTERS)) for caption in captions), default=0)


def _row(
    canvas: Image.Image,
    pen: ImageDraw.ImageDraw,
    top: int,
    title: str,
    pictures: Sequence[Image.Image],
    captions: Sequence[str],
) -> int:
    """Draw a title and pictures side by side; returns where the row ends."""
    pen.text((_MARGIN, top), title, fill=_INK, font=_font(12))
    top += _LINE + 4
    for column, picture in enumerate(pictures[:_COLUMNS]):
        left = _MARGIN + column * (TILE + _GAP)
        canvas.paste(picture.convert("RGB").resize((TILE, TILE), Image.Resampling.LANCZOS), (left, top))
        if column < len(captions):
            for i, line in enumerate(textwrap.wrap(captions[column], _CAPTION_CHARACTERS)):
                pen.text((left, top + TILE + i * _LINE), line, fill=_INK, font=_font(11))
    return top + TILE + _caption_lines(captions) * _LINE


def _curves(pen: ImageDraw.ImageDraw, top: int, report: Report) -> None:
    """Each loss over the steps, divided by its own highest value, and the step that was chosen."""
    names = sorted({name for point in report.loss_curve for name in point.losses} - {"total"})
    pen.text((_MARGIN, top), "losses, each as a share of its highest", fill=_INK, font=_font(12))
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
        pen.text((left, bottom + 2), name, fill=color, font=_font(12))
        left += 90
    note = f"chosen: step {report.chosen_step}"
    pen.text((right, bottom + 2), note, fill=_VERDICTS[Verdict.FIT], font=_font(12), anchor="ra")


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
