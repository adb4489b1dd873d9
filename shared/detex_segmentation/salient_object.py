"""The subject as the salient object of a photo, found by a network such as ISNet (Qin et al., 2022).

The network sees the photo squeezed into a square and answers with one map of the same size. Its greys at the subject's
border are kept: they are the soft edges of the mask.
"""

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detex_core.errors import FailedPreconditionError, invalid_input
from detex_segmentation.box import Box
from detex_segmentation.model_store import InstalledModel, Normalization

Mask = NDArray[np.float32]

_DEFAULT_SIDE: Final = 1_024  # pixels, where the model takes any size
_LARGEST_SIDE: Final = 4_096
_ON_SUBJECT: Final = 0.5
_SMALLEST_SHARE: Final = 0.005
_LARGEST_SHARE: Final = 0.98
_MEAN = np.asarray([0.485, 0.456, 0.406], dtype=np.float32)  # of ImageNet, as torchvision's models take them
_DEVIATION = np.asarray([0.229, 0.224, 0.225], dtype=np.float32)
_TYPES: Final = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_TEST_SIDE: Final = 256
_TEST_CONTRAST: Final = 0.25  # between the test picture's disc and the rest, of 1


class SubjectNotFoundError(FailedPreconditionError):
    """The segmenter found no subject; a mask or an alpha channel would help."""

    reason = "SUBJECT_NOT_FOUND"


class SalientObjectSegmenter:
    """Runs a model on the CPU.

    Args:
        model: The model's file, ONNX with one input (1, 3, H, W); its first output is the map.
        normalization: How the model wants colours.
        threads: CPU threads; 0 leaves the number to onnxruntime.

    Raises:
        FailedPreconditionError: onnxruntime is not installed.
        InvalidInputError: The file is no such model; field `model`.
    """

    def __init__(self, model: Path, normalization: Normalization = Normalization.ISNET, *, threads: int = 0) -> None:
        self._normalization = normalization
        self._session = _session(model, threads)
        inputs = self._session.get_inputs()
        shape = inputs[0].shape if len(inputs) == 1 else []
        if len(shape) != 4 or shape[1] not in (3, None) or inputs[0].type not in _TYPES:
            given = ", ".join(f"{each.name} {each.shape} {each.type}" for each in inputs)
            raise invalid_input("model", f"inputs {given}", "a model with one input (1, 3, height, width) of floats")
        self._input = inputs[0].name
        self._output = self._session.get_outputs()[0].name
        self._type = _TYPES[inputs[0].type]
        self._height, self._width = (_side(length) for length in shape[2:])

    @classmethod
    def of(cls, installed: InstalledModel) -> "SalientObjectSegmenter":
        """The segmenter of a model that a `ModelStore` keeps."""
        return cls(installed.path, installed.normalization)

    def segment(self, photo: Image.Image, box: Box | None = None) -> Mask:
        """Find the subject.

        Args:
            photo: W x H pixels; its alpha channel is not looked at.
            box: Where the subject lies; nothing outside is taken for it. None looks everywhere.

        Returns:
            (H, W) from 0 to 1.

        Raises:
            SubjectNotFoundError: Nothing stands out from its surroundings, or everything does.
        """
        part = box.pixels(*photo.size) if box is not None else (0, 0, *photo.size)
        mask = np.zeros((photo.height, photo.width), dtype=np.float32)
        left, top, right, bottom = part
        mask[top:bottom, left:right] = self._salience(photo.convert("RGB").crop(part))
        share = float((mask[top:bottom, left:right] > _ON_SUBJECT).mean())
        if share < _SMALLEST_SHARE or (box is None and share > _LARGEST_SHARE):
            raise SubjectNotFoundError(
                f"Nothing stands out from its surroundings (the best guess covers {share:.0%} of the photo)."
            )
        return mask

    def check(self) -> None:
        """Run the model on a test picture, a dark disc on a light ground.

        Raises:
            InvalidInputError: The map has another shape, values that are no numbers, or misses the disc; field `model`.
        """
        y, x = np.mgrid[:_TEST_SIDE, :_TEST_SIDE] - _TEST_SIDE / 2
        disc = x**2 + y**2 < (_TEST_SIDE / 4) ** 2
        picture = np.where(disc[..., None], np.asarray([170, 40, 30]), np.asarray([235, 235, 230])).astype(np.uint8)
        salience = self._salience(Image.fromarray(picture))
        contrast = float(salience[disc].mean() - salience[~disc].mean())
        if not contrast >= _TEST_CONTRAST:
            raise invalid_input(
                "model",
                f"a contrast of {contrast:.2f}",
                f"a salient-object model that separates a disc from its background by {_TEST_CONTRAST:g}",
                note="try another normalization",
            )

    def _salience(self, photo: Image.Image) -> Mask:
        squeezed = photo.resize((self._width, self._height), Image.Resampling.BILINEAR)
        colors = np.asarray(squeezed, dtype=np.float32)
        if self._normalization is Normalization.ISNET:
            normal = (colors - 128) / 256
        else:
            normal = (colors / 255 - _MEAN) / _DEVIATION
        values = normal.transpose(2, 0, 1)[None].astype(self._type)
        try:
            found = np.asarray(self._session.run([self._output], {self._input: values})[0], dtype=np.float32)
        except Exception as error:  # onnxruntime has a class for each of its statuses, and no common one
            raise invalid_input("model", f"an error ({error})", "a model that runs on a photo") from None
        plane = found.squeeze()
        if plane.ndim != 2 or not np.isfinite(plane).all():
            raise invalid_input(
                "model",
                f"an output of shape {found.shape}",
                "a model with one output (1, 1, height, width) of finite numbers",
            )
        if plane.min() < -0.5 or plane.max() > 1.5:
            # logits: models end with or without the logistic function
            plane = 1 / (1 + np.exp(-plane.clip(-30, 30)))
        grown = Image.fromarray(plane).resize(photo.size, Image.Resampling.BILINEAR)
        return np.asarray(grown, dtype=np.float32).clip(0, 1)


def _session(model: Path, threads: int) -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise FailedPreconditionError(
            "Segmenting photos requires onnxruntime: install it with  pip install 'detex[segmenter]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors
    try:
        return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # as above
        raise invalid_input("model", f"{model.name} ({error})", "an ONNX file") from None


def _side(length: object) -> int:
    if not isinstance(length, int) or length < 1:  # a name: the model takes any
        return _DEFAULT_SIDE
    if length > _LARGEST_SIDE:
        raise invalid_input("model", f"a side of {length}", f"a model whose input has sides of 1 to {_LARGEST_SIDE}")
    return length
