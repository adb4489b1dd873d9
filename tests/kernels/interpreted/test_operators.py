"""What torch asks of an operator: schema, no hidden aliases, and a fake that agrees with the kernel."""

from typing import Any

import pytest
import torch

from detex_generator.ops.geglu import geglu_operator
from detex_generator.ops.group_norm_silu import group_norm_silu_operator
from detex_generator.ops.guided_solver_step import guided_solver_step_operator
from detex_generator.ops.segmented_attention import PageLayout, segmented_attention_operator
from detex_generator.ops.self_attention import self_attention_operator
from tests.kernels.interpreted.errors import normal

LAYOUT = PageLayout.of_rows([[(0, 3, 0), (4, 2, 1)], [(1, 5, 0)]], [True, False])
PAGES = (LAYOUT.starts, LAYOUT.lengths, LAYOUT.segments)
HEADS, POOL, PICTURES = normal(2, 6, 2, 24), normal(8, 2, 24, seed=1), normal(2, 16, 5, 3)
CASES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "segmented_attention": (
        segmented_attention_operator,
        (HEADS, POOL, POOL, *PAGES, normal(2, 2, 6), LAYOUT.joint, 2, True, True),
    ),
    "segmented_attention, nothing captured": (
        segmented_attention_operator,
        (HEADS, POOL, POOL, *PAGES, None, LAYOUT.joint, 2, True, False),
    ),
    "self_attention": (self_attention_operator, (HEADS, HEADS.clone(), HEADS.clone())),
    "self_attention, not contiguous": (
        self_attention_operator,
        tuple(normal(2, 2, 6, 24, seed=seed).transpose(1, 2) for seed in range(3)),
    ),
    "geglu": (geglu_operator, (normal(2, 3, 16), normal(32, 16), None)),
    "group_norm_silu": (group_norm_silu_operator, (PICTURES, normal(16), normal(16), 4, 1e-5)),
    "guided_solver_step": (
        guided_solver_step_operator,
        (
            normal(2, 9),
            PICTURES,
            normal(3, 16, 5, 3),
            torch.tensor([-1, 2], dtype=torch.int32),
            normal(2),
            PICTURES * 2,
        ),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_operator(name: str) -> None:
    operator, arguments = CASES[name]
    torch.library.opcheck(operator, arguments, test_utils=("test_schema", "test_faketensor"))
