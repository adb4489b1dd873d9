"""Places of subjects on their way from a request to keys and values.

Legend: S segments (0 the scene, then one per region), N positions of an attention map, T tokens.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from detex_core.clauses import by_subject
from detex_core.errors import InvalidInputError
from detex_core.images import decode_mask
from detex_core.prompt import Prompt
from detex_diffusion.base_model import BaseModel
from detex_diffusion.conditioning import PromptKeyValues
from detex_diffusion.cross_attention import cross_attention_sizes
from detex_diffusion.regions import (
    Box,
    RegionMode,
    blended_key_values,
    box_coverage,
    joint_key_values,
    log_weight_maps,
    mask_coverage,
)
from detex_diffusion.text import TokenizedPrompt
from detex_generator.engine.intake.picture_memory import PictureMemory
from detex_generator.request.generation_request import GenerationRequest
from detex_generator.request.picture_content import Composition


@dataclass(frozen=True, eq=False)
class CheckedComposition:
    """Places of subjects, checked.

    Attributes:
        mode: How the prompt is read.
        log_weights: (S, N) float32 by N.
        prompts: Tokens of each region's prompt; empty where one prompt is read.
        segments: (T,) int64, the segment of each token of the one prompt; None where regions have prompts.
    """

    mode: RegionMode
    log_weights: Mapping[int, Tensor]
    prompts: tuple[TokenizedPrompt, ...]
    segments: Tensor | None


def check_composition(
    request: GenerationRequest,
    composition: Composition,
    base_model: BaseModel,
    prompt: TokenizedPrompt,
    tokenize: Callable[[Prompt, str], TokenizedPrompt],
    memory: PictureMemory,
) -> CheckedComposition:
    """Draw the maps and count the tokens.

    Args:
        request: The request.
        composition: Its places of subjects.
        base_model: The base model it is drawn with.
        prompt: Tokens of its prompt.
        tokenize: Tokens of a prompt that comes from a field of the request.
        memory: For masks while they are decoded.

    Raises:
        ResourceExhaustedError: There was no memory for a mask within the longest wait.
        InvalidInputError: A mask does not decode, or a region's prompt has too many tokens or unknown words.
    """
    coverages = []
    for index, region in enumerate(composition.regions):
        if isinstance(region.place, Box):
            coverages.append(box_coverage(region.place, request.height, request.width))
        else:
            field = f"regions[{index}].mask"
            with memory.decoding({field: region.place}):
                mask = decode_mask(region.place, field=field, size=None)
                coverages.append(mask_coverage(mask, request.height, request.width))
    _, *latent_size = base_model.latent_shape(request.height, request.width)
    sizes = cross_attention_sizes(base_model.unet, *latent_size).values()
    weights = [region.weight for region in composition.regions]
    log_weights = log_weight_maps(coverages, weights, set(sizes), composition.mode)
    if composition.mode is RegionMode.BLEND:
        prompts = tuple(
            tokenize(region.prompt, f"regions[{index}].prompt") for index, region in enumerate(composition.regions)
        )
        return CheckedComposition(composition.mode, log_weights, prompts, None)
    names = [region.concept for region in composition.regions]
    return CheckedComposition(
        composition.mode, log_weights, (), _segments(request.parsed_prompt, prompt, names, tokenize)
    )


def with_places(
    prompt: PromptKeyValues, composition: CheckedComposition, read: Callable[[TokenizedPrompt], PromptKeyValues]
) -> PromptKeyValues:
    """The keys and values of a prompt with places of its subjects.

    Args:
        prompt: Of the whole prompt.
        composition: Places of subjects.
        read: Keys and values of a region's prompt.
    """
    if composition.segments is not None:
        placed = joint_key_values(prompt.layers, composition.segments, composition.log_weights)
    else:
        subjects = [read(tokenized).layers for tokenized in composition.prompts]
        placed = blended_key_values(prompt.layers, subjects, composition.log_weights)
    return replace(prompt, regional=placed)


def _segments(
    parsed: Prompt, prompt: TokenizedPrompt, names: list[str], tokenize: Callable[[Prompt, str], TokenizedPrompt]
) -> Tensor:
    """The segment (T,) of each token of a prompt: the place of a concept in `names` and 1 more, or 0 for the scene."""
    cut, subjects = by_subject(parsed)
    try:
        tokenized = tokenize(cut, "prompt")
    except InvalidInputError:
        tokenized = None
    if tokenized is not None and torch.equal(tokenized.ids, prompt.ids):
        # One more for the tokens of no part: start, end and padding belong to the scene.
        of_parts = [names.index(name) + 1 if name in names else 0 for name in subjects] + [0]
        return torch.tensor(of_parts)[tokenized.parts]
    # Cut, it reads otherwise, as where a class word has a preposition in it: then only the concepts' own words count.
    of_concepts = [names.index(name) + 1 if name in names else 0 for name in prompt.concepts] + [0]
    return torch.tensor(of_concepts)[prompt.owners]
