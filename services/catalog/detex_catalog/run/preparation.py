"""From what the journals tell to what is left to do: files looked after, marks applied."""

from collections.abc import Iterable

from detex_catalog.run.marks import Decision, Mark
from detex_catalog.run.picture_folder import PICTURES, REVIEW, PictureFolder
from detex_catalog.run.recorder import Recorder
from detex_catalog.run.run_state import PictureStatus
from detex_catalog.table.catalog import PictureOrder


def settle_files(orders: Iterable[PictureOrder], recorder: Recorder, folder: PictureFolder) -> None:
    """Bring files into line with the journal: finish what a kill left between the two, reopen what is missing."""
    for order in orders:
        state = recorder.state.picture(order)
        kept = state.kept
        match state.status:
            case PictureStatus.ACCEPTED if kept is not None:
                if not folder.holds(PICTURES, order.output, kept.size_bytes):
                    if folder.holds(REVIEW, order.output, kept.size_bytes) and state.approved:
                        folder.move(order.output, REVIEW, PICTURES)
                    else:
                        recorder.picture("reopened", order, next_round=False, why="the picture is missing")
                        continue
                folder.remove(REVIEW, order.output)
            case PictureStatus.REVIEW if kept is not None:
                if not folder.holds(REVIEW, order.output, kept.size_bytes):
                    recorder.picture("reopened", order, next_round=False, why="the picture is missing")
                else:
                    folder.remove(PICTURES, order.output)
            case PictureStatus.FAILED:
                recorder.picture("reopened", order, next_round=False, why="tried again")
            case _ if order.output in recorder.state.pictures and kept is None:
                # Rejected; of an order that has changed, the former picture stays until there is another.
                if recorder.state.pictures[order.output].fingerprint == order.fingerprint:
                    folder.remove(PICTURES, order.output)
                    folder.remove(REVIEW, order.output)


def apply_marks(
    marks: Iterable[Mark], orders: Iterable[PictureOrder], recorder: Recorder, folder: PictureFolder
) -> tuple[int, int]:
    """Move what was approved, reopen what was rejected; pictures approved and rejected.

    A mark of a picture that has been replaced since says nothing and is passed over.
    """
    by_output = {order.output: order for order in orders}
    approved = rejected = 0
    for mark in marks:
        order = by_output.get(mark.output)
        state = None if order is None else recorder.state.picture(order)
        if order is None or state is None or state.kept is None or not state.kept.sha256.startswith(mark.sha256):
            continue
        if mark.decision is Decision.REJECT and state.status in (PictureStatus.ACCEPTED, PictureStatus.REVIEW):
            recorder.picture("reopened", order, next_round=True, why="rejected")
            folder.remove(PICTURES, order.output)
            folder.remove(REVIEW, order.output)
            rejected += 1
        elif mark.decision is Decision.APPROVE and state.status is PictureStatus.REVIEW:
            recorder.picture("approved", order)
            folder.move(order.output, REVIEW, PICTURES)
            approved += 1
    return approved, rejected
