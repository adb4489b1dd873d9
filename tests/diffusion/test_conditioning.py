import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch

from detex_core.prompt import parse_prompt
from detex_diffusion.base_model import BaseModel
from detex_diffusion.concept import Concept, Scope, compress
from detex_diffusion.conditioning import KeyValueBatch, OwnedTokens, PromptKeyValues, key_values, project
from detex_diffusion.cross_attention import cross_attention_layers
from detex_diffusion.key_value_delta import FullDelta, LayerDelta
from detex_diffusion.text import TokenizedPrompt, encode, tokenize, word_embeddings
from tests.diffusion.concepts import random_concept


def encoded(
    base_model: BaseModel, text: str, concepts: Mapping[str, Concept]
) -> tuple[TokenizedPrompt, torch.Tensor, list[Concept]]:
    tokenized = tokenize(parse_prompt(text), concepts, base_model.tokenizer)
    hidden = encode(base_model, [tokenized], [word_embeddings(tokenized, concepts)])[0]
    return tokenized, hidden, [concepts[name] for name in tokenized.concepts]


def prompt_key_values(base_model: BaseModel, text: str, concepts: Mapping[str, Concept]) -> PromptKeyValues:
    tokenized, hidden, used = encoded(base_model, text, concepts)
    return key_values(base_model.unet, hidden, tokenized.owners, used, subject_rows=tokenized.subject_rows)


def merged(unet: Any, concept: Concept) -> Any:
    """A UNet with the deltas written into its weights."""
    other = copy.deepcopy(unet)
    with torch.no_grad():
        for name, module in cross_attention_layers(other).items():
            for projection, delta in concept.key_value[name].projections():
                getattr(module, projection).weight += delta.materialized()
    return other


def split(module: Any, hidden: torch.Tensor, projection: str) -> torch.Tensor:
    """Keys or values (H, T, D), written down once more."""
    return getattr(module, projection)(hidden).view(len(hidden), module.heads, -1).transpose(0, 1)


def assert_equal(got: PromptKeyValues, wanted: PromptKeyValues) -> None:
    assert list(got.layers) == list(wanted.layers)
    for name, pair in got.layers.items():
        for a, b in zip(pair, wanted.layers[name], strict=True):
            assert torch.equal(a, b)


