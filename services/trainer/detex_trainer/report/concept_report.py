"""The report of a published concept, for who asks whether the concept can be used."""

from dataclasses import dataclass

from pydantic import ValidationError

from detex_core.artifact import ConceptArchive, StoredManifest
from detex_core.errors import DataLossError, NotFoundError
from detex_trainer.report.training_report import Candidate, Report

REPORT_FILE = "report.json"
PICTURE_FILE = "report.png"


@dataclass(frozen=True)
class ConceptReport:
    """A report as it was published.

    Attributes:
        stored: Of which concept.
        report: What it says.
        report_json: The file.
        picture_png: The picture; empty where none was published.
    """

    stored: StoredManifest
    report: Report
    report_json: bytes
    picture_png: bytes

    @property
    def choice(self) -> str:
        """Which state of the training was published, and why, as a human-readable sentence."""
        report = self.report
        if len(report.candidates) < 2:
            return f"The published state is the one after all {report.steps:,} steps."
        looked_at = ", ".join(f"{candidate.step:,}" for candidate in report.candidates)
        chosen = next(each for each in report.candidates if each.step == report.chosen_step)
        why = "it is the closest to the photos"
        if chosen.loss > min(each.loss for each in report.candidates):
            why = "it is within 2 % of the closest to the photos and has the least background leakage"
        elif _leaks_least(chosen, report.candidates):
            why = "it is the closest to the photos and has the least background leakage"
        return (
            f"The published state is the one after step {report.chosen_step:,} of {report.steps:,}: of those after "
            f"{looked_at}, {why}."
        )


def _leaks_least(chosen: Candidate, candidates: tuple[Candidate, ...]) -> bool:
    return all(chosen.leakage <= each.leakage for each in candidates)


def read_report(concepts: ConceptArchive, tenant: str, name: str, version: str = "") -> ConceptReport:
    """The report of a version of a concept, or of the newest where none is named.

    Raises:
        NotFoundError: There is no such concept or version, or it was published without a report (reason
            `REPORT_NOT_FOUND`).
        DataLossError: The report is damaged.
    """
    stored = concepts.resolve(tenant, name, version)
    if REPORT_FILE not in stored.manifest.files:
        raise NotFoundError(
            f"Concept {name!r}, version {stored.manifest.version}, was published without a report.",
            reason="REPORT_NOT_FOUND",
        )
    data = concepts.read(stored, REPORT_FILE)
    try:
        report = Report.model_validate_json(data)
    except ValidationError as error:
        raise DataLossError(
            f"The report of concept {name!r}, version {stored.manifest.version}, cannot be read by this trainer."
        ) from error
    picture = concepts.read(stored, PICTURE_FILE) if PICTURE_FILE in stored.manifest.files else b""
    return ConceptReport(stored, report, data, picture)
