import pytest

from benchmarks.quality.variants import parse_variants


def test_defaults_changes_and_refusals() -> None:
    variants, refusals = parse_variants("detex,detex:steps=20,mask_floor=0.5,textual_inversion,magic", ["seed=7"])
    assert [variant.label for variant in variants] == ["detex", "detex:steps=20,mask_floor=0.5", "textual_inversion"]
    assert [variant.method.value for variant in variants] == ["detex", "detex", "textual_inversion"]
    assert variants[0].hyperparameters.steps != 20
    assert (variants[1].hyperparameters.steps, variants[1].hyperparameters.mask_floor) == (20, 0.5)
    assert {variant.hyperparameters.seed for variant in variants} == {7}
    assert [refusal.label for refusal in refusals] == ["magic"]
    assert "method: must be one of " in refusals[0].reason


def test_hyperparameters_out_of_range_are_refused_by_name() -> None:
    _, refusals = parse_variants("detex,detex:steps=0")
    assert "hyperparameters.steps" in refusals[0].reason


@pytest.mark.parametrize(
    ("text", "told"),
    [("magic", "none can be measured"), ("", "none"), ("detex,detex", "twice"), ("detex:steps", "name=value")],
)
def test_lists_that_cannot_be_read(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse_variants(text)
