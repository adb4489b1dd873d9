"""From a request to keys and values: everything that happens before an image gets a slot, off the step loop.

In two parts. Checking is cheap and happens at once, so that a caller hears of a wrong request without waiting in the
queue: it resolves concepts to versions and counts tokens, from manifests alone. Encoding happens shortly before a slot
is free: it loads concepts, encodes prompts and computes keys and values, so that waiting requests hold no tensors.
"""

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel

from detex_core.artifact import Manifest, StoredManifest
from detex_core.errors import NotFoundError, invalid_input
from detex_core.memory_budget import MemoryBudget
from detex_core.prompt import Prompt
from detex_diffusion.base_model import BaseModel
from detex_diffusion.concept import Concept
from detex_diffusion.conditioning import PromptKeyValues, key_values
from detex_diffusion.solver import StepTable, step_table
from detex_diffusion.text import TokenizedPrompt, encode_text, tokenize, tokenize_negative, word_embeddings
from detex_generator.base_models import BaseModels
from detex_generator.cache.concept_cache import ConceptCache, check_base_model
from detex_generator.cache.prompt_cache import PromptCache, PromptKey
from detex_generator.cache.unet_cache import ConceptUNet, UNetCache, unet_owner
from detex_generator.engine.intake.photo_editing import PhotoEditing
from detex_generator.engine.intake.picture_memory import PictureMemory
from detex_generator.engine.intake.placement import CheckedComposition, check_composition, with_places
from detex_generator.request.generation_request import GenerationRequest

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckedRequest:
    """What checking found out about a request.

    Attributes:
        base_model: The base model it is drawn with.
        step_table: Coefficients of its denoising steps.
        concepts: Manifests of its concepts by name, in the order of their first word.
        prompt: Tokens of the prompt.
        negative_prompt: Tokens of the negative prompt; None without guidance.
        unet_owner: The concept whose UNet draws it; None for the base model's own UNet.
        composition: Places of subjects; None where they have none.
        editing: The photo that it begins from or keeps a part of; None where it is drawn from nothing.
    """

    base_model: BaseModel
    step_table: StepTable
    concepts: Mapping[str, StoredManifest]
    prompt: TokenizedPrompt
    negative_prompt: TokenizedPrompt | None
    unet_owner: StoredManifest | None = None
    composition: CheckedComposition | None = None
    editing: PhotoEditing | None = None

    @property
    def prompts(self) -> tuple[TokenizedPrompt, ...]:
        """All prompts that the UNet reads."""
        regional = () if self.composition is None else self.composition.prompts
        negative = () if self.negative_prompt is None else (self.negative_prompt,)
        return (self.prompt, *regional, *negative)


@dataclass(frozen=True)
class Conditioning:
    """What the UNet reads of the prompts of one image.

    Attributes:
        prompt: Keys and values of the prompt.
        negative_prompt: Those of the negative prompt; None without guidance.
        own_unet: The UNet of a concept that they were made for and that draws the image; None for the base model's.
    """

    prompt: PromptKeyValues
    negative_prompt: PromptKeyValues | None
    own_unet: ConceptUNet | None = None


