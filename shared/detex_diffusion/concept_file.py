"""`concept.safetensors`: a concept as bytes, and back with every name, shape and number checked.

Legend: E width of word embeddings, N photos, S subject tokens, O output width of a projection, r rank.
"""

import math
import re
from collections import defaultdict

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from detex_core.artifact import Manifest
from detex_core.errors import DataLossError, FailedPreconditionError
from detex_diffusion.base_model import BaseModel
from detex_diffusion.concept import Concept
from detex_diffusion.cross_attention import cross_attention_layers
from detex_diffusion.key_value_delta import PROJECTIONS, FullDelta, LayerDelta, LowRankDelta, ProjectionDelta
from detex_diffusion.key_value_vectors import LayerVectors
from detex_diffusion.unet_delta import ParameterDelta

FILE_NAME = "concept.safetensors"
_DTYPES = {"float32": torch.float32, "float16": torch.float16}
_UNET = re.compile(r"unet\.(?P<parameter>.+?)(?P<factor>\.up|\.down)?")
_KEY_VALUE = re.compile(r"key_value\.(?P<layer>.+)\.(?P<projection>to_k|to_v)(?P<factor>\.up|\.down)?")


def save_concept(concept: Concept, dtype: torch.dtype = torch.float16) -> bytes:
    """The concept as safetensors; the same concept gives the same bytes.

    Args:
        concept: On any device.
        dtype: float32 or float16.

    Raises:
        DataLossError: A tensor is not finite in that type.
    """
    if dtype not in _DTYPES.values():
        raise ValueError(f"concepts are written in float32 or float16, not {dtype}")
    tensors = {}
    for name, tensor in sorted(concept.tensors().items()):
        tensors[name] = tensor.detach().to(device="cpu", dtype=dtype).contiguous().clone()
        if not bool(torch.isfinite(tensors[name]).all()):
            raise DataLossError(
                f"Concept {concept.reference}: tensor {name} has values that are not finite in {dtype}."
            )
    return safetensors.torch.save(tensors)


def load_concept(manifest: Manifest, data: bytes, base_model: BaseModel) -> Concept:
    """A concept on the CPU in the base model's type, fit for that base model.

    Args:
        manifest: As published.
        data: Contents of `concept.safetensors`, whose hash has been compared with the manifest.
        base_model: The one that will use it.

    Raises:
        FailedPreconditionError: It was learned on another base model.
        DataLossError: The contents are not what the manifest says, do not fit the base model, or are not finite.
    """
    reference = f"{manifest.tenant}/{manifest.name}@{manifest.version}"
    if manifest.base_model_fingerprint != base_model.fingerprint:
        raise FailedPreconditionError(
            f"Concept {reference} was learned on base model {manifest.base_model!r} with fingerprint "
            f"{manifest.base_model_fingerprint}; the base model here is {base_model.name!r} with fingerprint "
            f"{base_model.fingerprint}.",
            reason="BASE_MODEL_MISMATCH",
        )
    try:
        tensors = safetensors.torch.load(data)
    except (SafetensorError, ValueError, RuntimeError, KeyError, OverflowError) as error:
        raise DataLossError(f"Concept {reference}: {FILE_NAME} cannot be read: {error}") from error
    for name, tensor in tensors.items():
        _check(
            tensor.dtype is _DTYPES[manifest.dtype], reference, f"tensor {name} is {tensor.dtype}, not {manifest.dtype}"
        )
        _check(bool(torch.isfinite(tensor).all()), reference, f"tensor {name} has values that are not finite")
    width = base_model.embedding_width
    _check(
        manifest.embedding_width == width, reference, f"its words have {manifest.embedding_width} numbers, not {width}"
    )
    concept = Concept(
        reference=reference,
        class_word=manifest.class_word,
        subject=_taken(tensors, "subject", (manifest.subject_tokens, width), reference),
        attributes={
            attribute.name: _taken(tensors, f"attribute.{attribute.name}", (attribute.count, width), reference)
            for attribute in manifest.attributes
        },
        key_value=_key_value(tensors, manifest, base_model, reference),
        subject_key_value=_subject_key_value(tensors, manifest, base_model, reference),
        scope=manifest.key_value.scope,
        unet_delta=_unet_delta(tensors, manifest, base_model, reference),
    )
    _check(not tensors, reference, f"unknown tensors: {', '.join(sorted(tensors)[:3])}")
    return concept.to(dtype=base_model.dtype)


