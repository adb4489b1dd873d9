"""What the exit code of a catalog run means."""

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
    "Exit codes: 0 every picture is good; 1 some pictures are in review or could not be made; 2 the file or an option "
    "is at fault, and nothing was started; 3 a service was away for too long; 4 ended by SIGTERM or Ctrl-C before the "
    "end; 5 the output folder is in use by another run, or cannot be written. After 3, 4 and 5 the same command goes "
    "on."
)
