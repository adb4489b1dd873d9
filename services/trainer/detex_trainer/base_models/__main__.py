"""`python -m detex_trainer.base_models`: a description request on standard input, the answer on standard output."""

import sys

from detex_core.errors import DetexError
from detex_trainer.base_models.description import DescriptionAnswer, DescriptionRequest, describe


def _answer(request: DescriptionRequest) -> DescriptionAnswer:
    try:
        return DescriptionAnswer(description=describe(request))
    except DetexError as error:
        return DescriptionAnswer(refusal=error.message, reason=error.reason)


if __name__ == "__main__":
    answer = _answer(DescriptionRequest.model_validate_json(sys.stdin.buffer.read()))
    sys.stdout.write(answer.model_dump_json())