def _key_value(
    tensors: dict[str, Tensor], manifest: Manifest, base_model: BaseModel, reference: str
) -> dict[str, LayerDelta]:
    """Take the deltas out of the tensors."""
    shapes = {
        name: {projection: tuple(getattr(module, projection).weight.shape) for projection in ("to_k", "to_v")}
        for name, module in cross_attention_layers(base_model.unet).items()
    }
    found: dict[str, dict[str, dict[str, Tensor]]] = defaultdict(lambda: defaultdict(dict))
    for name in [name for name in tensors if name.startswith("key_value.")]:
        match = _KEY_VALUE.fullmatch(name)
        known = match is not None and match["layer"] in shapes
        _check(known, reference, f"tensor {name} belongs to no cross-attention layer of the base model")
        if match is not None:
            found[match["layer"]][match["projection"]][match["factor"] or ""] = tensors.pop(name)
    form = manifest.key_value.form
    _check((form == "none") == (not found), reference, f"form {form!r}, but deltas for {len(found)} layers")
    layers = {}
    for layer in [name for name in shapes if name in found]:
        deltas: dict[str, ProjectionDelta] = {}
        for projection, factors in found[layer].items():
            where = f"key_value.{layer}.{projection}"
            expected = {""} if form == "full" else {".up", ".down"}
            _check(set(factors) == expected, reference, f"{where} is not of form {form!r}")
            _check(all(t.ndim == 2 for t in factors.values()), reference, f"{where} holds no matrix")
            delta = FullDelta(factors[""]) if form == "full" else LowRankDelta(factors[".up"], factors[".down"])
            if isinstance(delta, LowRankDelta):
                thin = delta.up.shape[1] == delta.rank and 1 <= delta.rank <= manifest.key_value.largest_rank
                _check(thin, reference, f"{where} has factors of shapes {_shapes(delta.up, delta.down)}")
            fits = delta.shape == shapes[layer][projection]
            _check(fits, reference, f"{where} has shape {delta.shape}, the base model {shapes[layer][projection]}")
            deltas[projection] = delta
        layers[layer] = LayerDelta(**deltas)
    return layers


def _subject_key_value(
    tensors: dict[str, Tensor], manifest: Manifest, base_model: BaseModel, reference: str
) -> dict[str, LayerVectors]:
    """Take the vectors of the subject's tokens out of the tensors: those of every layer, or none."""
    if not manifest.key_value.has_subject_vectors:
        return {}
    return {
        layer: LayerVectors(
            **{
                projection: _taken(
                    tensors,
                    f"subject_key_value.{layer}.{projection}",
                    (manifest.subject_tokens, int(getattr(module, projection).weight.shape[0])),
                    reference,
                )
                for projection in PROJECTIONS
            }
        )
        for layer, module in cross_attention_layers(base_model.unet).items()
    }


def _unet_delta(
    tensors: dict[str, Tensor], manifest: Manifest, base_model: BaseModel, reference: str
) -> dict[str, ParameterDelta]:
    """Take the deltas of the UNet's parameters out of the tensors."""
    shapes = {name: tuple(parameter.shape) for name, parameter in base_model.unet.named_parameters()}
    found: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name in [name for name in tensors if name.startswith("unet.")]:
        match = _UNET.fullmatch(name)
        known = match is not None and match["parameter"] in shapes
        _check(known, reference, f"tensor {name} belongs to no parameter of the base model's UNet")
        if match is not None:
            found[match["parameter"]][match["factor"] or ""] = tensors.pop(name)
    form = manifest.unet.form
    _check((form == "none") == (not found), reference, f"UNet form {form!r}, but deltas for {len(found)} parameters")
    deltas: dict[str, ParameterDelta] = {}
    for name, factors in found.items():
        shape = shapes[name]
        if set(factors) == {""}:
            fits = tuple(factors[""].shape) == shape
            _check(fits, reference, f"unet.{name} has shape {tuple(factors[''].shape)}, the base model {shape}")
            deltas[name] = factors[""]
            continue
        whole = form == "low_rank" and set(factors) == {".up", ".down"}
        _check(whole, reference, f"unet.{name} is not of form {form!r}")
        up, down = factors[".up"], factors[".down"]
        thin = up.ndim == down.ndim == 2 and up.shape[1] == down.shape[0] <= manifest.unet.largest_rank
        thin = thin and (up.shape[0], down.shape[1]) == (shape[0], math.prod(shape[1:]))
        _check(thin, reference, f"unet.{name} has factors of shapes {_shapes(up, down)}, the base model {shape}")
        deltas[name] = LowRankDelta(up, down)
    return deltas


def _taken(tensors: dict[str, Tensor], name: str, shape: tuple[int, ...], reference: str) -> Tensor:
    tensor = tensors.pop(name, None)
    if tensor is None:
        raise DataLossError(f"Concept {reference}: tensor {name} is missing.")
    _check(tuple(tensor.shape) == shape, reference, f"tensor {name} has shape {tuple(tensor.shape)}, not {shape}")
    return tensor


def _check(holds: bool, reference: str, otherwise: str) -> None:
    if not holds:
        raise DataLossError(f"Concept {reference}: {otherwise}.")


def _shapes(*tensors: Tensor) -> str:
    return " and ".join(str(tuple(tensor.shape)) for tensor in tensors)
