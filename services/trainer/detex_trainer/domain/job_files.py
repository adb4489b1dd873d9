"""Where the files of a job lie in the object store: `jobs/<tenant>/<id>/`."""

OUTCOME_FILE = "outcome.json"


def job_prefix(tenant: str, job_id: str) -> str:
    """What the keys of all files of a job begin with."""
    return f"jobs/{tenant}/{job_id}/"


def outcome_key(tenant: str, job_id: str) -> str:
    """Key of the object that decides what the job publishes, see `detex_core.artifact.publication`."""
    return f"{job_prefix(tenant, job_id)}{OUTCOME_FILE}"


def preview_key(tenant: str, job_id: str, step: int) -> str:
    """Key of a preview picture."""
    return f"{job_prefix(tenant, job_id)}preview_{step}.png"
