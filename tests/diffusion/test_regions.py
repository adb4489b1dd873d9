"""Places of subjects: their maps, and what the UNet makes of them."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

from detex_core.clauses import by_subject
from detex_core.prompt import parse_prompt
from detex_diffusion.base_model import BaseModel
from detex_diffusion.concept import Concept
from detex_diffusion.conditioning import KeyValueBatch, PromptKeyValues, key_values
from detex_diffusion.cross_attention import cross_attention_sizes
from detex_diffusion.regions import (
    SCENE_SHARE,
    Box,
    RegionMode,
    blended_key_values,
    box_coverage,
    joint_key_values,
    log_weight_maps,
    mask_coverage,
)
from detex_diffusion.text import encode, tokenize, word_embeddings
from detex_diffusion.unet import KeyValueUNet
from tests.diffusion.concepts import random_concept

LEFT, RIGHT = Box(0.0, 0.0, 0.5, 1.0), Box(0.5, 0.0, 1.0, 1.0)
EVERYWHERE = Box(0.0, 0.0, 1.0, 1.0)


def test_a_box_covers_its_inside_with_soft_edges_but_for_the_border() -> None:
    coverage = box_coverage(Box(0.0, 0.25, 0.5, 1.0), 64, 32)
    assert coverage.shape == (64, 32)
    assert coverage[-1, 0] == 1
    assert coverage[40, 8] == 1
    assert coverage[0].max() == 0
    assert coverage[:, 31].max() == 0
    across = coverage[40]
    assert bool((across.diff() <= 0).all())
    assert across[15:17].tolist() == pytest.approx([0.75, 0.25])
    assert torch.equal(box_coverage(EVERYWHERE, 8, 8), torch.ones(8, 8))


def test_a_mask_covers_by_its_grey_at_any_size() -> None:
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 32, 64))
    mask.paste(51, (32, 0, 64, 64))
    coverage = mask_coverage(mask, 16, 32)
    assert coverage.shape == (16, 32)
    assert torch.equal(coverage[:, :16], torch.ones(16, 16))
    torch.testing.assert_close(coverage[:, 16:], torch.full((16, 16), 0.2))


def test_the_scene_counts_what_no_subject_covers() -> None:
    coverages = [box_coverage(Box(0.0, 0.0, 0.5, 0.5), 32, 32), box_coverage(RIGHT, 32, 32)]
    maps = log_weight_maps(coverages, [1.0, 4.0], [(8, 8), (4, 4), (8, 8)], RegionMode.BLEND)
    assert {positions: tuple(weights.shape) for positions, weights in maps.items()} == {64: (3, 64), 16: (3, 16)}
    scene, first, second = maps[64].exp().view(3, 8, 8)
    assert scene[-1, 0] == 1
    assert scene[0, 0] == pytest.approx(SCENE_SHARE)
    assert (float(first[0, 0]), float(first[-1, 0])) == (1, 0)
    assert float(second[0, -1]) == pytest.approx(4)
    assert bool(maps[64].view(3, 8, 8)[1, -1, 0].isneginf())
    joint = log_weight_maps(coverages, [1.0, 4.0], [(8, 8)], RegionMode.JOINT)[64]
    assert torch.equal(joint[0], torch.zeros(64))


class Drawn:
    """Prompts of two subjects over one tiny model."""

    def __init__(self, base_model: BaseModel, height: int = 8, width: int = 8) -> None:
        self.base_model = base_model
        self.concepts: dict[str, Concept] = {
            "one": random_concept(base_model, 1),
            "two": random_concept(base_model, 2, class_word="vase", scope="prompt"),
        }
        self.sizes = set(cross_attention_sizes(base_model.unet, height, width).values())
        generator = torch.Generator().manual_seed(3)
        self.latents = torch.randn(4, 4, height, width, generator=generator)
        self.timesteps = torch.tensor([3.0, 981.0, 500.5, 250.0])
        self.unet = KeyValueUNet(base_model.unet)

    def read(self, prompt: str) -> PromptKeyValues:
        tokenized = tokenize(parse_prompt(prompt), self.concepts, self.base_model.tokenizer)
        hidden = encode(self.base_model, [tokenized], [word_embeddings(tokenized, self.concepts)])[0]
        own = [self.concepts[name] for name in tokenized.concepts]
        return key_values(self.base_model.unet, hidden, tokenized.owners, own)

    def blended(self, boxes: dict[str, Box], weight: float = 1.0) -> PromptKeyValues:
        whole = self.read("[one] next to [two] on a beach")
        own = [self.read(f"[{name}] on a beach").layers for name in boxes]
        coverages = [box_coverage(box, 64, 64) for box in boxes.values()]
        maps = log_weight_maps(coverages, [weight] * len(boxes), self.sizes, RegionMode.BLEND)
        return replace(whole, regional=blended_key_values(whole.layers, own, maps))

    def joint(self, boxes: dict[str, Box]) -> PromptKeyValues:
        whole = self.read("[one] next to [two] on a beach")
        prompt, subjects = by_subject(parse_prompt("[one] next to [two] on a beach"))
        parts = tokenize(prompt, self.concepts, self.base_model.tokenizer).parts
        names = list(boxes)
        of_parts = torch.tensor([names.index(name) + 1 if name in boxes else 0 for name in subjects] + [0])
        maps = log_weight_maps(
            [box_coverage(box, 64, 64) for box in boxes.values()], [1.0] * len(boxes), self.sizes, RegionMode.JOINT
        )
        return replace(whole, regional=joint_key_values(whole.layers, of_parts[parts], maps))

    def predict(self, *prompts: PromptKeyValues, rows: slice = slice(None)) -> torch.Tensor:
        return self.unet(self.latents[rows], self.timesteps[rows], KeyValueBatch.stack(prompts))


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 10)])
def test_rows_without_regions_are_the_same_bit_for_bit(base_model: BaseModel, height: int, width: int) -> None:
    drawn = Drawn(base_model, height, width)
    blended, joint = drawn.blended({"one": LEFT, "two": RIGHT}), drawn.joint({"two": LEFT})
    plain = [drawn.read("a photo of snow"), drawn.read("[one] in a forest")]
    among = drawn.predict(blended, plain[0], joint, plain[1])
    without = drawn.predict(replace(blended, regional=None), plain[0], replace(joint, regional=None), plain[1])
    assert torch.equal(among[[1, 3]], without[[1, 3]])
    for row in (0, 2):
        assert float((among[row] - without[row]).abs().max()) > 1e-3


def test_rows_with_regions_come_out_the_same_in_any_company(base_model: BaseModel) -> None:
    drawn = Drawn(base_model)
    prompts = [
        drawn.blended({"one": LEFT, "two": RIGHT}),
        drawn.joint({"two": LEFT}),
        drawn.read("a photo of snow"),
        drawn.blended({"two": LEFT}),
    ]
    together = drawn.predict(*prompts)
    for row, prompt in enumerate(prompts):
        alone = drawn.predict(prompt, rows=slice(row, row + 1))
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-5, atol=1e-5)


def test_a_region_all_over_the_picture_is_the_prompt_of_its_subject(base_model: BaseModel) -> None:
    drawn = Drawn(base_model)
    one = slice(0, 1)
    heavy = drawn.predict(drawn.blended({"one": EVERYWHERE}, weight=1e7), rows=one)
    torch.testing.assert_close(heavy, drawn.predict(drawn.read("[one] on a beach"), rows=one), rtol=1e-4, atol=1e-4)
    joint = drawn.predict(drawn.joint({"one": EVERYWHERE, "two": EVERYWHERE}), rows=one)
    whole = drawn.predict(drawn.read("[one] next to [two] on a beach"), rows=one)
    torch.testing.assert_close(joint, whole, rtol=1e-5, atol=1e-5)


def test_exchanged_places_make_another_picture(base_model: BaseModel) -> None:
    drawn = Drawn(base_model)
    one = slice(0, 1)
    straight = drawn.predict(drawn.blended({"one": LEFT, "two": RIGHT}), rows=one)
    crossed = drawn.predict(drawn.blended({"one": RIGHT, "two": LEFT}), rows=one)
    assert float((straight - crossed).abs().max()) > 1e-3


def test_attention_maps_are_refused_beside_regions(base_model: BaseModel) -> None:
    drawn = Drawn(base_model)
    batch = KeyValueBatch.stack([drawn.blended({"one": LEFT})])
    with pytest.raises(ValueError, match="without regions"):
        drawn.unet.with_attention(drawn.latents[:1], drawn.timesteps[:1], batch, [])


def test_regions_count_in_bytes_and_change_type(base_model: BaseModel) -> None:
    drawn = Drawn(base_model)
    placed = drawn.blended({"one": LEFT, "two": RIGHT})
    assert placed.regional is not None
    assert placed.size_bytes > 4 * replace(placed, regional=None).size_bytes
    half = placed.to(dtype=torch.float16).regional
    assert half is not None
    assert {k.dtype for k, _ in half.layers.values()} == {torch.float16}
    assert {weights.dtype for weights in half.log_weights.values()} == {torch.float32}


def test_every_token_knows_its_part(base_model: BaseModel) -> None:
    concepts = {"one": random_concept(base_model, 1, class_word="red vase", subject_tokens=2)}
    tokenized = tokenize(parse_prompt("a blue [one] on a beach"), concepts, base_model.tokenizer)
    assert tokenized.parts[: tokenized.length].tolist() == [-1, 0, 0, 1, 1, 1, 1, 2, 2, 2, -1]
    assert set(tokenized.parts[tokenized.length :].tolist()) == {-1}
