"""Learning a concept through words and key and value projections: detex, and the methods it contains.

Legend: B photos of a step, C latent channels, (h, h) latent size, T text tokens, E text width, G groups of words
(subject and background), (n, n) size of attention maps.
"""

import functools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from detex_core.prompt import AttributeWord, Prompt
from detex_diffusion.base_model import BaseModel
from detex_diffusion.concept import Concept
from detex_diffusion.cross_attention import cross_attention_sizes
from detex_diffusion.key_value_delta import KeyValueDeltas
from detex_diffusion.text import TokenizedPrompt, tokenize
from detex_diffusion.unet import KeyValueUNet
from detex_trainer.domain.attribute_vocabulary import AttributeVocabulary
from detex_trainer.domain.attributes import Attribute, Region
from detex_trainer.domain.hyperparameters import Hyperparameters, PriorPreservation
from detex_trainer.intake.masks import downsample_masks
from detex_trainer.learning.methods.concept_words import ConceptShape, ConceptWords, parameters_of
from detex_trainer.learning.methods.learner import FirstWords, ParameterGroup, StepNoise
from detex_trainer.learning.methods.objective import (
    attention_loss,
    attention_mass,
    attention_side,
    key_value_drift,
    masked_denoising_loss,
    region_weights,
    word_attention,
)
from detex_trainer.learning.methods.photo_prompts import PhotoPrompt, PhotoPrompts
from detex_trainer.learning.methods.plain_words import choose_plain_words
from detex_trainer.learning.methods.regularisation import regularisation_states
from detex_trainer.learning.methods.unet_pass import PassOutput, PassRows, run_pass
from detex_trainer.learning.methods.word_step import StepOutput, WordStep
from detex_trainer.learning.photos.dataset import Batch, PhotoSet

_REMEMBERED_PROMPTS = 4_096


