"""The base models that this process serves."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from detex_core.errors import (
    DetexError,
    FailedPreconditionError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)
from detex_core.name_form import shown_text
from detex_core.object_store import ObjectStore
from detex_core.settings import BaseModelSettings
from detex_diffusion.base_model import BaseModel, load_base_model
from detex_generator.compute.packed_layers import pack_base_model
from detex_generator.settings import GeneratorSettings

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServedBaseModel:
    """A base model in memory with what was configured for it.

    Attributes:
        settings: Name, source and defaults.
        model: The loaded model.
        is_default: Whether requests that name none take it.
    """

    settings: BaseModelSettings
    model: BaseModel
    is_default: bool


class BaseModels:
    """Base models by name; safe to use from several threads.

    `load` reads all configured ones before the service reports that it serves, so that no request pays for it.
    """

    def __init__(self, settings: GeneratorSettings, object_store: ObjectStore) -> None:
        """Remember what to load; nothing is loaded yet."""
        self._settings = settings
        self._object_store = object_store
        self._lock = threading.Lock()
        self._served: dict[str, ServedBaseModel] = {}
        self._loaded = False

    def load(self, prepare: Callable[[BaseModel], None] = lambda base_model: None) -> None:
        """Load every configured base model, one after the other.

        Args:
            prepare: Called with each before anybody else has it.

        Raises:
            ResourceExhaustedError: There is not enough memory for a base model beside those before it.
            DetexError: A base model does not load; its name is in the log.
        """
        default = self._settings.base_model().name
        device, dtype = device_and_dtype(self._settings)
        # Packed layers keep their weights in a second layout.
        # Inductor lays weights out by itself.
        packs = self._settings.pack_weights and device.type == "cpu" and self._settings.compile != "on"
        copies = 2 if packs else 1
        used_bytes = 0
        for configured in self._settings.base_models:
            start = time.monotonic()
            room = self._room_bytes(device, used_bytes)
            try:
                model = self._load_one(configured, device, dtype, None if room is None else room // copies)
            except DetexError as error:
                _logger.error("Base model %s does not load: %s", configured.name, error.message)
                raise
            used_bytes += copies * model.size_bytes
            if packs:
                pack_base_model(model)
            prepare(model)
            with self._lock:
                self._served[configured.name] = ServedBaseModel(configured, model, configured.name == default)
            _logger.info(
                "Base model %s loaded in %.1f s: %s on %s as %s",
                configured.name,
                time.monotonic() - start,
                model.fingerprint[:12],
                model.device,
                model.dtype,
            )
        self._loaded = True

    def _room_bytes(self, device: torch.device, used_bytes: int) -> int | None:
        """Memory left for weights beside those that are there; None where there is no limit."""
        if self._settings.base_model_bytes:
            return self._settings.base_model_bytes - used_bytes
        return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else None

    def _load_one(
        self, configured: BaseModelSettings, device: torch.device, dtype: torch.dtype, largest_bytes: int | None
    ) -> BaseModel:
        try:
            return load_base_model(
                configured,
                device,
                dtype,
                self._object_store,
                work_folder=self._settings.work_folder,
                allow_downloads=self._settings.allow_downloads,
                largest_bytes=largest_bytes,
            )
        except (MemoryError, torch.OutOfMemoryError) as error:
            raise ResourceExhaustedError(
                f"Out of memory while loading base model {configured.name!r}; load fewer base models per process, "
                "or load them in half precision.",
                reason="BASE_MODEL_DOES_NOT_FIT",
            ) from error

    def get(self, name: str = "") -> ServedBaseModel:
        """The base model of that name, or the default for an empty one.

        Raises:
            NotFoundError: There is none of that name; the message lists those that there are.
            UnavailableError: It is still being loaded.
        """
        configured = [base_model.name for base_model in self._settings.base_models]
        wanted = name or self._settings.base_model().name
        if wanted not in configured:
            raise NotFoundError(
                f"base_model: there is no base model {shown_text(wanted)}; available: {', '.join(configured)}.",
                reason="BASE_MODEL_NOT_FOUND",
            )
        with self._lock:
            served = self._served.get(wanted)
        if served is None:
            raise UnavailableError(f"Base model {wanted!r} is still being loaded.", reason="LOADING")
        return served

    def all(self) -> list[ServedBaseModel]:
        """Those that are loaded, by name."""
        with self._lock:
            return [self._served[name] for name in sorted(self._served)]

    @property
    def loaded(self) -> bool:
        """True once all of them are."""
        return self._loaded


def device_and_dtype(settings: GeneratorSettings) -> tuple[torch.device, torch.dtype]:
    """Where base models go and as what; `auto` is a GPU in float16 where there is one, else the CPU in float32.

    Raises:
        FailedPreconditionError: A GPU is asked for and there is none.
    """
    has_gpu = torch.cuda.is_available()
    if settings.device == "cuda" and not has_gpu:
        raise FailedPreconditionError("device: must be cpu or auto where torch finds no GPU, got cuda.")
    device = torch.device("cuda" if has_gpu and settings.device != "cpu" else "cpu")
    if settings.dtype == "auto":
        return device, torch.float16 if device.type == "cuda" else torch.float32
    return device, {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[settings.dtype]
