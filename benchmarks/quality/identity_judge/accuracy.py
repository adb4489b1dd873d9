"""How well the judge sees what words leave open, on families of subjects that it never saw.

Legend: N photos, two of each subject next to each other; D width of the identity embedding.
"""

from typing import Final

import torch
from torch import Tensor

from benchmarks.quality.identity_judge.network import IdentityJudgeNetwork
from benchmarks.quality.identity_judge.photos import FamilyPhotos
from benchmarks.showroom.base_model.corpus import FACTORS

REACHES_AT_LEAST: Final = {"shape R2": 0.6, "badge bits": 0.95, "retrieval among siblings": 0.8}
LARGEST_SIBLING_SHARE: Final = 0.5
_BATCH: Final = 64


@torch.no_grad()
def identity_accuracies(network: IdentityJudgeNetwork, photos: FamilyPhotos, images: Tensor) -> dict[str, float]:
    """All accuracies; those that nothing in the photos can tell are absent.

    Args:
        network: In evaluation mode.
        photos: Whose labels.
        images: (N, 3, s, s) uint8, the photos themselves or what a VAE makes of them.
    """
    outputs = [network(part.float() / 127.5 - 1) for part in torch.split(images, _BATCH)]
    found = {}
    for place, name in enumerate(FACTORS):
        words = torch.cat([each.logits[name] for each in outputs]).argmax(1)
        found[name] = float((words == photos.factors[:, place]).double().mean())
    classes = photos.factors[:, list(FACTORS).index("class")]
    shape = torch.cat([each.shape for each in outputs])[torch.arange(len(photos)), classes]
    rest = ((shape - photos.shape) ** 2).sum(dim=0) / ((photos.shape - photos.shape.mean(dim=0)) ** 2).sum(dim=0)
    found["shape R2"] = float(1 - rest.mean())
    away = 100 * (torch.cat([each.colours for each in outputs]) - photos.colours).view(-1, 2, 3).norm(dim=2)
    found["Delta E of the main colour"], found["Delta E of the accent colour"] = away.mean(dim=0).tolist()
    for place, name in enumerate(("direction", "count", "phase")):
        truth = photos.variants[:, place]
        if bool((truth >= 0).any()):
            seen = torch.cat([each.variants[place] for each in outputs]).argmax(1)
            found[f"{name} of the pattern"] = float((seen == truth)[truth >= 0].double().mean())
    there = torch.cat([each.badge_logits for each in outputs]) > 0
    found["badge there or not"] = float((there == (photos.badge > 0)).double().mean())
    legible = photos.legible & (photos.badge > 0)
    if bool(legible.any()):
        bits = torch.cat([each.bit_logits for each in outputs]) > 0
        found["badge bits"] = float((bits == (photos.bits > 0))[legible].double().mean())
        found["legible badges"] = float(legible.sum() / (photos.badge > 0).sum())
    identity = torch.cat([each.identity for each in outputs])
    return found | identity_measures(identity, photos.subject, photos.family, classes)


def identity_measures(identity: Tensor, subject: Tensor, family: Tensor, classes: Tensor) -> dict[str, float]:
    """What the embedding says of siblings.

    `retrieval among siblings` is the top-1 of a photo among one photo of each member of its family, over families of
    two and more; `similarity of siblings` the place of a pair of siblings in the range from a random pair of the class
    (0) to a pair of one subject (1).

    Args:
        identity: (N, D) of length 1.
        subject: (N,) numbers.
        family: (N,) numbers.
        classes: (N,) numbers.
    """
    similarity = identity @ identity.T
    same = subject[:, None] == subject
    kin = (family[:, None] == family) & ~same
    strangers = (classes[:, None] == classes) & (family[:, None] != family)
    same.fill_diagonal_(False)
    measures: dict[str, float] = {}
    if bool(kin.any()) and bool(strangers.any()):
        own, sibling, random = (float(similarity[pairs].mean()) for pairs in (same, kin, strangers))
        measures |= {"similarity of one subject": own, "similarity of a random pair of the class": random}
        measures["similarity of siblings"] = (sibling - random) / max(own - random, 1e-6)
    hits = []
    for number in sorted(set(family.tolist())):
        of_family = torch.nonzero(family == number)[:, 0]
        first, second = identity[of_family[::2]], identity[of_family[1::2]]
        if len(first) > 1:
            table = first @ second.T
            right = torch.arange(len(first), device=identity.device)
            hits += [(table.argmax(dim=1) == right).double(), (table.argmax(dim=0) == right).double()]
    if hits:
        measures["retrieval among siblings"] = float(torch.cat(hits).mean())
    return measures
