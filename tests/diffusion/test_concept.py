from dataclasses import replace

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detex_core.errors import DataLossError, FailedPreconditionError
from detex_diffusion.base_model import BaseModel
from detex_diffusion.concept import Concept, Word, compress, key_value_form
from detex_diffusion.concept_file import load_concept, save_concept
from detex_diffusion.key_value_delta import FullDelta, LayerDelta, LowRankDelta
from tests.diffusion.concepts import manifest_of, random_concept


def assert_same(a: Concept, b: Concept) -> None:
    assert (a.class_word, a.scope, a.subject_tokens, a.attribute_counts) == (
        b.class_word,
        b.scope,
        b.subject_tokens,
        b.attribute_counts,
    )
    left, right = a.tensors(), b.tensors()
    assert left.keys() == right.keys()
    assert all(torch.equal(tensor, right[name]) for name, tensor in left.items())


@pytest.mark.parametrize("form", ["none", "full", "low_rank"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("subject_vectors", [False, True])
def test_a_saved_concept_comes_back(
    base_model: BaseModel, form: str, dtype: torch.dtype, subject_vectors: bool
) -> None:
    concept = random_concept(base_model, 1, subject_tokens=2, scope="prompt", subject_vectors=subject_vectors)
    if form == "none":
        concept = Concept(**{**vars(concept), "key_value": {}})
    elif form == "low_rank":
        concept, _ = compress(concept, 0.7)
    data = save_concept(concept, dtype)
    assert save_concept(concept.to(dtype=torch.float32), dtype) == data
    manifest = manifest_of(base_model, concept, data, dtype="float32" if dtype is torch.float32 else "float16")
    loaded = load_concept(manifest, data, base_model)
    assert_same(loaded, concept.to(dtype=dtype).to(dtype=base_model.dtype))
    assert loaded.reference == f"test/my-mug@{manifest.version}"
    assert loaded.size_bytes == concept.size_bytes


@pytest.mark.parametrize("change", ["missing", "shape", "unknown", "unsaid"])
def test_vectors_that_do_not_fit_are_refused(base_model: BaseModel, change: str) -> None:
    concept = random_concept(base_model, 1, subject_tokens=2, subject_vectors=True)
    tensors = safetensors.torch.load(save_concept(concept))
    name = next(name for name in tensors if name.startswith("subject_key_value."))
    if change == "missing":
        tensors.pop(name)
    elif change == "shape":
        tensors[name] = tensors[name][:1].clone()
    elif change == "unknown":
        tensors["subject_key_value.mid.to_k"] = tensors[name].clone()
    data = safetensors.torch.save(tensors)
    described = replace(concept, subject_key_value={}) if change == "unsaid" else concept
    with pytest.raises(DataLossError, match="subject_key_value"):
        load_concept(manifest_of(base_model, described, data), data, base_model)


def test_words_of_a_concept(base_model: BaseModel) -> None:
    concept = random_concept(base_model, 1, subject_tokens=2)
    assert torch.equal(concept.embedding(Word(None, 1)), concept.subject[1])
    assert torch.equal(concept.embedding(Word("pose", 3)), concept.attributes["pose"][3])
    with pytest.raises(KeyError):
        concept.embedding(Word("light", 0))


def test_another_base_model_is_named(base_models: dict[str, BaseModel]) -> None:
    one, two = base_models["sd1"], base_models["sd2"]
    concept = random_concept(one, 1)
    data = save_concept(concept)
    with pytest.raises(FailedPreconditionError) as error:
        load_concept(manifest_of(one, concept, data), data, two)
    assert error.value.reason == "BASE_MODEL_MISMATCH"
    for text in (one.fingerprint, two.fingerprint, one.name, two.name):
        assert text in error.value.message


def changed(concept: Concept, **tensors: torch.Tensor | None) -> bytes:
    content = {**concept.to(dtype=torch.float16).tensors(), **tensors}
    return safetensors.torch.save({n: t.contiguous() for n, t in content.items() if t is not None})


def half(*shape: int, fill: float = 0.0) -> torch.Tensor:
    return torch.full(shape, fill, dtype=torch.float16)


LAYER = "mid_block.attentions.0.transformer_blocks.0.attn2"


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        ({"subject": None}, "tensor subject is missing"),
        ({"subject": half(1, 23)}, r"tensor subject has shape \(1, 23\), not \(1, 24\)"),
        ({"subject": half(1, 24, fill=float("nan"))}, "tensor subject has values that are not finite"),
        ({"subject": torch.zeros(1, 24)}, "tensor subject is torch.float32, not float16"),
        ({"attribute.pose": half(3, 24)}, r"tensor attribute.pose has shape \(3, 24\), not \(4, 24\)"),
        ({"attribute.background": None}, "tensor attribute.background is missing"),
        ({"attribute.light": half(4, 24)}, "unknown tensors: attribute.light"),
        ({f"key_value.{LAYER}.to_k": half(32, 23)}, r"has shape \(32, 23\), the base model \(32, 24\)"),
        ({f"key_value.{LAYER}.to_k": half(32)}, "holds no matrix"),
        ({f"key_value.{LAYER}.to_k": half(32, 24, fill=float("inf"))}, "not finite"),
        ({f"key_value.{LAYER}.to_q": half(32, 32)}, "belongs to no cross-attention layer"),
        ({"key_value.down_blocks.9.attn2.to_k": half(32, 24)}, "belongs to no cross-attention layer"),
        ({f"key_value.{LAYER}.to_k": None, f"key_value.{LAYER}.to_k.up": half(32, 2)}, "is not of form 'full'"),
    ],
)
def test_contents_that_do_not_fit_are_refused(
    base_models: dict[str, BaseModel], tensors: dict[str, torch.Tensor | None], sentence: str
) -> None:
    base_model = base_models["sd1"]
    concept = random_concept(base_model, 1)
    data = changed(concept, **tensors)
    with pytest.raises(DataLossError, match=sentence) as error:
        load_concept(manifest_of(base_model, concept, data), data, base_model)
    assert "test/my-mug@" in error.value.message


