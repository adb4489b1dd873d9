"""A request for images as the engine takes it: every field present and in range."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from detex_core.prompt import Prompt
from detex_diffusion.solver import Solver
from detex_generator.request.picture_content import Composition, Edit

ALL_STEPS = (0.0, 1.0)
_ROUNDING = 1e-6  # of shares of steps that are no binary fractions


class Priority(IntEnum):
    """Which requests go first when more are there than can be drawn at once; the greater first."""

    LOW = 1
    NORMAL = 2
    HIGH = 3


@dataclass(frozen=True)
class GenerationRequest:
    """What to draw.

    Attributes:
        prompt: What to draw, as sent.
        negative_prompt: What to keep away from, as sent; may be empty.
        parsed_prompt: The prompt taken apart.
        parsed_negative_prompt: The negative prompt taken apart; it may hold words of concepts too.
        base_model: Name of an available base model.
        count: Images, 1 to 64; image i takes seed + i.
        seed: Seed of the first image; that of the last is below 2^32.
        steps: Denoising steps.
        guidance_scale: 0 to 50; 1 and below draws without guidance.
        solver: How to solve.
        width: Pixels.
        height: Pixels.
        preview_interval_steps: A preview every so many steps; 0 for none.
        concept_versions: Version by name for concepts that are not to be taken in their newest.
        priority: Which requests go first.
        composition: Places of subjects; None lets them stand where they like.
        edit: A photo to begin from or to keep a part of; None draws from nothing.
        guidance_interval: Start and end, in shares of the steps, of those that are guided.
    """

    prompt: str
    negative_prompt: str
    parsed_prompt: Prompt
    parsed_negative_prompt: Prompt
    base_model: str
    count: int
    seed: int
    steps: int
    guidance_scale: float
    solver: Solver
    width: int
    height: int
    preview_interval_steps: int
    concept_versions: Mapping[str, str]
    priority: Priority = Priority.NORMAL
    composition: Composition | None = None
    edit: Edit | None = None
    guidance_interval: tuple[float, float] = ALL_STEPS

    @property
    def guided(self) -> bool:
        """Whether any step has classifier-free guidance."""
        first = self.steps - self.steps_to_do
        return any(self.guides(step) for step in range(first, self.steps))

    def guides(self, step: int) -> bool:
        """Whether a step, 0 to steps - 1, has classifier-free guidance, which takes a second row of the UNet.

        Kynkaanniemi et al. 2024 (arXiv 2404.07724): it harms at high noise levels and does nothing at low ones.
        """
        start, end = self.guidance_interval
        return self.guidance_scale > 1 and start * self.steps <= step + _ROUNDING < end * self.steps

    @property
    def has_pictures(self) -> bool:
        """Whether a photo or a mask came with it."""
        regions = () if self.composition is None else self.composition.regions
        return self.edit is not None or any(isinstance(region.place, bytes) for region in regions)

    @property
    def steps_to_do(self) -> int:
        """Denoising steps that an image takes; fewer than `steps` where it begins from a photo."""
        return self.steps if self.edit is None else self.steps - self.edit.first_step(self.steps)

    def concepts(self) -> tuple[str, ...]:
        """Names of all concepts in the order of their first word, those of the prompt first.

        Without guidance the negative prompt has no effect, so its concepts are not needed.
        """
        negative = self.parsed_negative_prompt.concepts() if self.guided else ()
        return tuple(dict.fromkeys(self.parsed_prompt.concepts() + self._regional_concepts() + negative))

    def field_of(self, concept: str) -> str:
        """Where a concept is named first: `prompt`, `regions[0].prompt` or `negative_prompt`, for example."""
        if concept in self.parsed_prompt.concepts():
            return "prompt"
        regions = () if self.composition is None else self.composition.regions
        for index, region in enumerate(regions):
            if concept in region.prompt.concepts():
                return f"regions[{index}].prompt"
        return "negative_prompt"

    def _regional_concepts(self) -> tuple[str, ...]:
        regions = () if self.composition is None else self.composition.regions
        return tuple(name for region in regions for name in region.prompt.concepts())
