"""What a call is about, for the audit log: names of concepts, ids of jobs and training sets, and nothing else."""

from collections.abc import Mapping
from typing import Any

from detex_core.errors import DetexError
from detex_core.prompt import parse_prompt

_FIELDS = {
    "job_id": "job",
    "training_set_id": "training_set",
    "upload_id": "upload",
    "concept_name": "concept",
    "name": "concept",
}
_MOST_CHARACTERS = 200
_LONGEST_PROMPT = 4_000


def subject_of_call(message: Any) -> Mapping[str, str]:
    """By kind (`job`, `training_set`, `upload`, `concept`); of messages that come as a stream nothing is known."""
    fields: Mapping[str, Any] = getattr(getattr(message, "DESCRIPTOR", None), "fields_by_name", {})
    found = {kind: str(getattr(message, name)) for name, kind in _FIELDS.items() if name in fields}
    if "reference" in fields:
        reference = message.reference
        found["concept"] = "@".join(part for part in (str(reference.name), str(reference.version)) if part)
    # Prompts that no service takes are not read through: this is on the event loop.
    if "prompt" in fields and len(message.prompt) <= _LONGEST_PROMPT:
        try:
            found["concept"] = ", ".join(parse_prompt(str(message.prompt)).concepts())
        except DetexError:
            found["concept"] = ""
    return {kind: text[:_MOST_CHARACTERS] for kind, text in found.items() if text}
