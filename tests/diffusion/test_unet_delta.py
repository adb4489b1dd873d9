"""Deltas of the UNet's own parameters: what they add, how small they are written, and what is refused."""

import copy
from dataclasses import replace

import pytest
import safetensors.torch
import torch

from detex_core.artifact import KeyValueForm, Manifest
from detex_core.artifact.manifest import UNetForm
from detex_core.errors import DataLossError
from detex_core.prompt import parse_prompt
from detex_diffusion.base_model import BaseModel
from detex_diffusion.concept import Concept, compress, unet_form
from detex_diffusion.concept_file import load_concept, save_concept
from detex_diffusion.conditioning import KeyValueBatch, key_values
from detex_diffusion.key_value_delta import LowRankDelta
from detex_diffusion.text import encode, tokenize, word_embeddings
from detex_diffusion.unet import KeyValueUNet
from detex_diffusion.unet_delta import materialized, unet_with_delta


def trained_concept(base_model: BaseModel, seed: int = 0, *, rank: int = 2) -> Concept:
    """Every parameter of the UNet moved by something of low rank but for biases, which move as they please."""
    generator = torch.Generator().manual_seed(seed)
    delta = {}
    for name, parameter in base_model.unet.named_parameters():
        if parameter.ndim == 1:
            delta[name] = 0.1 * torch.randn(parameter.shape, generator=generator)
            continue
        columns = parameter[0].numel()
        up = torch.randn(parameter.shape[0], rank, generator=generator)
        down = torch.randn(rank, columns, generator=generator)
        delta[name] = (0.02 * up @ down).view(parameter.shape)
    return Concept(
        "test/trained", "mug", torch.randn(1, base_model.embedding_width, generator=generator), unet_delta=delta
    )


def manifest_of(concept: Concept, base_model: BaseModel, dtype: str, energy_kept: float = 1.0) -> Manifest:
    return Manifest.model_validate(
        {
            "name": "trained",
            "tenant": "default",
            "method": "dreambooth",
            "base_model": base_model.name,
            "base_model_fingerprint": base_model.fingerprint,
            "class_word": "mug",
            "subject_tokens": 1,
            "embedding_width": base_model.embedding_width,
            "attributes": (),
            "key_value": KeyValueForm(form="none", scope="words", largest_rank=0, energy_kept=1),
            "unet": unet_form(concept, energy_kept),
            "dtype": dtype,
            "training_set_digest": "0" * 64,
            "hyperparameters": {},
            "metrics": {},
            "trainer_version": "0",
            "version": "20260101T000000Z-01234567",
            "files": {},
            "create_time": "2026-01-01T00:00:00Z",
        }
    )


def test_a_unet_with_delta_is_a_plain_unet_with_overwritten_weights(base_model: BaseModel) -> None:
    concept = trained_concept(base_model)
    before = {name: tensor.clone() for name, tensor in base_model.unet.state_dict().items()}
    own, size_bytes = unet_with_delta(base_model.unet, concept.unet_delta)
    assert size_bytes == sum(4 * parameter.numel() for parameter in base_model.unet.parameters())
    plain = copy.deepcopy(base_model.unet)
    plain.load_state_dict({name: tensor + concept.unet_delta[name] for name, tensor in before.items()})
    prompt = tokenize(parse_prompt("a photo of a [trained]"), {"trained": concept}, base_model.tokenizer)
    hidden = encode(base_model, [prompt], [word_embeddings(prompt, {"trained": concept})])
    latents = torch.randn(1, *base_model.latent_shape(), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = plain(latents, torch.tensor([500]), encoder_hidden_states=hidden, return_dict=False)[0]
        batch = KeyValueBatch.stack([key_values(own, hidden[0], prompt.owners, [concept])])
        given = KeyValueUNet(own)(latents, torch.tensor([500]), batch)
        without = base_model.unet(latents, torch.tensor([500]), encoder_hidden_states=hidden, return_dict=False)[0]
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-5)
    assert (given - without).abs().max() > 0.01
    assert all(torch.equal(tensor, before[name]) for name, tensor in base_model.unet.state_dict().items())


