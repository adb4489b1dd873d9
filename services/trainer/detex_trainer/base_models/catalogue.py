"""The descriptions of the trainer's base models."""

import asyncio
import logging
import math
import sys
import time
from collections.abc import Sequence

from pydantic import ValidationError

from detex_core.errors import DataLossError, DetexError, FailedPreconditionError, UnavailableError
from detex_core.settings import BaseModelSettings
from detex_trainer.base_models.description import BaseModelDescription, DescriptionAnswer, DescriptionRequest
from detex_trainer.settings import TrainerSettings

_REFUSAL_SECONDS = 30.0
_LASTING = ("BASE_MODEL_UNSUPPORTED", "BASE_MODEL_DAMAGED")
_COMMAND = (sys.executable, "-m", "detex_trainer.base_models")

_log = logging.getLogger(__name__)


class BaseModelCatalogue:
    """Describes base models in child processes, because that takes torch; remembers what it has found.

    A base model that cannot be had is looked at again after half a minute.
    """

    def __init__(self, settings: TrainerSettings) -> None:
        self._settings = settings
        self._known: dict[str, BaseModelDescription] = {}
        self._refused: dict[str, tuple[float, FailedPreconditionError]] = {}
        self._lock = asyncio.Lock()

    def known(self, name: str = "") -> BaseModelDescription | None:
        """What is known already of the base model of that name, or of the default; None where nothing is."""
        return self._known.get(self._settings.base_model(name).name)

    async def describe(self, name: str = "") -> BaseModelDescription:
        """The base model of that name, or the default for an empty one.

        Raises:
            InvalidInputError: There is none of that name.
            FailedPreconditionError: It cannot be had.
        """
        base_model = self._settings.base_model(name)
        async with self._lock:
            if base_model.name in self._known:
                return self._known[base_model.name]
            when, refusal = self._refused.get(base_model.name, (-math.inf, None))
            if refusal is not None and time.monotonic() - when < _REFUSAL_SECONDS:
                raise refusal
            try:
                self._known[base_model.name] = await _describe(self._request(base_model))
            except FailedPreconditionError as error:
                self._refused[base_model.name] = (time.monotonic(), error)
                raise
            return self._known[base_model.name]

    async def find(self, name: str = "") -> BaseModelDescription | None:
        """The base model of that name, or the default; None where there is none, or it cannot be had now.

        Waits where it is being looked at, but does not look again at one that could not be had.

        Raises:
            FailedPreconditionError: Its folder was read and is damaged or of a kind that is not supported, so that no
                job can train on it.
        """
        try:
            base_model = self._settings.base_model(name)
            _, refusal = self._refused.get(base_model.name, (-math.inf, None))
            if refusal is not None and base_model.name not in self._known and refusal.reason not in _LASTING:
                return None
            return await self.describe(name)
        except DetexError as error:
            if error.reason in _LASTING:
                raise
            return None

    async def list(self) -> Sequence[BaseModelDescription]:
        """All available base models, by name; the others are logged.

        Raises:
            FailedPreconditionError: There are none.
        """
        descriptions = []
        refusal = ""
        for name in sorted(base_model.name for base_model in self._settings.base_models):
            try:
                descriptions.append(await self.describe(name))
            except FailedPreconditionError as error:
                _log.warning("base model %s left out: %s", name, error.message)
                refusal = error.message
        if not descriptions:
            raise FailedPreconditionError(f"No base model is available. {refusal}", reason="NO_BASE_MODEL")
        return descriptions

    def _request(self, base_model: BaseModelSettings) -> DescriptionRequest:
        return DescriptionRequest(
            base_model=base_model,
            object_store_url=self._settings.object_store.url,
            work_folder=self._settings.work_folder,
            allow_downloads=self._settings.allow_downloads,
        )


async def _describe(request: DescriptionRequest) -> BaseModelDescription:
    try:
        process = await asyncio.create_subprocess_exec(
            *_COMMAND,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise UnavailableError(f"The base models cannot be read: {error.strerror}.") from error
    try:
        output, log = await process.communicate(request.model_dump_json().encode())
    finally:
        if process.returncode is None:
            process.kill()
    try:
        answer = DescriptionAnswer.model_validate_json(output)
    except ValidationError:
        _log.error("base model %s not described\n%s", request.base_model.name, log.decode(errors="replace")[-4_000:])
        answer = DescriptionAnswer(refusal="Its files could not be read; see the trainer's log.")
    if answer.description is None:
        reason = "BASE_MODEL_DAMAGED" if answer.reason == DataLossError.reason else answer.reason or None
        raise FailedPreconditionError(f"Base model {request.base_model.name!r}: {answer.refusal}", reason=reason)
    return answer.description
