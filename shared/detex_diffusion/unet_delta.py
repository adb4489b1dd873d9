"""What a concept adds to parameters of the UNet itself, and the UNet that has it: for methods that train the UNet.

Such a concept cannot share the passes of others as one that only brings words, keys and values does: it is drawn with
a UNet of its own, the base's with these deltas added.

Legend: O size of a parameter's first axis, I product of its other axes, r rank.
"""

import copy
from collections.abc import Mapping

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from detex_diffusion.key_value_delta import LowRankDelta

ParameterDelta = Tensor | LowRankDelta
"""Of the parameter's own shape, or as factors (O, r) and (r, I) of the parameter seen as a matrix (O, I)."""

UNetDelta = Mapping[str, ParameterDelta]
"""By the name of the parameter in the UNet, as `named_parameters` gives it; what is absent stays as it is."""


def unet_with_delta(unet: UNet2DConditionModel, delta: UNetDelta) -> tuple[UNet2DConditionModel, int]:
    """The UNet with the deltas added; the given one stays as it is.

    Parameters without a delta are not copied: both UNets hold the same memory.

    Returns:
        The UNet, on the device and of the type of the given one, and the bytes that it takes beyond that one.

    Raises:
        ValueError: The UNet has no parameter of some name.
    """
    shared = {id(tensor): tensor for name, tensor in unet.named_parameters() if name not in delta}
    shared |= {id(tensor): tensor for tensor in unet.buffers()}
    own: UNet2DConditionModel = copy.deepcopy(unet, dict(shared))
    parameters = dict(own.named_parameters())
    unknown = sorted(set(delta) - set(parameters))
    if unknown:
        raise ValueError(f"the UNet has no parameter {unknown[0]}")
    size_bytes = 0
    with torch.no_grad():
        for name, each in delta.items():
            parameter = parameters[name]
            addend = materialized(each).to(device=parameter.device, dtype=torch.float32).view(parameter.shape)
            parameter.copy_(parameter.float() + addend)
            size_bytes += parameter.numel() * parameter.element_size()
    return own, size_bytes


def materialized(delta: ParameterDelta) -> Tensor:
    """The delta as one tensor: of the parameter's shape, or (O, I) where it is kept as factors."""
    return delta.materialized() if isinstance(delta, LowRankDelta) else delta


def delta_tensors(delta: ParameterDelta) -> dict[str, Tensor]:
    """Tensors of a delta by the suffix of their names in a concept file."""
    return delta.tensors() if isinstance(delta, LowRankDelta) else {"": delta}


def moved(delta: ParameterDelta, device: torch.device | str | None, dtype: torch.dtype | None) -> ParameterDelta:
    """The same on another device or of another type."""
    return delta.to(device=device, dtype=dtype)


def thinned(delta: ParameterDelta, energy: float) -> tuple[ParameterDelta, float, float]:
    """The smallest form of a delta that keeps a share of its energy.

    Factors come from the eigenvectors of the smaller Gram matrix in float64, which for the wide matrices of
    convolutions takes a fraction of the time of a singular value decomposition.

    Args:
        delta: Of any form; factors are kept as they are, for they are thin already.
        energy: Share of the squared Frobenius norm to keep, greater than 0, at most 1.

    Returns:
        Factors where they are smaller than the whole, else the whole; the energy kept; the energy there was.
    """
    whole = materialized(delta).detach().double()
    total = float(whole.square().sum())
    if isinstance(delta, LowRankDelta) or whole.ndim < 2 or total == 0:
        return delta, total, total
    matrix = whole.flatten(1)  # (O, I)
    wide = matrix.shape[0] <= matrix.shape[1]
    values, vectors = torch.linalg.eigh(matrix @ matrix.T if wide else matrix.T @ matrix)
    energies = values.flip(0).clamp_min(0)
    vectors = vectors.flip(1)
    kept = energies.cumsum(0)
    rank = min(int((kept < energy * kept[-1] * (1 - 1e-12)).sum()) + 1, len(energies))
    if rank * sum(matrix.shape) >= matrix.numel():
        return delta, total, total
    # Each factor carries half of the singular values, so that neither leaves the range of float16.
    root = energies[:rank].sqrt().sqrt().clamp_min(1e-30)
    chosen = vectors[:, :rank]
    if wide:
        up, down = chosen * root, (chosen.T @ matrix) / root[:, None]
    else:
        up, down = (matrix @ chosen) / root, (chosen * root).T
    dtype = delta.dtype
    return (
        LowRankDelta(up.to(dtype).contiguous(), down.to(dtype).contiguous()),
        min(float(kept[rank - 1]), total),
        total,
    )
