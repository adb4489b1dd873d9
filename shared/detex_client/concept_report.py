"""What a trainer says of a concept that it has trained."""

from dataclasses import dataclass, field
from typing import Self

from detex_client.concept import ConceptReference
from detex_client.wire_enum import Verdict
from detex_protos.v1 import trainer_pb2


@dataclass(frozen=True)
class ConceptReport:
    """The report of a concept.

    Attributes:
        reference: Whose it is.
        verdict: Whether the concept is fit for use.
        summary: The verdict in a sentence.
        findings: What may be wrong and what to do about it; empty where nothing is.
        choice: Which state of the training was published, and why.
        report_json: All that was measured, as JSON.
        report_png: A picture to look at; empty where none was published.
    """

    reference: ConceptReference
    verdict: Verdict
    summary: str
    findings: tuple[str, ...]
    choice: str
    report_json: bytes = field(repr=False)
    report_png: bytes = field(repr=False)

    @classmethod
    def from_wire(cls, report: trainer_pb2.GetConceptReportResponse) -> Self:
        """From the message of the contract."""
        return cls(
            reference=ConceptReference.from_wire(report.reference),
            verdict=Verdict.from_number(report.verdict),
            summary=report.summary,
            findings=tuple(report.findings),
            choice=report.choice,
            report_json=report.report_json,
            report_png=report.report_png,
        )