@pytest.mark.parametrize(
    ("up", "down", "sentence"),
    [
        (half(32, 2), half(3, 24), "has factors of shapes"),
        (half(32, 25), half(25, 24), "has factors of shapes"),
        (half(31, 2), half(2, 24), r"has shape \(31, 24\)"),
        (half(32, 0), half(0, 24), "has factors of shapes"),
    ],
)
def test_factors_that_do_not_fit_are_refused(
    base_models: dict[str, BaseModel], up: torch.Tensor, down: torch.Tensor, sentence: str
) -> None:
    base_model = base_models["sd1"]
    concept, _ = compress(random_concept(base_model, 1), 1.0)
    data = changed(concept, **{f"key_value.{LAYER}.to_v.up": up, f"key_value.{LAYER}.to_v.down": down})
    with pytest.raises(DataLossError, match=sentence):
        load_concept(manifest_of(base_model, concept, data), data, base_model)


def test_the_form_must_be_the_manifests(base_models: dict[str, BaseModel]) -> None:
    base_model = base_models["sd1"]
    concept = random_concept(base_model, 1)
    data = save_concept(concept)
    words_alone = key_value_form(Concept(**{**vars(concept), "key_value": {}}))
    with pytest.raises(DataLossError, match="form 'none', but deltas for 7 layers"):
        load_concept(manifest_of(base_model, concept, data, key_value=words_alone), data, base_model)
    with pytest.raises(DataLossError, match="its words have 25 numbers, not 24"):
        load_concept(manifest_of(base_model, concept, data, embedding_width=25), data, base_model)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_bytes_are_refused_or_harmless(base_models: dict[str, BaseModel], data: st.DataObject) -> None:
    base_model = base_models["sd1"]
    concept = random_concept(base_model, 1, attributes=("pose",), photos=1)
    concept = Concept(**{**vars(concept), "key_value": {}})
    content = save_concept(concept)
    manifest = manifest_of(base_model, concept, content)
    damaged = bytearray(content)
    for position, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=4)
    ):
        damaged[position] = value
    damaged = damaged[: data.draw(st.one_of(st.none(), st.integers(0, len(content))))]
    try:
        loaded = load_concept(manifest, bytes(damaged), base_model)
    except DataLossError:
        return
    assert all(bool(torch.isfinite(tensor).all()) for tensor in loaded.tensors().values())