def test_what_has_no_delta_is_not_copied(base_model: BaseModel) -> None:
    whole = trained_concept(base_model)
    name = next(name for name in whole.unet_delta if "attn1.to_q" in name)
    own, size_bytes = unet_with_delta(base_model.unet, {name: whole.unet_delta[name]})
    base = dict(base_model.unet.named_parameters())
    assert size_bytes == 4 * base[name].numel()
    for other, parameter in own.named_parameters():
        assert (parameter.data_ptr() == base[other].data_ptr()) == (other != name)
    with pytest.raises(ValueError, match="no parameter nothing"):
        unet_with_delta(base_model.unet, {"nothing": torch.zeros(1)})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_file_gives_back_what_was_written(base_model: BaseModel, dtype: torch.dtype) -> None:
    concept = trained_concept(base_model)
    name = {torch.float32: "float32", torch.float16: "float16"}[dtype]
    loaded = load_concept(manifest_of(concept, base_model, name), save_concept(concept, dtype), base_model)
    for parameter, delta in concept.unet_delta.items():
        expected = materialized(delta).to(dtype).float()
        assert torch.equal(materialized(loaded.unet_delta[parameter]), expected)


def test_the_low_rank_form_is_small_and_keeps_the_energy(base_model: BaseModel) -> None:
    concept = trained_concept(base_model)
    thin, energy_kept = compress(concept, 0.999)
    assert energy_kept >= 0.999
    assert thin.size_bytes < 0.4 * concept.size_bytes
    form = unet_form(thin, energy_kept)
    assert (form.form, form.largest_rank) == ("low_rank", 2)
    for name, delta in concept.unet_delta.items():
        found = materialized(thin.unet_delta[name]).view(delta.shape)
        assert (found - delta).norm() <= 0.04 * delta.norm()
        if delta.ndim == 1:
            assert torch.equal(found, delta)
    data = save_concept(thin, torch.float32)
    loaded = load_concept(manifest_of(thin, base_model, "float32", energy_kept), data, base_model)
    assert {name for name, each in loaded.unet_delta.items() if isinstance(each, LowRankDelta)} == {
        name for name, each in thin.unet_delta.items() if isinstance(each, LowRankDelta)
    }


def test_files_that_do_not_fit_are_refused(base_model: BaseModel) -> None:
    concept = trained_concept(base_model)
    manifest = manifest_of(concept, base_model, "float32")
    tensors = safetensors.torch.load(save_concept(concept, torch.float32))
    name = next(name for name in tensors if name.endswith("conv_in.weight"))

    def refused(changes: dict[str, torch.Tensor | None], by: Manifest = manifest) -> str:
        wrong = {key: value for key, value in {**tensors, **changes}.items() if value is not None}
        with pytest.raises(DataLossError) as caught:
            load_concept(by, safetensors.torch.save(wrong), base_model)
        return caught.value.message

    assert "belongs to no parameter" in refused({"unet.nothing.weight": torch.zeros(2)})
    assert "has shape (2,)" in refused({name: torch.zeros(2)})
    assert "is not of form 'full'" in refused({name: None, f"{name}.up": torch.zeros(16, 1)})
    none = manifest.model_copy(update={"unet": UNetForm()})
    assert "UNet form 'none', but deltas for" in refused({}, none)
    only_words = replace(concept, unet_delta={})
    with pytest.raises(DataLossError, match="UNet form 'full', but deltas for 0 parameters"):
        load_concept(manifest, save_concept(only_words, torch.float32), base_model)
    low_rank = manifest.model_copy(update={"unet": UNetForm(form="low_rank", largest_rank=1)})
    wide = {name: None, f"{name}.up": torch.zeros(16, 2), f"{name}.down": torch.zeros(2, 36)}
    assert "has factors of shapes (16, 2) and (2, 36)" in refused(wide, low_rank)
