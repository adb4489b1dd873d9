"""Errors that only the engine raises."""

import grpc

from detex_core.errors import DetexError, UnavailableError


class EngineStoppedError(UnavailableError):
    """The engine has come to an unplanned end; the service reports that it does not serve and is to be started anew."""

    reason = "ENGINE_STOPPED"

    def __init__(self) -> None:
        super().__init__("The engine of this generator has stopped; another replica or a later try can serve.")


class DeadlineExceededError(DetexError):
    """The caller's deadline passed before the request was done."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXCEEDED"

    def __init__(self) -> None:
        super().__init__("The deadline passed before the request was done.")


class NonFiniteLatentsError(DetexError):
    """The latents of an image ceased to be numbers; other images are not touched."""

    reason = "NON_FINITE_LATENTS"

    def __init__(self, image_index: int, step: int, total_steps: int) -> None:
        super().__init__(
            f"Image {image_index} could not be drawn: its latents are not finite after step {step} of {total_steps}. "
            "A concept with extreme weights, or a guidance scale too high for this base model, does this."
        )


class DrawingError(DetexError):
    """One image could not be computed, for example for lack of memory; other images are not touched."""

    reason = "DRAWING_FAILED"

    def __init__(self, image_index: int) -> None:
        super().__init__(f"Image {image_index} could not be computed; the log of the generator tells why.")
