"""The weights file: float16 tensors with the network's size and a card as metadata."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import safetensors
from safetensors.torch import save_file

from benchmarks.quality.identity_judge.network import IdentityJudgeNetwork, IdentityJudgeSize

_COUNTER = "num_batches_tracked"


def save_identity_judge(network: IdentityJudgeNetwork, path: Path, card: Mapping[str, object]) -> None:
    """Write the weights; the file appears at once and whole."""
    tensors = {
        name: tensor.half().cpu().contiguous()
        for name, tensor in network.state_dict().items()
        if not name.endswith(_COUNTER)
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, {"size": json.dumps(asdict(network.size)), "card": json.dumps(card)})
    partial.replace(path)


def load_identity_judge(path: Path) -> IdentityJudgeNetwork:
    """The network that a file holds, in float32 on the CPU, in evaluation mode.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds no judge, or one of another version of the network.
    """
    if not path.is_file():
        train = "python -m benchmarks.quality.identity_judge train"
        raise FileNotFoundError(f"{path}: no weights of an identity judge; `{train}` makes them")
    with safetensors.safe_open(path, framework="pt") as stream:
        metadata = stream.metadata() or {}
        tensors = {name: stream.get_tensor(name).float() for name in stream.keys()}  # noqa: SIM118 - no mapping
    if "size" not in metadata:
        raise ValueError(f"{path}: holds no judge, for its metadata names no size")
    size = json.loads(metadata["size"])
    network = IdentityJudgeNetwork(IdentityJudgeSize(**size | {"widths": tuple(size["widths"])}))
    missing, unexpected = network.load_state_dict(tensors, strict=False)
    missing = [name for name in missing if not name.endswith(_COUNTER)]
    if missing or unexpected:
        raise ValueError(f"{path}: is of another version: lacks {missing}, and {unexpected} are unknown")
    return network.eval()
