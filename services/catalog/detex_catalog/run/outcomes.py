"""What becomes of pictures that were drawn: accepted, redrawn, or put aside for people."""

import hashlib

from detex_catalog.checks.near_duplicates import AcceptedHashes
from detex_catalog.checks.picture_check import PictureCheck
from detex_catalog.run.news import DrawingTask
from detex_catalog.run.picture_folder import PICTURES, REVIEW, PictureFolder
from detex_catalog.run.recorder import Recorder
from detex_catalog.run.run_state import PictureStatus, Try
from detex_catalog.table.catalog import PictureOrder


class Outcomes:
    """Decides about one picture after the other. A file is on the disk before the journal tells of it.

    Args:
        recorder: Journal and state.
        folder: Where pictures go.
        check: What they are checked for.
        hashes: Of accepted pictures, which the check looks into.
        max_redraws: Of pictures whose row names no number.
    """

    def __init__(
        self,
        recorder: Recorder,
        folder: PictureFolder,
        check: PictureCheck,
        hashes: AcceptedHashes,
        max_redraws: int,
    ) -> None:
        self._recorder = recorder
        self._folder = folder
        self._check = check
        self._hashes = hashes
        self._max_redraws = max_redraws

    def remember(self, order: PictureOrder) -> None:
        """Take a picture of an earlier run into account."""
        state = self._recorder.state.picture(order)
        if state.status is PictureStatus.ACCEPTED and state.kept is not None:
            self._hashes.add(order.concept, order.output, state.kept.perceptual_hash)

    def drawn(self, task: DrawingTask, png: bytes) -> bool:
        """Take a picture in; whether that decides about it, or it must be drawn again."""
        order = task.order
        checked = self._check.check(png, concept=order.concept, output=order.output, min_likeness=order.min_likeness)
        found = Try(
            number=task.number,
            seed=task.seed,
            sha256=hashlib.sha256(png).hexdigest(),
            size_bytes=len(png),
            version=task.versions.get(order.concept, ""),
            perceptual_hash=checked.perceptual_hash,
            reasons=checked.reasons,
            measures=checked.measures,
        )
        if not checked.reasons:
            self._folder.write(PICTURES, order.output, png)
            self._recorder.tried("accepted", order, found)
            self._folder.remove(REVIEW, order.output)
            self._hashes.add(order.concept, order.output, found.perceptual_hash)
            return True
        kept = found.better_than(self._recorder.state.picture(order).kept)
        if kept:
            self._folder.write(REVIEW, order.output, png)
        self._recorder.tried("try", order, found, kept=kept)
        redraws = self._max_redraws if order.max_redraws is None else order.max_redraws
        if self._recorder.state.picture(order).tries_left(redraws):
            return False
        self._recorder.picture("review", order)
        self._folder.remove(PICTURES, order.output)
        return True

    def failed(self, order: PictureOrder, message: str) -> None:
        """A picture cannot be drawn; a later run tries again."""
        self._recorder.picture("failed", order, message=message)
