"""The judge in use: pictures in, words and embeddings out.

Legend: B pictures, s the judge's side in pixels, D width of the identity embedding.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import safetensors
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from benchmarks.quality.judge.network import JudgeNetwork, JudgeSize, look_twice
from benchmarks.showroom.base_model.corpus import FACTORS
from detex_diffusion.latents import to_pixels

WEIGHTS_PATH: Final = Path(__file__).parent / "weights.safetensors"
_BATCH: Final = 64


@dataclass(frozen=True, eq=False)
class Judgement:
    """What the judge says of B pictures.

    Attributes:
        words: B words by factor (class, pose, scene, main colour, accent colour, pattern).
        confidences: (B,) probability of that word by factor.
        identity: (B, D) of length 1: two pictures show one subject where their product is near 1.
        masks: (B, 1, s, s) from 0 to 1, the share of each pixel that the subject covers.
    """

    words: Mapping[str, tuple[str, ...]]
    confidences: Mapping[str, Tensor]
    identity: Tensor
    masks: Tensor


class Judge:
    """A trained network."""

    def __init__(self, network: JudgeNetwork) -> None:
        self.network = network.eval()

    def judge(self, pictures: Sequence[Image.Image]) -> Judgement:
        """Judge pictures of any size; other sizes than the judge's own are resampled."""
        side = self.network.size.picture_pixels
        fitting = [p if p.size == (side, side) else p.resize((side, side), Image.Resampling.BOX) for p in pictures]
        outputs = [
            look_twice(self.network, to_pixels(fitting[at : at + _BATCH])) for at in range(0, len(fitting), _BATCH)
        ]
        words, confidences = {}, {}
        for name, known in FACTORS.items():
            most = torch.cat([output.logits[name] for output in outputs]).softmax(dim=1).max(dim=1)
            words[name] = tuple(known[index] for index in most.indices.tolist())
            confidences[name] = most.values
        masks = torch.cat([output.mask_logits for output in outputs]).sigmoid()
        return Judgement(
            words=words,
            confidences=confidences,
            identity=torch.cat([output.identity for output in outputs]),
            masks=functional.interpolate(masks, size=(side, side), mode="bilinear", align_corners=False),
        )


def save_judge(network: JudgeNetwork, path: Path, card: Mapping[str, object]) -> None:
    """Write the weights in float16, with the network's size and a card (recipe, accuracies) as metadata."""
    tensors = {
        name: tensor.half().contiguous() if tensor.is_floating_point() else tensor
        for name, tensor in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"size": json.dumps(asdict(network.size)), "card": json.dumps(card)}
    save_file(tensors, path, metadata)


def load_judge(path: Path = WEIGHTS_PATH) -> Judge:
    """The judge that a file holds, in float32 on the CPU.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds no judge, or one of another version of the network.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no weights of a judge; `python -m benchmarks.quality.judge train` makes them")
    with safetensors.safe_open(path, framework="pt") as stream:
        metadata = stream.metadata() or {}
        tensors = {name: stream.get_tensor(name).float() for name in stream.keys()}  # noqa: SIM118 - no mapping
    if "size" not in metadata:
        raise ValueError(f"{path}: holds no judge, for its metadata names no size")
    size = json.loads(metadata["size"])
    network = JudgeNetwork(JudgeSize(**size | {"widths": tuple(size["widths"])}))
    missing, unexpected = network.load_state_dict(tensors, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise ValueError(f"{path}: is of another version: lacks {missing}, and {unexpected} are unknown")
    return Judge(network)