def test_without_concepts_they_are_the_base_models(base_model: BaseModel) -> None:
    _, hidden, _ = encoded(base_model, "a mug on snow", {})
    got = prompt_key_values(base_model, "a mug on snow", {})
    layers = cross_attention_layers(base_model.unet)
    assert list(got.layers) == list(layers)
    assert got.tokens == 77
    for name, module in layers.items():
        torch.testing.assert_close(got.layers[name][0], split(module, hidden, "to_k"), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(got.layers[name][1], split(module, hidden, "to_v"), rtol=1e-6, atol=1e-6)


def test_every_token_goes_through_the_projections_of_its_owner(base_model: BaseModel) -> None:
    concepts = {
        "my-mug": random_concept(base_model, 1),
        "my-pot": random_concept(base_model, 2, class_word="teapot", scope="prompt", subject_tokens=2),
    }
    tokenized, hidden, used = encoded(
        base_model, "[my-mug] beside [my-pot] in [my-mug:background:3], a photo", concepts
    )
    got = key_values(base_model.unet, hidden, tokenized.owners, used)
    unets = [merged(base_model.unet, concept) for concept in used] + [base_model.unet]
    assert set(tokenized.owners.tolist()) == {-1, 0, 1}
    for name in got.layers:
        modules = [cross_attention_layers(unet)[name] for unet in unets]
        for i, projection in enumerate(("to_k", "to_v")):
            all_of_them = [split(module, hidden, projection) for module in modules]
            wanted = torch.stack([all_of_them[owner][:, t] for t, owner in enumerate(tokenized.owners.tolist())], dim=1)
            torch.testing.assert_close(got.layers[name][i], wanted, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("scope", ["words", "prompt"])
def test_vectors_are_added_to_the_subjects_own_tokens_and_to_no_other(base_model: BaseModel, scope: Scope) -> None:
    concepts = {
        "my-mug": random_concept(base_model, 1, scope=scope, subject_tokens=2, subject_vectors=True),
        "my-pot": random_concept(base_model, 2, class_word="teapot", subject_tokens=3),
    }
    text = "[my-pot] beside [my-mug] in [my-mug:background:1], another [my-mug]"
    bare = {name: replace(concept, subject_key_value={}) for name, concept in concepts.items()}
    with_vectors, without = (prompt_key_values(base_model, text, each) for each in (concepts, bare))
    positions = encoded(base_model, text, concepts)[0].positions("my-mug").tolist()
    assert len(positions) == 4
    for name, vectors in concepts["my-mug"].subject_key_value.items():
        heads = cross_attention_layers(base_model.unet)[name].heads
        for got, base, (_, added) in zip(
            with_vectors.layers[name], without.layers[name], vectors.projections(), strict=True
        ):
            wanted = base.clone()  # (H, T, D)
            for place, position in enumerate(positions):
                wanted[:, position] += added[place % 2].view(heads, -1)
            torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-6)


def test_vectors_without_their_places_are_refused(base_model: BaseModel) -> None:
    tokenized, hidden, used = encoded(
        base_model, "[my-mug] on snow", {"my-mug": random_concept(base_model, 1, subject_vectors=True)}
    )
    with pytest.raises(ValueError, match="subject_rows"):
        key_values(base_model.unet, hidden, tokenized.owners, used)


def test_scope_prompt_alone_takes_every_token(base_model: BaseModel) -> None:
    concepts = {"my-mug": random_concept(base_model, 1, scope="prompt")}
    _, hidden, used = encoded(base_model, "a photo of [my-mug]", concepts)
    got = prompt_key_values(base_model, "a photo of [my-mug]", concepts)
    for name, module in cross_attention_layers(merged(base_model.unet, used[0])).items():
        torch.testing.assert_close(got.layers[name][1], split(module, hidden, "to_v"), rtol=1e-5, atol=2e-6)


def test_low_rank_deltas_are_their_product(base_model: BaseModel) -> None:
    thin, _ = compress(random_concept(base_model, 1), 0.8)
    full = Concept(
        **{
            **vars(thin),
            "key_value": {
                layer: LayerDelta(**{p: FullDelta(d.materialized()) for p, d in delta.projections()})
                for layer, delta in thin.key_value.items()
            },
        }
    )
    got, wanted = (prompt_key_values(base_model, "[c] on snow", {"c": concept}) for concept in (thin, full))
    for name, pair in got.layers.items():
        torch.testing.assert_close(pair, wanted.layers[name], rtol=1e-5, atol=5e-6)


def test_layers_and_projections_without_delta_stay_the_base_models(base_model: BaseModel) -> None:
    whole = random_concept(base_model, 1)
    first, *_, last = whole.key_value
    part = Concept(**{**vars(whole), "key_value": {last: LayerDelta(to_v=whole.key_value[last].to_v)}})
    none = Concept(**{**vars(whole), "key_value": {}})
    got, base, full = (prompt_key_values(base_model, "[c] on snow", {"c": c}) for c in (part, none, whole))
    assert torch.equal(got.layers[first][0], base.layers[first][0])
    assert torch.equal(got.layers[last][0], base.layers[last][0])
    assert torch.equal(got.layers[last][1], full.layers[last][1])
    assert not torch.equal(got.layers[last][1], base.layers[last][1])


def test_a_row_of_a_batch_is_the_prompt_bit_for_bit(base_model: BaseModel) -> None:
    concepts = {"a": random_concept(base_model, 1), "b": random_concept(base_model, 2, scope="prompt")}
    prompts = [prompt_key_values(base_model, text, concepts) for text in ("[a] on snow", "a mug", "[b] with [a]")]
    batch = KeyValueBatch.stack(prompts)
    assert batch.rows == 3
    assert batch.mask is None
    for i, prompt in enumerate(prompts):
        assert_equal(batch.row(i), prompt)
    again = KeyValueBatch.stack([prompts[2]])
    assert_equal(again.row(0), prompts[2])


def test_prompts_of_differing_lengths_are_filled_up_and_masked() -> None:
    generator = torch.Generator().manual_seed(0)

    def prompt(tokens: int) -> PromptKeyValues:
        return PromptKeyValues(
            {name: tuple(torch.randn(2, heads, tokens, 3, generator=generator)) for name, heads in (("x", 2), ("y", 4))}
        )

    prompts = [prompt(5), prompt(9), prompt(1)]
    batch = KeyValueBatch.stack(prompts)
    assert batch.mask is not None
    assert batch.mask.sum(dim=1).tolist() == [5, 9, 1]
    assert batch.layers["y"][0].shape == (3, 4, 9, 3)
    for i, one in enumerate(prompts):
        assert_equal(batch.row(i), one)


def test_size_and_moves(base_model: BaseModel) -> None:
    prompt = prompt_key_values(base_model, "a mug", {})
    widths = sum(2 * module.to_k.out_features for module in cross_attention_layers(base_model.unet).values())
    assert prompt.size_bytes == 77 * widths * 4
    half = prompt.to(dtype=torch.float16)
    assert half.size_bytes * 2 == prompt.size_bytes


@pytest.mark.parametrize("scope", ["words", "prompt"])
def test_gradients_of_deltas_are_those_of_the_weights_they_stand_for(base_model: BaseModel, scope: str) -> None:
    concept = random_concept(base_model, 1, scope="prompt")
    tokenized, hidden, _ = encoded(base_model, "[c] with [c:pose:1] on snow", {"c": concept})
    tokens = tokenized.owners.unsqueeze(0) == 0 if scope == "words" else torch.ones(1, 77, dtype=torch.bool)
    parameters = {
        layer: LayerDelta(**{p: FullDelta(d.materialized().clone().requires_grad_()) for p, d in delta.projections()})
        for layer, delta in concept.key_value.items()
    }
    batch = project(base_model.unet, hidden.unsqueeze(0), [OwnedTokens(tokens, parameters)])
    readouts = {
        n: torch.randn(2, *k.shape, generator=torch.Generator().manual_seed(5)) for n, (k, _) in batch.layers.items()
    }
    loss = sum((torch.stack(pair) * readouts[name]).sum() for name, pair in batch.layers.items())
    loss.backward()

    other = merged(base_model.unet, concept)
    loss = torch.zeros(())
    for name, module in cross_attention_layers(other).items():
        for i, projection in enumerate(("to_k", "to_v")):
            getattr(module, projection).weight.requires_grad_()
            output = split(module, hidden, projection).transpose(0, 1)[tokens[0]]  # owned tokens alone carry gradient
            readout = readouts[name][i][0].transpose(0, 1)[tokens[0]]
            loss = loss + (output * readout).sum()
    loss.backward()
    for name, module in cross_attention_layers(other).items():
        for projection, delta in parameters[name].projections():
            assert isinstance(delta, FullDelta)
            wanted = getattr(module, projection).weight.grad
            assert float(wanted.abs().max()) > 0
            torch.testing.assert_close(delta.weight.grad, wanted, rtol=1e-4, atol=1e-5)


def test_project_of_a_batch_is_its_prompts(base_model: BaseModel) -> None:
    concepts = {"c": random_concept(base_model, 1)}
    parts = [encoded(base_model, text, concepts) for text in ("[c] on snow", "a photo of [c:pose:0]")]
    owners = torch.stack([tokenized.owners for tokenized, _, _ in parts])
    hidden = torch.stack([states for _, states, _ in parts])
    batch = project(base_model.unet, hidden, [OwnedTokens(owners == 0, concepts["c"].key_value)])
    for i, (tokenized, states, used) in enumerate(parts):
        alone = key_values(base_model.unet, states, tokenized.owners, used)
        for name, pair in batch.row(i).layers.items():
            torch.testing.assert_close(pair, alone.layers[name], rtol=1e-5, atol=2e-6)
