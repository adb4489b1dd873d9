"""Puts the kernels that were chosen into a UNet of diffusers; parameters keep their names.

Cross-attention is not among them: what it reads comes with each call (`pooled_key_values`).

Legend: B rows, N image positions, H heads, D head dim, C channels, h and w height and width.
"""

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.activations import GEGLU
from diffusers.models.attention import FeedForward
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from detex_diffusion.cross_attention import AttentionRecorder, SelfAttentionProcessor, install_processors
from detex_generator.ops.choice import KernelChoice
from detex_generator.ops.geglu import geglu
from detex_generator.ops.group_norm_silu import group_norm_silu
from detex_generator.ops.operation import KernelUnavailableError, Operation
from detex_generator.ops.self_attention import self_attention

_logger = logging.getLogger(__name__)
_UNSUPPORTED_PARTS = ("group_norm", "spatial_norm", "norm_q", "norm_k", "norm_cross")


class KernelSelfAttentionProcessor(SelfAttentionProcessor):
    """Self-attention by what was chosen for it; holds no state of a call.

    Attributes:
        choice: Asked at each call.
    """

    def __init__(self, choice: KernelChoice) -> None:
        """Ask `choice` at each call."""
        super().__init__()
        self.choice = choice

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        key_values: Any = None,
        recorder: AttentionRecorder | None = None,
    ) -> Tensor:
        """Attention of image positions (B, N, channels) among themselves.

        Raises:
            KernelUnavailableError: The call is not plain self-attention.
        """
        if encoder_hidden_states is not None or attention_mask is not None or hidden_states.ndim != 3:
            raise KernelUnavailableError("self_attention: the kernel takes neither masks nor other hidden states.")
        rows, positions, _ = hidden_states.shape
        query, key, value = (
            project(hidden_states).view(rows, positions, attn.heads, -1)
            for project in (attn.to_q, attn.to_k, attn.to_v)
        )
        implementation = self.choice.take(Operation.SELF_ATTENTION, head_dim=query.shape[-1])
        attended = self_attention(query, key, value, implementation).reshape(rows, positions, -1)
        projected: Tensor = attn.to_out[1](attn.to_out[0](attended))
        return projected.div(attn.rescale_output_factor)


class KernelGEGLU(nn.Module):
    """A gated layer that takes over the projection of diffusers' own.

    Attributes:
        choice: Asked at each call.
    """

    def __init__(self, plain: GEGLU, choice: KernelChoice) -> None:
        """Ask `choice` at each call."""
        super().__init__()
        self.proj = plain.proj
        self.choice = choice

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(..., width) to (..., width of the gated half)."""
        implementation = self.choice.take(Operation.GEGLU)
        return geglu(hidden_states, self.proj.weight, self.proj.bias, implementation)


class KernelGroupNormSiLU(nn.Module):
    """A GroupNorm that takes over the parameters of torch's own and is followed by SiLU.

    Attributes:
        choice: Asked at each call.
    """

    def __init__(self, plain: nn.GroupNorm, choice: KernelChoice) -> None:
        """Ask `choice` at each call."""
        super().__init__()
        self.weight, self.bias = plain.weight, plain.bias
        self._groups, self._epsilon = plain.num_groups, plain.eps
        self.choice = choice

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, h, w) to the same."""
        implementation = self.choice.take(Operation.GROUP_NORM_SILU)
        return group_norm_silu(images, self.weight, self.bias, self._groups, self._epsilon, implementation)


class TimeActivation(nn.Module):
    """The activation of a residual block whose norms have theirs built in: what is left is that of the timestep.

    A block applies one module to its pictures (B, C, h, w) and to the embedding of the timestep (B, C).
    """

    def __init__(self, plain: nn.Module) -> None:
        """Apply `plain` to timesteps."""
        super().__init__()
        self.plain = plain

    def forward(self, states: Tensor) -> Tensor:
        """Pictures as they are; embeddings of timesteps activated."""
        return states if states.ndim == 4 else self.plain(states)


def install_kernels(unet: UNet2DConditionModel, choice: KernelChoice) -> None:
    """Replace what Triton kernels compute by choice; does nothing where none was chosen, nor a second time.

    A part that is not as the kernel computes it stays as it is, unless the kernel was asked for by name.

    Raises:
        KernelUnavailableError: A kernel was asked for by name that does not compute a part of the UNet.
    """
    install_processors(unet)
    for name, module in list(unet.named_modules()):
        if choice.uses(Operation.SELF_ATTENTION) and name.rsplit(".", 1)[-1] == "attn1":
            with _where_it_can(choice, Operation.SELF_ATTENTION):
                _install_self_attention(name, module, choice)
        elif choice.uses(Operation.GEGLU) and isinstance(module, FeedForward) and isinstance(module.net[0], GEGLU):
            module.net[0] = KernelGEGLU(module.net[0], choice)
        elif choice.uses(Operation.GROUP_NORM_SILU) and isinstance(module, ResnetBlock2D):
            with _where_it_can(choice, Operation.GROUP_NORM_SILU):
                _install_group_norms(name, module, choice)
    if choice.uses(Operation.GROUP_NORM_SILU) and isinstance(unet.conv_norm_out, nn.GroupNorm):
        with _where_it_can(choice, Operation.GROUP_NORM_SILU):
            _check_silu("conv_act", unet.conv_act)
            unet.conv_norm_out = KernelGroupNormSiLU(unet.conv_norm_out, choice)
            unet.conv_act = nn.Identity()


@contextmanager
def _where_it_can(choice: KernelChoice, operation: Operation) -> Iterator[None]:
    try:
        yield
    except KernelUnavailableError as error:
        if choice.decisions[operation].asked:
            raise
        _logger.info("Not taken here: %s", error)


def over_same_weights(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """A copy of the modules, whose attention and kernels are its own, over the very same parameters."""
    copied: UNet2DConditionModel = copy.deepcopy(unet, {id(tensor): tensor for tensor in unet.parameters()})
    return copied


def use_channels_last(unet: UNet2DConditionModel) -> None:
    """Lay the weights of convolutions out as tensor cores want them."""
    unet.to(memory_format=torch.channels_last)


def _install_self_attention(name: str, module: Any, choice: KernelChoice) -> None:
    if isinstance(module.processor, KernelSelfAttentionProcessor):
        return
    found = [part for part in _UNSUPPORTED_PARTS if getattr(module, part, None)]
    if found or module.residual_connection:
        raise KernelUnavailableError(f"self_attention: {name} is not plain self-attention: {found or 'residual'}.")
    module.set_processor(KernelSelfAttentionProcessor(choice))


def _install_group_norms(name: str, module: Any, choice: KernelChoice) -> None:
    if isinstance(module.norm1, KernelGroupNormSiLU):
        return
    if module.time_embedding_norm != "default":
        raise KernelUnavailableError(f"group_norm_silu: {name} does something between norm and activation.")
    _check_silu(name, module.nonlinearity)
    module.norm1 = KernelGroupNormSiLU(module.norm1, choice)
    module.norm2 = KernelGroupNormSiLU(module.norm2, choice)
    module.nonlinearity = TimeActivation(module.nonlinearity)


def _check_silu(name: str, activation: object) -> None:
    if not isinstance(activation, nn.SiLU):
        raise KernelUnavailableError(f"group_norm_silu: the activation of {name} is {type(activation).__name__}.")
