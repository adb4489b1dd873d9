"""A UNet that reads a pool predicts what it predicts from rows that are filled up."""

import pytest
import torch

from detex_diffusion.base_model import BaseModel
from detex_diffusion.conditioning import KeyValueBatch
from detex_diffusion.cross_attention import cross_attention_layers
from detex_diffusion.unet import KeyValueUNet
from detex_generator.compute.pooled_key_values import PooledKeyValues
from detex_generator.ops.choice import KernelChoice
from detex_generator.ops.operation import Implementation, Operation
from tests.kernels.random_prompts import placed_prompts


@pytest.fixture
def choice() -> KernelChoice:
    return KernelChoice("auto", torch.device("cpu"), torch.float32)


def predictions(base_model: BaseModel, batch: KeyValueBatch | PooledKeyValues) -> torch.Tensor:
    latents = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    rows = batch.rows - 4
    latents = torch.cat([latents, latents[:1].expand(rows, -1, -1, -1)])
    with torch.inference_mode():
        return KeyValueUNet(base_model.unet)(latents, torch.tensor([900, 700, 20, 1] + [0] * rows), batch)[:4]


@pytest.mark.parametrize("rounded", [False, True], ids=["exact", "rounded"])
def test_a_pool_is_read_like_rows_that_are_filled_up(
    base_model: BaseModel, choice: KernelChoice, rounded: bool
) -> None:
    texts = placed_prompts(base_model)
    wanted = predictions(base_model, KeyValueBatch.stack(texts))
    pooled = PooledKeyValues.of_prompts(texts, choice, rows=6 if rounded else None, rounded=rounded)
    torch.testing.assert_close(predictions(base_model, pooled), wanted, rtol=1e-4, atol=1e-5)
    assert choice.taken() == {
        (Operation.SEGMENTED_ATTENTION, Implementation.TORCH): len(cross_attention_layers(base_model.unet))
    }


def test_without_regions_there_are_no_weights(base_model: BaseModel, choice: KernelChoice) -> None:
    texts = [text for text in placed_prompts(base_model) if text.regional is None] * 2
    pooled = PooledKeyValues.of_prompts(texts, choice)
    assert not pooled.size.weighted
    assert pooled.size.tokens == 2 * (9 + 30)
    wanted = predictions(base_model, KeyValueBatch.stack(texts))
    torch.testing.assert_close(predictions(base_model, pooled), wanted, rtol=1e-4, atol=1e-5)


def test_pools_of_one_size_have_tensors_of_one_shape(base_model: BaseModel, choice: KernelChoice) -> None:
    texts = placed_prompts(base_model)
    one = PooledKeyValues.of_prompts(texts, choice, rows=8, rounded=True)
    other = PooledKeyValues.of_prompts([texts[3], texts[0], texts[1]], choice, rows=8, rounded=True)
    assert one.size.tokens == 128
    assert other.size.tokens == 64
    again = PooledKeyValues.of_prompts([texts[2], *texts[:2], texts[3]], choice, rows=8, rounded=True)
    assert again.size == one.size
    assert [tensor.shape for tensor in again.tensors] == [tensor.shape for tensor in one.tensors]


def test_more_prompts_than_rows_are_refused(base_model: BaseModel, choice: KernelChoice) -> None:
    with pytest.raises(ValueError, match="4 prompts do not fit into 3 rows"):
        PooledKeyValues.of_prompts(placed_prompts(base_model), choice, rows=3)
