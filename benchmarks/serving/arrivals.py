"""Which concept is asked for, with what words, and when."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, count

from benchmarks.serving.synthetic_concepts import concept_name

_COLORS = ("red", "blue", "green", "white", "black", "yellow")
_PLACES = ("on a table", "on a beach", "in the snow", "on grass", "in a room", "at night")


@dataclass(frozen=True)
class Ask:
    """One request for one image.

    Attributes:
        concept: Name of its concept.
        scene: The words that follow the concept; no two asks of a run of the benchmark share them.
        seed: Seed of the image.
    """

    concept: str
    scene: str
    seed: int

    @property
    def prompt(self) -> str:
        """The prompt in the generator's language."""
        return f"[{self.concept}] {self.scene}"


class Asks:
    """Makes requests of which no two have the same prompt, so that no cache of prompts can help."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self._numbers = count()

    def ask(self, concept: int) -> Ask:
        """A request for a concept."""
        number = next(self._numbers)
        color, place = self._random.choice(_COLORS), self._random.choice(_PLACES)
        # Digits are tokens of their own: the numbers tell prompts apart and keep their lengths alike.
        return Ask(concept_name(concept), f"{color} {place} {number:05d}", number)

    def uniform(self, concepts: int, requests: int) -> list[Ask]:
        """Requests that go over the concepts in turn."""
        return [self.ask(index % concepts) for index in range(requests)]

    def zipf(self, concepts: int, requests: int) -> list[Ask]:
        """Requests whose concepts follow Zipf's law of exponent 1."""
        return [self.ask(index) for index in self.zipf_indices(concepts, requests)]

    def zipf_indices(self, concepts: int, accesses: int) -> list[int]:
        """Indices of concepts, the i-th most popular one with a weight of 1 / (i + 1)."""
        weights = list(accumulate(1 / rank for rank in range(1, concepts + 1)))
        return self._random.choices(range(concepts), cum_weights=weights, k=accesses)

    def shuffled(self, asks: list[Ask]) -> list[Ask]:
        """The same in random order."""
        return self._random.sample(asks, len(asks))

    def poisson_seconds(self, per_second: float) -> Iterator[float]:
        """Times of arrival from 0 on of a Poisson process."""
        now = 0.0
        while True:
            now += self._random.expovariate(per_second)
            yield now