def test_what_is_not_finite_is_not_saved(base_model: BaseModel) -> None:
    concept = random_concept(base_model, 1)
    concept = Concept(**{**vars(concept), "subject": concept.subject * 1e6})
    with pytest.raises(DataLossError, match=r"tensor subject .* not finite in torch\.float16"):
        save_concept(concept)
    assert save_concept(concept, torch.float32)
    with pytest.raises(ValueError, match="float32 or float16"):
        save_concept(concept, torch.bfloat16)


@pytest.mark.parametrize("energy", [0.3, 0.9, 1.0])
def test_compression_keeps_the_energy_it_says(base_model: BaseModel, energy: float) -> None:
    concept = random_concept(base_model, 1)
    thin, kept = compress(concept, energy)
    lost = total = 0.0
    for layer, delta in concept.key_value.items():
        for projection, full in delta.projections():
            factors = getattr(thin.key_value[layer], projection)
            assert isinstance(factors, LowRankDelta)
            matrix = full.materialized().double()
            difference = matrix - factors.materialized().double()
            share = 1 - float(difference.square().sum() / matrix.square().sum())
            assert share >= energy - 1e-6
            if factors.rank > 1:
                # One rank less would not do: the share of the last is what goes beyond.
                left, right = factors.up[:, :-1].double(), factors.down[:-1].double()
                less = 1 - float((matrix - left @ right).square().sum() / matrix.square().sum())
                assert less < energy
            lost += float(difference.square().sum())
            total += float(matrix.square().sum())
    assert kept == pytest.approx(1 - lost / total, abs=1e-6)
    form = key_value_form(thin, kept)
    assert form.form == "low_rank"
    assert form.largest_rank == max(d.rank for layer in thin.key_value.values() for _, d in layer.projections())
    if energy < 0.5:
        assert thin.size_bytes < concept.size_bytes


def test_compression_of_what_has_a_rank_finds_it() -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(40, 3, generator=generator) @ torch.randn(3, 24, generator=generator)
    concept = Concept("test", "mug", torch.zeros(1, 24), key_value={"x": LayerDelta(to_k=FullDelta(matrix))})
    thin, kept = compress(concept, 0.99999)
    delta = thin.key_value["x"].to_k
    assert isinstance(delta, LowRankDelta)
    assert delta.rank == 3
    assert kept == pytest.approx(1.0)
    torch.testing.assert_close(delta.materialized(), matrix, rtol=1e-4, atol=1e-5)
    limited, less = compress(concept, 1.0, largest_rank=2)
    assert limited.key_value["x"].to_k.shape == (40, 24)
    assert less < 0.99999


def test_compression_of_nothing() -> None:
    zero = Concept("test", "mug", torch.zeros(1, 4), key_value={"x": LayerDelta(to_v=FullDelta(torch.zeros(6, 4)))})
    thin, kept = compress(zero, 0.9)
    assert kept == 1.0
    assert float(thin.key_value["x"].to_v.materialized().abs().max()) == 0
    bare = Concept("test", "mug", torch.zeros(1, 4))
    same, kept = compress(bare, 0.9)
    assert kept == 1.0
    assert not same.key_value
    with pytest.raises(ValueError, match="share"):
        compress(bare, 0.0)
