"""Makes the parts of a base model that take part in each step of a training frozen ones."""

import logging

import torch
from torch import nn

from detex_diffusion.base_model import BaseModel
from detex_diffusion.cross_attention import cross_attention_layers
from detex_diffusion.key_value_delta import PROJECTIONS
from detex_trainer.frozen.kernels import Layouts
from detex_trainer.frozen.layers import FrozenConvolution, FrozenLinear, is_plain
from detex_trainer.frozen.resnet import freeze_residual_block
from detex_trainer.frozen.text_layer import freeze_text_layer
from detex_trainer.frozen.transformer import freeze_transformer_block

_LARGEST_SHARE = 0.25  # of free memory, for weights in two more layouts

_log = logging.getLogger(__name__)


def freeze_layers(module: nn.Module) -> int:
    """Let the layers of a module, and the blocks of them, use oneDNN's layouts; returns how many layers do so now.

    They stay what they are, with the same parameters: whoever reads, copies or trains a weight continues to do so.
    """
    frozen = 0
    for layer in list(module.modules()):
        if freeze_residual_block(layer) or freeze_transformer_block(layer) or freeze_text_layer(layer):
            continue
        if type(layer) is nn.Linear:
            layer.__class__ = FrozenLinear
        elif type(layer) is nn.Conv2d and is_plain(layer):
            layer.__class__ = FrozenConvolution
        else:
            continue
        layer.layouts = Layouts()  # type: ignore[assignment]
        frozen += 1
    return frozen


def freeze_base_model(base_model: BaseModel, free_bytes: int, with_unet: bool = True) -> None:
    """Let what takes part in each step of a training use the layouts, on a CPU where oneDNN and memory allow it.

    Args:
        base_model: Which.
        free_bytes: Free memory; the layouts take a share of it at most.
        with_unet: Whether of the UNet all layers do, or the key and value projections of cross-attention alone.
    """
    projections = [getattr(layer, p) for layer in cross_attention_layers(base_model.unet).values() for p in PROJECTIONS]
    parts = (*base_model.text.modules(), *([base_model.unet] if with_unet else projections))
    needed = 2 * sum(p.numel() * p.element_size() for part in parts for p in part.parameters())
    if base_model.device.type != "cpu" or base_model.dtype not in (torch.float32, torch.bfloat16):
        return
    if not torch._C._has_mkldnn or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        _log.info("oneDNN is not at hand; the layers of base model %s stay as they are", base_model.name)
        return
    if needed > _LARGEST_SHARE * free_bytes:
        _log.info("memory is too scarce to keep the weights of base model %s in two more layouts", base_model.name)
        return
    layers = sum(freeze_layers(part) for part in parts)
    _log.info("%d layers of base model %s compute gradients for their inputs alone", layers, base_model.name)