class Admission:
    """Checks and encodes requests; all calls block and are safe from several threads."""

    def __init__(
        self,
        base_models: BaseModels,
        concepts: ConceptCache,
        prompts: PromptCache,
        unets: UNetCache,
        pictures: MemoryBudget,
    ) -> None:
        """Use these base models and caches, and this memory for pictures while they are decoded."""
        self._pictures = pictures
        self._base_models = base_models
        self._concepts = concepts
        self._prompts = prompts
        self._unets = unets
        self._tokenizing = threading.Lock()

    def check(self, request: GenerationRequest, tenant: str) -> CheckedRequest:
        """Find out whether a request can be drawn, and with what.

        Raises:
            InvalidInputError: A prompt has too many tokens or names a word that a concept does not have; the base model
                cannot do that many steps or that size; a mask or photo does not decode.
            NotFoundError: A concept or version does not exist.
            FailedPreconditionError: A concept was trained on another base model, the solver does not fit the base
                model's schedule, or several concepts have a UNet of their own.
            ResourceExhaustedError: There was no memory for its pictures within the longest wait.
            UnavailableError: The object store does not answer.
        """
        base_model = self._base_models.get(request.base_model).model
        _check_size(request, base_model)
        table = step_table(base_model.noise_schedule, request.solver, request.steps)
        stored = {}
        for name in request.concepts():
            stored[name] = self._resolve(tenant, name, request)
            check_base_model(stored[name], base_model, field=request.field_of(name))
        prompt = self._tokenize(request.parsed_prompt, stored, base_model, "prompt")
        negative_prompt = None
        if request.guided:
            negative_prompt = self._tokenize_negative(request.parsed_negative_prompt, stored, base_model)
        composition = editing = None
        memory = PictureMemory(self._pictures, tenant)
        if request.composition is not None:
            composition = check_composition(
                request,
                request.composition,
                base_model,
                prompt,
                lambda text, field: self._tokenize(text, stored, base_model, field),
                memory,
            )
        if request.edit is not None:
            editing = PhotoEditing(request.edit, base_model, request.width, request.height, memory)
            table = table.from_step(request.edit.first_step(request.steps))
        return CheckedRequest(
            base_model, table, stored, prompt, negative_prompt, unet_owner(stored), composition, editing
        )

    def needs_loading(self, checked: CheckedRequest) -> bool:
        """Whether encoding a checked request has to wait for the object store."""
        owner, base_model = checked.unet_owner, checked.base_model
        if owner is not None and not self._unets.holds(owner, base_model):
            return not all(self._concepts.holds(stored, base_model) for stored in checked.concepts.values())
        unet = "" if owner is None else owner.sha256
        if all(self._key(checked, prompt, unet) in self._prompts for prompt in checked.prompts):
            return False
        return not all(self._concepts.holds_words(stored, base_model) for stored in checked.concepts.values())

    def load(self, checked: CheckedRequest) -> tuple[Concept, ...]:
        """Bring the concepts of a checked request into memory, where they stay as long as the answer is held.

        Raises:
            DataLossError: A concept's file is broken.
            UnavailableError: The object store does not answer.
        """
        return tuple(self._concepts.get(stored, checked.base_model) for stored in checked.concepts.values())

    def encode(self, checked: CheckedRequest) -> Conditioning:
        """Keys and values of the prompts of a checked request, from the cache where they are there.

        Where memory runs out, caches make room and it is tried once more.

        Raises:
            DataLossError: A concept's file is broken.
            UnavailableError: The object store does not answer.
            MemoryError: There is no memory, on the host or (torch.OutOfMemoryError) on the GPU.
        """
        try:
            return self._conditioning(checked)
        except (MemoryError, torch.OutOfMemoryError):
            self.free_memory()
        return self._conditioning(checked)

    def free_memory(self) -> None:
        """Forget all that can be computed or copied again."""
        _logger.warning("Memory has run out; the caches of prompts and of what lies on the device are emptied")
        self._prompts.clear()
        self._unets.clear()
        self._concepts.free_device_memory()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _conditioning(self, checked: CheckedRequest) -> Conditioning:
        own_unet = None
        owner = checked.unet_owner
        if owner is not None:
            base_model = checked.base_model
            own_unet = self._unets.get(owner, base_model, lambda: self._concepts.get(owner, base_model))
        prompt = self._key_values(checked, checked.prompt, own_unet)
        if checked.composition is not None:
            prompt = with_places(
                prompt, checked.composition, lambda regional: self._key_values(checked, regional, own_unet)
            )
        if checked.editing is not None:
            checked.editing.prepare()
        negative_prompt = None
        if checked.negative_prompt is not None:
            negative_prompt = self._key_values(checked, checked.negative_prompt, own_unet)
        return Conditioning(prompt, negative_prompt, own_unet)

    def _resolve(self, tenant: str, name: str, request: GenerationRequest) -> StoredManifest:
        version = request.concept_versions.get(name, "")
        try:
            return self._concepts.resolve(tenant, name, version)
        except NotFoundError as error:
            field = request.field_of(name)
            if version:
                field = f"concept_versions.{name}"
            raise NotFoundError(f"{field}: {error.message}", reason=error.reason) from error

    def _tokenize(
        self, prompt: Prompt, stored: Mapping[str, StoredManifest], base_model: BaseModel, field: str
    ) -> TokenizedPrompt:
        # Tokenizers of this family change settings inside while they run, and refuse a second thread that does.
        with self._tokenizing:
            return tokenize(prompt, _words(stored), base_model.tokenizer, field=field)

    def _tokenize_negative(
        self, prompt: Prompt, stored: Mapping[str, StoredManifest], base_model: BaseModel
    ) -> TokenizedPrompt:
        with self._tokenizing:
            return tokenize_negative(prompt, _words(stored), base_model.text)

    def _key_values(
        self, checked: CheckedRequest, prompt: TokenizedPrompt, own_unet: ConceptUNet | None
    ) -> PromptKeyValues:
        stored = [checked.concepts[name] for name in prompt.concepts]
        unet = checked.base_model.unet if own_unet is None else own_unet.unet
        key = self._key(checked, prompt, "" if own_unet is None else own_unet.key)
        encodes = False

        def encode() -> PromptKeyValues:
            nonlocal encodes
            encodes = True
            return self._encode(checked.base_model, unet, prompt, stored)

        found = self._prompts.get(key, encode)
        if not encodes:
            for each in stored:
                self._concepts.touch(each, checked.base_model)
        return found

    def _key(self, checked: CheckedRequest, prompt: TokenizedPrompt, unet: str = "") -> PromptKey:
        return PromptKey.of(checked.base_model, prompt, [checked.concepts[name] for name in prompt.concepts], unet)

    @torch.inference_mode()
    def _encode(
        self,
        base_model: BaseModel,
        unet: UNet2DConditionModel,
        prompt: TokenizedPrompt,
        stored: list[StoredManifest],
    ) -> PromptKeyValues:
        concepts: dict[str, Concept] = {
            found.manifest.name: self._concepts.on_device(found, base_model) for found in stored
        }
        text = encode_text(base_model, [prompt], [word_embeddings(prompt, concepts)])
        return key_values(
            unet,
            text.hidden[0],
            prompt.owners,
            [concepts[name] for name in prompt.concepts],
            None if text.pooled is None else text.pooled[0],
            subject_rows=prompt.subject_rows,
        )


class _ManifestWords:
    """What tokenising needs of a concept, from its manifest."""

    def __init__(self, manifest: Manifest) -> None:
        self.class_word = manifest.class_word
        self.subject_tokens = manifest.subject_tokens
        self.attribute_counts = {attribute.name: attribute.count for attribute in manifest.attributes}


def _words(stored: Mapping[str, StoredManifest]) -> dict[str, _ManifestWords]:
    return {name: _ManifestWords(found.manifest) for name, found in stored.items()}


def _check_size(request: GenerationRequest, base_model: BaseModel) -> None:
    multiple = base_model.size_multiple
    for field, given in (("width", request.width), ("height", request.height)):
        if given % multiple:
            raise invalid_input(field, given, f"a multiple of {multiple} for base model {base_model.name!r}")
