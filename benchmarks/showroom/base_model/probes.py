"""Linear probes: what one linear layer reads from the image encoder's features, on subjects it never saw."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from benchmarks.showroom.base_model.corpus import FACTORS, Corpus

_RIDGE = 1e-2


@torch.no_grad()
def image_features(encoder: CLIPVisionModelWithProjection, corpus: Corpus, limit: int) -> Tensor:
    """Pooled features (n, width) of the first `limit` photos: the class token after the last normalisation."""
    count = min(limit, len(corpus))
    features = []
    for first in range(0, count, 100):
        index = torch.arange(first, min(first + 100, count))
        pictures = corpus.pixels(index, torch.zeros(len(index), dtype=torch.bool), torch.device("cpu"))
        seen = encoder(pixel_values=pictures).last_hidden_state[:, 0]
        features.append(encoder.vision_model.post_layernorm(seen))
    return torch.cat(features)


def probe_accuracies(train: tuple[Tensor, Corpus], held_out: tuple[Tensor, Corpus]) -> dict[str, float]:
    """Accuracy per factor of a ridge regression to one-hot words, fitted on one pair and tested on the other."""
    (seen, seen_corpus), (unseen, unseen_corpus) = train, held_out
    mean, deviation = seen.mean(0), seen.std(0).clamp_min(1e-4)
    inputs = torch.cat([(seen - mean) / deviation, torch.ones(len(seen), 1)], 1).double()
    tests = torch.cat([(unseen - mean) / deviation, torch.ones(len(unseen), 1)], 1).double()
    gram = inputs.T @ inputs + _RIDGE * len(inputs) * torch.eye(inputs.shape[1], dtype=torch.float64)
    accuracies = {}
    for name, words in FACTORS.items():
        target = torch.nn.functional.one_hot(seen_corpus.factors[name][: len(seen)], len(words)).double()
        weights = torch.linalg.solve(gram, inputs.T @ target)
        guess = (tests @ weights).argmax(1)
        accuracies[name] = float((guess == unseen_corpus.factors[name][: len(unseen)]).double().mean())
    return accuracies
