"""Errors that only the engine raises."""

import grpc

from detex_core.errors import DetexError, ResourceExhaustedError, UnavailableError
from detex_generator.compute.device_errors import is_out_of_memory


class EngineStoppedError(UnavailableError):
    """The engine has come to an unplanned end; the service reports that it does not serve and is to be restarted."""

    reason = "ENGINE_STOPPED"

    def __init__(self) -> None:
        super().__init__("The engine of this generator has stopped; another replica or a later try can serve.")


class DeadlineExceededError(DetexError):
    """The caller's deadline passed before the request was done."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXCEEDED"

    def __init__(self) -> None:
        super().__init__("The deadline passed before the request was done.")


class HopelessDeadlineError(DeadlineExceededError):
    """The caller's deadline has not passed, but cannot be met: no work is done for it."""

    reason = "DEADLINE_CANNOT_BE_MET"

    def __init__(self, least_seconds: float, left_seconds: float) -> None:
        """Tell how long it takes at least, and how long the caller still waits."""
        DetexError.__init__(
            self,
            f"The request takes {least_seconds:.2f} s at least, by the time of a denoising step as measured, and its "
            f"deadline is {max(0.0, left_seconds):.2f} s away.",
        )


class OutOfMemoryError(ResourceExhaustedError):
    """There was no memory for an image; caches have made room, and others are not touched."""

    reason = "OUT_OF_MEMORY"

    def __init__(self, image_index: int) -> None:
        super().__init__(
            f"There is no memory to draw image {image_index} now; a later try, or a smaller image, may succeed.",
            retry_delay_seconds=1.0,
        )


class NonFiniteLatentsError(DetexError):
    """The latents of an image ceased to be numbers; other images are not touched."""

    reason = "NON_FINITE_LATENTS"

    def __init__(self, image_index: int, step: int, total_steps: int) -> None:
        super().__init__(
            f"Image {image_index} could not be drawn: its latents are not finite after step {step} of {total_steps}. "
            "A concept with extreme weights, or a guidance scale too high for this base model, does this."
        )


class DrawingError(DetexError):
    """One image could not be computed; other images are not touched."""

    reason = "DRAWING_FAILED"

    def __init__(self, image_index: int) -> None:
        super().__init__(f"Image {image_index} could not be computed; the log of the generator tells why.")


def drawing_error(error: BaseException, image_index: int) -> DetexError:
    """What the caller of an image hears of an exception that it caused."""
    if isinstance(error, DetexError):
        return error
    return OutOfMemoryError(image_index) if is_out_of_memory(error) else DrawingError(image_index)
