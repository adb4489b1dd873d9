"""Exit codes of a catalog run."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of `detex catalog`."""

    ALL_GOOD = 0
    REVIEW = 1
    INPUT_AT_FAULT = 2
    SERVICES_AWAY = 3
    ENDED_EARLY = 4
    FOLDER_UNUSABLE = 5


EXIT_CODES = (
    "Exit codes: 0 all pictures passed; 1 some pictures are in review or failed; 2 the file or an option is invalid, "
    "and nothing was started; 3 a service was unavailable for too long; 4 stopped by SIGTERM or Ctrl-C; 5 the output "
    "folder is in use by another run or not writable. After 3, 4 and 5 the same command resumes the run."
)
