"""How good the judge is, on photos of subjects that it never saw.

Legend: N photos, two of each subject next to each other; D width of the identity embedding.
"""

from math import comb

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.quality.judge.network import JudgeNetwork, look_twice
from benchmarks.quality.judge.photos import JudgePhotos
from benchmarks.showroom.shards import PHOTOS_PER_SUBJECT

RETRIEVAL_SUBJECTS = 50
_BATCH = 125


def accuracies(network: JudgeNetwork, photos: JudgePhotos, images: Tensor) -> dict[str, float]:
    """Accuracy of each factor, `identity retrieval` (top-1 among 50 subjects) and `mask overlap` (intersection/union).

    Args:
        network: In evaluation mode.
        photos: Whose labels.
        images: (N, 3, s, s) uint8, the photos themselves or what a VAE makes of them.
    """
    outputs = [look_twice(network, part.float() / 127.5 - 1) for part in torch.split(images, _BATCH)]
    found = {
        name: float((torch.cat([output.logits[name] for output in outputs]).argmax(1) == words).double().mean())
        for name, words in photos.factors.items()
    }
    identity = torch.cat([output.identity for output in outputs])
    found["identity retrieval"] = retrieval_accuracy(identity, min(RETRIEVAL_SUBJECTS, photos.subjects))
    seen = torch.cat([output.mask_logits for output in outputs]) > 0
    true = functional.avg_pool2d(photos.masks.float() / 255, photos.masks.shape[-1] // seen.shape[-1]) > 0.5
    shared, either = (seen & true).sum(dim=(1, 2, 3)), (seen | true).sum(dim=(1, 2, 3))
    found["mask overlap"] = float((shared / either.clamp_min(1)).double().mean())
    return found


def retrieval_accuracy(identity: Tensor, subjects: int) -> float:
    """How often a photo's nearest among `subjects` subjects is its own, expected over all galleries of that size.

    A photo of each subject is the query, the other photos are the gallery, and the other way round. With S subjects,
    of which k are nearer than the right one, a random gallery holds none of these k with probability
    C(S - 1 - k, subjects - 1) / C(S - 1, subjects - 1).

    Args:
        identity: (N, D) of length 1, two rows of each subject next to each other.
        subjects: Size of the gallery, at most S.
    """
    first, second = identity[::PHOTOS_PER_SUBJECT], identity[1::PHOTOS_PER_SUBJECT]
    others = len(first) - 1
    chances = []
    for similarity in (first @ second.T, second @ first.T):
        nearer = (similarity > similarity.diagonal()[:, None]).sum(dim=1)
        chances += [comb(others - k, subjects - 1) / comb(others, subjects - 1) for k in nearer.tolist()]
    return sum(chances) / len(chances)