class WordLearner:
    """A concept of words and deltas while it is learned; see `Learner`."""

    def __init__(
        self,
        base_model: BaseModel,
        name: str,
        class_word: str,
        attributes: Sequence[Attribute],
        photo_set: PhotoSet,
        hyperparameters: Hyperparameters,
        shape: ConceptShape,
        generator: torch.Generator,
        *,
        surroundings_probability: float = 0.0,
        min_snr_gamma: float | None = None,
        vocabulary: AttributeVocabulary | None = None,
    ) -> None:
        """Begin at plain words, or where `shape` says.

        Args:
            base_model: Stays as it is.
            name: Of the concept.
            class_word: What the subject is.
            attributes: What has a word of its own per photo.
            photo_set: What to learn from; needs image features where there are attributes.
            hyperparameters: Learning rates and weights of the losses.
            shape: Which parts are trained.
            generator: Source of the initial weights.
            surroundings_probability: See `PhotoPrompts`.
            min_snr_gamma: Clamp of the signal-to-noise weights of the denoising steps; None for no weights.
            vocabulary: Plain words that attribute words may begin at; by default the built-in ones.
        """
        self.base_model = base_model
        self._name = name
        self._attributes = tuple(attributes)
        self._photo_set = photo_set
        self._hyperparameters = hyperparameters
        self.prompts = PhotoPrompts(
            name,
            class_word,
            self._attributes,
            photo_set.captions,
            hyperparameters.attribute_keep_probability,
            surroundings_probability,
        )
        self._min_snr_gamma = min_snr_gamma
        self._features = photo_set.features[:, 0]
        words = vocabulary or AttributeVocabulary()
        first = choose_plain_words(base_model, class_word, self._attributes, photo_set, words, hyperparameters)
        self._first_words = first.as_words()
        self.words = ConceptWords(
            base_model, class_word, shape, self._features, generator, first.attributes, first.subject
        )
        self._unet = KeyValueUNet(base_model.unet, base_model.pixels_per_latent)
        height, width = photo_set.latents.shape[-2:]
        self._map_side = hyperparameters.attention_map_side or attention_side(min(height, width))
        sizes = cross_attention_sizes(base_model.unet, height, width)
        nearest = min(sizes.values(), key=lambda size: abs(size[0] - self._map_side))
        self._map_side = nearest[0]
        self._map_layers = tuple(layer for layer, size in sizes.items() if size == nearest)
        is_kept = (
            hyperparameters.prior_preservation is PriorPreservation.KEY_VALUES and hyperparameters.prior_loss_weight
        )
        self._regularisation = regularisation_states(base_model, class_word) if is_kept else []
        # Prompts of a training set are few and come again and again.
        self._read = functools.lru_cache(_REMEMBERED_PROMPTS)(self._tokenized_with_groups)

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """Subject, mappers, projections, vectors: those that there are."""
        hyperparameters, words = self._hyperparameters, self.words
        groups = [
            ParameterGroup("subject", words.trained_subject, hyperparameters.subject_learning_rate),
            ParameterGroup("mappers", parameters_of([words.mappers]), hyperparameters.mapper_learning_rate),
            ParameterGroup("key_value", list(words.deltas), hyperparameters.key_value_learning_rate),
            ParameterGroup("subject_key_value", list(words.vectors), hyperparameters.subject_key_value_learning_rate),
        ]
        return [group for group in groups if group.parameters]

    def losses(self, batch: Batch, noise: StepNoise, generator: torch.Generator) -> Mapping[str, Tensor]:
        """`denoising`, `attention` and `prior` where they have a weight, and `total`."""
        step = self.draw_step(batch, noise, generator)
        return self.step_losses(step, run_pass(self.base_model, self._unet, [step.rows])[0])

    def draw_step(self, batch: Batch, noise: StepNoise, generator: torch.Generator) -> WordStep:
        """Draw what a step says of its photos; see `PackableLearner`."""
        shown = zip(batch.photo_indices, batch.views, strict=True)
        prompts = [self.prompts.draw(index, generator, view) for index, view in shown]
        regularisation = None
        if self._regularisation and self.words.layers:
            drawn = int(torch.randint(0, len(self._regularisation), (), generator=generator))
            regularisation = self._regularisation[drawn]
        with_attention = self._hyperparameters.attention_loss_weight > 0
        return self._step(batch, noise, prompts, regularisation, with_attention=with_attention)

    def step_losses(self, step: WordStep, output: PassOutput) -> Mapping[str, Tensor]:
        """The losses of a step that was drawn; see `PackableLearner`."""
        hyperparameters, seen = self._hyperparameters, self._seen(step, output)
        losses = {"denoising": self.denoising_loss(seen, step.batch, step.noise, step.prompts)}
        total = losses["denoising"]
        if hyperparameters.attention_loss_weight:
            losses["attention"] = attention_loss(seen.attention, seen.regions, seen.present)
            total = total + hyperparameters.attention_loss_weight * losses["attention"]
        if step.regularisation is not None:
            losses["prior"] = key_value_drift(list(self.words.deltas), self.words.weights, step.regularisation)
            total = total + hyperparameters.prior_loss_weight * losses["prior"]
        return {"total": total, **losses}

    def denoising_loss(
        self, output: StepOutput, batch: Batch, noise: StepNoise, prompts: Sequence[PhotoPrompt]
    ) -> Tensor:
        """The masked denoising loss of a batch under its prompts."""
        device = batch.latents.device
        subject = torch.tensor([Region.SUBJECT in prompt.explained for prompt in prompts], device=device)
        background = torch.tensor([Region.BACKGROUND in prompt.explained for prompt in prompts], device=device)
        weights = region_weights(batch.masks, subject, background, self._hyperparameters.mask_floor, batch.valid)
        step_weights = None
        if self._min_snr_gamma is not None:
            step_weights = self.base_model.noise_schedule.min_snr_weights(noise.timesteps.cpu(), self._min_snr_gamma)
            step_weights = step_weights.to(device)
        return masked_denoising_loss(output.prediction, output.target, weights, step_weights)

    @torch.no_grad()
    def measure(self, batch: Batch, noise: StepNoise) -> Mapping[str, float]:
        """Losses and attention under the full prompts and under the subject word alone, for reports."""
        full, alone = ([self.prompts.full(i, kept) for i in batch.photo_indices] for kept in (None, ()))
        output, output_alone = (self.run(batch, noise, each, with_attention=True) for each in (full, alone))
        inside, around = attention_mass(output.attention, output.regions).unbind(dim=1)  # (B,), (B,)
        inside_alone = attention_mass(output_alone.attention, output_alone.regions)[:, 0]
        measured = {
            "denoising_loss": float(self.denoising_loss(output, batch, noise, full)),
            "denoising_loss_subject_alone": float(self.denoising_loss(output_alone, batch, noise, alone)),
            "subject_loss_alone": float(
                masked_denoising_loss(output_alone.prediction, output_alone.target, batch.masks * batch.valid)
            ),
            "subject_attention_on_subject": float(inside.mean()),
            "subject_attention_on_subject_alone": float(inside_alone.mean()),
            "subject_share": float(output.regions[:, 0].mean()),  # of uniform attention
        }
        if bool(output.present[:, 1].any()):
            measured["background_attention_on_background"] = float(around[output.present[:, 1]].mean())
        return measured

    @torch.no_grad()
    def subject_attention(self, batch: Batch, noise: StepNoise) -> Tensor:
        """Where the subject word is looked at without attribute words: (B, n, n) with maximum 1."""
        alone = [self.prompts.full(i, kept=()) for i in batch.photo_indices]
        return self.run(batch, noise, alone, with_attention=True).attention[:, 0]

    def run(
        self, batch: Batch, noise: StepNoise, prompts: Sequence[PhotoPrompt], *, with_attention: bool
    ) -> StepOutput:
        """Predict the noise of a batch under its prompts, differentiable in all that is trained."""
        step = self._step(batch, noise, prompts, None, with_attention=with_attention)
        return self._seen(step, run_pass(self.base_model, self._unet, [step.rows])[0])

    def _step(
        self,
        batch: Batch,
        noise: StepNoise,
        prompts: Sequence[PhotoPrompt],
        regularisation: Tensor | None,
        *,
        with_attention: bool,
    ) -> WordStep:
        words = self.words
        # Attribute words come from the photo that a row shows; rows without any that say the same are the same.
        says = [any(isinstance(part, AttributeWord) for part in each.prompt.parts) for each in prompts]
        keys = [(prompt.prompt, row if says[row] else -1) for row, prompt in enumerate(prompts)]
        distinct = list(dict.fromkeys(keys))
        tokenized, groups = zip(*(self._read(prompt) for prompt, _ in distinct), strict=True)
        owners = torch.stack([each.owners for each in tokenized])  # (U, T)
        owned = owners >= 0
        if words.shape.scope == "prompt":
            owned = owned.any(dim=1, keepdim=True).expand_as(owners)
        places = [distinct.index(key) for key in keys]
        rows = PassRows(
            prompts=tokenized,
            embeddings=[
                self._embeddings(each, batch.features[row], batch.photo_indices[row])
                for each, (_, row) in zip(tokenized, distinct, strict=True)
            ],
            prompt_of_row=places,
            owned=owned,
            deltas=words.key_value_deltas(),
            latents=self.base_model.noise_schedule.add_noise(batch.latents, noise.noise, noise.timesteps),
            timesteps=noise.timesteps,
            map_layers=self._map_layers if with_attention else (),
            subject_rows=torch.stack([each.subject_rows for each in tokenized]) if words.vectors else None,
            vectors=words.subject_key_value(),
        )
        return WordStep(rows, batch, noise, prompts, torch.stack([groups[place] for place in places]), regularisation)

    def _seen(self, step: WordStep, output: PassOutput) -> StepOutput:
        """What the UNet has made of a step."""
        target = self.base_model.noise_schedule.target(step.batch.latents, step.noise.noise, step.noise.timesteps)
        if not output.maps:
            nothing = torch.zeros(len(step.prompts), 0, 1, 1)
            return StepOutput(output.prediction, target, nothing, nothing, nothing[:, :, 0, 0] > 0)
        groups = step.groups.to(target.device)  # (B, G, T)
        mask = downsample_masks(step.batch.masks, self._map_side, self._map_side)  # (B, 1, n, n)
        return StepOutput(
            output.prediction,
            target,
            word_attention(list(output.maps.values()), groups),
            torch.cat([mask, 1 - mask], dim=1),
            groups.sum(dim=2) > 0,
        )

    def concept(self) -> Concept:
        """The concept as it stands."""
        return self.words.concept(self._name, self._features)

    def key_value_deltas(self) -> KeyValueDeltas:
        """The deltas by layer, made of the parameters themselves."""
        return self.words.key_value_deltas()

    def delta_share(self) -> float:
        """Size of the deltas as a share of the projections' own."""
        return self.words.delta_share()

    def first_words(self) -> FirstWords:
        """Those that were chosen; see `choose_plain_words`."""
        return self._first_words

    def _embeddings(self, tokenized: TokenizedPrompt, features: Tensor, photo: int) -> Tensor | None:
        """Embeddings (W, E) of the words of a prompt, its attribute words from the features (P,) of its photo."""
        rows = []
        position = torch.tensor(photo, device=features.device)
        for used in tokenized.words:
            attribute, index = used.word.attribute, used.word.index
            if attribute is None:
                rows.append(self.words.subject[index])
            else:
                rows.append(self.words.attribute_embeddings(attribute, features, position))
        return torch.stack(rows) if rows else None

    def _tokenized_with_groups(self, prompt: Prompt) -> tuple[TokenizedPrompt, Tensor]:
        """The tokens of a prompt, and (G, T), 1 at the words of a group."""
        tokenized = tokenize(prompt, {self._name: self.words}, self.base_model.tokenizer)
        return tokenized, self._groups(tokenized)

    def _groups(self, tokenized: TokenizedPrompt) -> Tensor:
        """(G, T), 1 at the subject's embeddings and at those of background words."""
        groups = torch.zeros(2, len(tokenized.ids))
        for position, row in enumerate(tokenized.word_rows.tolist()):
            if row < 0:
                continue
            attribute = tokenized.words[row].word.attribute
            if attribute is None:
                groups[0, position] = 1
            elif any(a.name == attribute and a.region is Region.BACKGROUND for a in self._attributes):
                groups[1, position] = 1
        return groups
