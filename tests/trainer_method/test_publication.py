from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from detex_core.artifact import ConceptArchive, Manifest
from detex_core.object_store import FolderStore
from detex_core.prompt import parse_prompt
from detex_diffusion.base_model import BaseModel
from detex_diffusion.concept import Concept
from detex_diffusion.concept_file import load_concept
from detex_diffusion.conditioning import PromptKeyValues, key_values
from detex_diffusion.text import encode, tokenize, word_embeddings
from detex_trainer.domain.failures import DivergedError
from detex_trainer.domain.job_spec import JobSpec
from detex_trainer.domain.training_set import TrainingSet
from detex_trainer.learning.training import train_concept
from detex_trainer.learning.training.pictures import draw_pictures
from detex_trainer.learning.training.publication import publish, write_concept
from detex_trainer.report.training_report import Report, Verdict
from tests.trainer_method.conftest import RecordingReporter
from tests.trainer_method.learners import make_learner

REPORT = Report(
    verdict=Verdict.FIT,
    summary="Fit.",
    findings=(),
    before={},
    after={},
    losses={},
    delta_share=0.1,
    energy_kept=1.0,
    steps=1,
    chosen_step=1,
    seconds=1.0,
)
MakeSpec = Callable[..., JobSpec]
PROMPTS = [
    "a photo of a [my-mug]",
    "[my-mug] with [my-mug:pose:2] in [my-mug:background:0]",
    "a bowl in [my-mug:background:1]",
]


def picture_of(version: str) -> bytes:
    return b"\x89PNG" + version.encode()


def learned(base_model: BaseModel, training_set: TrainingSet) -> Concept:
    """A concept as a learner gives it, with deltas of some size."""
    generator = torch.Generator().manual_seed(0)
    learner, _ = make_learner(
        base_model, training_set, "detex", "pose background", subject_key_value_learning_rate=0.04
    )
    with torch.no_grad():
        for parameter in learner.words.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return learner.concept()


def manifest_of(store: FolderStore, version: str) -> Manifest:
    return ConceptArchive(store).resolve("default", "my-mug", version).manifest


def conditioning(base_model: BaseModel, concept: Concept, prompt: str) -> PromptKeyValues:
    concepts = {"my-mug": concept}
    tokenized = tokenize(parse_prompt(prompt), concepts, base_model.tokenizer)
    hidden = encode(base_model, [tokenized], [word_embeddings(tokenized, concepts)])
    used = [concepts[name] for name in tokenized.concepts]
    return key_values(base_model.unet, hidden[0], tokenized.owners, used, subject_rows=tokenized.subject_rows)


def test_the_full_form_loads_bit_for_bit(
    base_model: BaseModel, training_set: TrainingSet, make_spec: MakeSpec, store: FolderStore
) -> None:
    concept = learned(base_model, training_set)
    spec = make_spec(delta_form="full")
    written = write_concept(concept, spec.hyperparameters)
    manifest = publish(store, spec, training_set.record, base_model, written, REPORT, picture_of)
    stored = ConceptArchive(store).resolve("default", "my-mug", manifest.version)
    loaded = load_concept(stored.manifest, ConceptArchive(store).read(stored, "concept.safetensors"), base_model)
    assert ConceptArchive(store).read(stored, "report.png") == picture_of(manifest.version)
    assert manifest.key_value.form == "full"
    assert manifest.key_value.energy_kept == written.energy_kept == 1
    for prompt in PROMPTS:
        for layer, pair in conditioning(base_model, concept, prompt).layers.items():
            for ours, theirs in zip(pair, conditioning(base_model, loaded, prompt).layers[layer], strict=True):
                assert torch.equal(ours, theirs)
    drawn = [
        draw_pictures(base_model, PROMPTS, {"my-mug": each}, seeds=[1, 2, 3], steps=3) for each in (concept, loaded)
    ]
    assert [picture.tobytes() for picture in drawn[0]] == [picture.tobytes() for picture in drawn[1]]


@pytest.mark.parametrize("energy", [0.5, 0.9, 0.999])
def test_the_low_rank_form_keeps_the_energy_asked_for(
    base_model: BaseModel, training_set: TrainingSet, make_spec: MakeSpec, store: FolderStore, energy: float
) -> None:
    concept = learned(base_model, training_set)
    spec = make_spec(low_rank_energy=energy)
    written = write_concept(concept, spec.hyperparameters)
    manifest = publish(store, spec, training_set.record, base_model, written, REPORT, picture_of)
    stored = ConceptArchive(store).resolve("default", "my-mug", manifest.version)
    loaded = load_concept(stored.manifest, ConceptArchive(store).read(stored, "concept.safetensors"), base_model)
    assert manifest.key_value.form == "low_rank"
    assert manifest.key_value.energy_kept >= energy
    for layer, delta in concept.key_value.items():
        for (_, ours), (_, theirs) in zip(delta.projections(), loaded.key_value[layer].projections(), strict=True):
            lost = (ours.materialized() - theirs.materialized()).square().sum() / ours.materialized().square().sum()
            assert lost <= 1 - energy + 1e-4  # float16
    torch.testing.assert_close(loaded.subject, concept.subject, atol=0, rtol=1e-3)


@pytest.mark.parametrize(("delta_form", "size"), [("low_rank", 1e6), ("full", float("nan"))])
def test_numbers_beyond_the_type_are_divergence(
    base_model: BaseModel, training_set: TrainingSet, make_spec: MakeSpec, delta_form: str, size: float
) -> None:
    concept = learned(base_model, training_set)
    grown = replace(concept, subject=concept.subject * size)
    with pytest.raises(DivergedError, match="lower the learning rates"):
        write_concept(grown, make_spec(delta_form=delta_form).hyperparameters)


def test_low_rank_is_smaller_than_full(base_model: BaseModel, training_set: TrainingSet, make_spec: MakeSpec) -> None:
    concept = learned(base_model, training_set)
    thin = write_concept(concept, make_spec(low_rank_energy=0.5).hyperparameters)
    full = write_concept(concept, make_spec(delta_form="full").hyperparameters)
    assert len(thin.data) < 0.4 * len(full.data)


def test_manifest_and_report_say_what_was_done(
    base_model: BaseModel, training_set: TrainingSet, make_spec: MakeSpec, store: FolderStore
) -> None:
    spec = make_spec(steps=5, subject_tokens=2)
    manifest = train_concept(spec, training_set, store, RecordingReporter(), lambda: False)
    assert manifest == manifest_of(store, manifest.version)
    assert manifest.method == "detex"
    assert manifest.class_word == "mug"
    assert manifest.base_model_fingerprint == base_model.fingerprint
    assert manifest.training_set_digest == training_set.record.digest
    assert manifest.subject_tokens == 2
    assert {attribute.name: attribute.count for attribute in manifest.attributes} == {"pose": 3, "background": 3}
    assert manifest.hyperparameters["steps"] == 5
    assert manifest.hyperparameters["delta_form"] == "low_rank"
    archive = ConceptArchive(store)
    stored = archive.resolve("default", "my-mug", manifest.version)
    report = Report.model_validate_json(archive.read(stored, "report.json"))
    assert report.steps == 5
    assert report.after["denoising_loss"] == manifest.metrics["denoising_loss_after"]
    assert 0 < report.after["subject_share"] < 1
    assert report.summary


def test_textual_inversion_publishes_words_alone(
    training_set: TrainingSet, make_spec: MakeSpec, store: FolderStore
) -> None:
    manifest = train_concept(make_spec("textual_inversion"), training_set, store, RecordingReporter(), lambda: False)
    assert manifest.key_value.form == "none"
    assert manifest.attributes == ()
