"""Command line of the quality benchmark.

python -m benchmarks.quality --seed 1 --subjects 12 --methods detex,custom_diffusion,dreambooth,textual_inversion
python -m benchmarks.quality base --pictures 256
python -m benchmarks.quality calibrate --seed 1 --split validation --subjects 4 --methods detex,detex:steps=800
"""

import argparse
import sys
from pathlib import Path
from typing import Final, get_args

import torch

from benchmarks.quality.base_accuracy import base_accuracy_rows
from benchmarks.quality.calibration import calibrate
from benchmarks.quality.comparison import MODULE, compare
from benchmarks.quality.jobs import Drawing
from benchmarks.quality.judge import Judge, load_judge
from benchmarks.quality.judge.judge import WEIGHTS_PATH
from benchmarks.quality.observation import Comparison
from benchmarks.quality.subjects import SubjectCounts
from benchmarks.quality.unknown_words import vocabulary_without_the_world
from benchmarks.quality.variants import parse_variants
from benchmarks.results_file import table, write_results
from benchmarks.showroom.subject import SPLITS, World
from detex_core.errors import DetexError
from detex_core.settings import BaseModelSettings
from detex_diffusion.base_model import BaseModel, load_base_model
from detex_diffusion.solver import Solver

_ROOT: Final = Path(__file__).resolve().parents[2]
_METHODS: Final = "detex,custom_diffusion,dreambooth,textual_inversion"


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code (2: a bad argument)."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    try:
        _COMMANDS[options.command](options)
    except (ValueError, FileNotFoundError, DetexError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", nargs="?", choices=tuple(_COMMANDS), default="compare", help="what to measure")
    parser.add_argument("--seed", type=int, default=0, help="decides subjects, photos, prompts and noise")
    parser.add_argument("--subjects", type=int, default=12, help="unseen subjects")
    parser.add_argument("--split", choices=SPLITS[1:], default="test", help="validation: for choosing hyperparameters")
    parser.add_argument("--methods", default=_METHODS, help="such as detex,detex:steps=200,textual_inversion")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="hyperparameters of all methods")
    for name, default, meaning in (
        ("photos", SubjectCounts.photos, "to learn from, of each subject, 1 to 6"),
        ("held-out", SubjectCounts.held_out, "further photos of each subject, to compare with"),
        ("same-class", SubjectCounts.same_class, "others of its class that a subject must be told from"),
        ("others", SubjectCounts.others, "others of any class that all subjects must be told from"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=meaning)
    parser.add_argument("--world", choices=get_args(World), default="words", help="what subjects are made of")
    parser.add_argument("--biased", action="store_true", help="photos to learn from in one scene and one pose")
    parser.add_argument("--pictures", type=int, default=256, help="base: pictures of each kind of prompt")
    parser.add_argument("--steps", type=int, default=15, help="denoising steps")
    parser.add_argument(
        "--guidance-scale", type=float, default=BaseModelSettings.model_fields["default_guidance_scale"].default
    )
    parser.add_argument("--solver", choices=[*Solver], default=Drawing.solver.value)
    parser.add_argument("--base-model", default="embedded", help="source of the base model")
    parser.add_argument("--judge", type=Path, default=WEIGHTS_PATH, help="weights of the judge")
    parser.add_argument("--processes", type=int, default=1, help="jobs at a time")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch in each process")
    parser.add_argument(
        "--unknown-words",
        action="store_true",
        help="take the world's own words from those that a concept's words may begin at",
    )
    parser.add_argument("--work", type=Path, default=_ROOT / ".work" / "quality", help="folder of jobs, to go on from")
    parser.add_argument("--out", type=Path, help="result file; by default the one of this machine")
    parser.add_argument("--report", type=Path, help="folder of the report page; by default beside the result file")
    return parser


def _compare(options: argparse.Namespace) -> None:
    comparison, base_model, judge = _comparison(options)
    path, page = compare(comparison, base_model, judge, options.out, options.report, _report)
    _report(f"wrote {path} and {page}")


def _calibrate(options: argparse.Namespace) -> None:
    path = calibrate(*_comparison(options), options.out, _report)
    _report(f"wrote {path}")


def _comparison(options: argparse.Namespace) -> tuple[Comparison, BaseModel, Judge]:
    variants, refusals = parse_variants(options.methods, options.set)
    for refusal in refusals:
        _report(f"{refusal.label} is left out; {refusal.reason}")
    settings = BaseModelSettings(name="showroom", source=options.base_model)
    comparison = Comparison(
        variants=variants,
        refusals=refusals,
        subjects=options.subjects,
        split=options.split,
        seed=options.seed,
        drawing=Drawing(options.steps, options.guidance_scale, Solver(options.solver)),
        base_model=settings,
        folder=options.work,
        processes=options.processes,
        threads=options.threads,
        vocabulary=vocabulary_without_the_world() if options.unknown_words else None,
        counts=SubjectCounts(
            options.photos, options.held_out, options.same_class, options.others, options.world, options.biased
        ),
    )
    judge = load_judge(options.judge)
    return comparison, load_base_model(settings), judge


def _measure_base(options: argparse.Namespace) -> None:
    base_model = load_base_model(BaseModelSettings(name="showroom", source=options.base_model))
    drawing = Drawing(options.steps, options.guidance_scale, Solver(options.solver))
    judge = load_judge(options.judge)
    rows = base_accuracy_rows(base_model, judge, options.pictures, options.seed, drawing, _report)
    settings = {
        "pictures": options.pictures,
        "seed": options.seed,
        "steps": options.steps,
        "guidance_scale": options.guidance_scale,
        "solver": options.solver,
        "base_model": options.base_model,
        "base_model_fingerprint": base_model.fingerprint,
    }
    path = write_results("base_model", rows, module=MODULE, path=options.out, settings=settings)
    print(table(rows))
    _report(f"wrote {path}")


_COMMANDS: Final = {"compare": _compare, "base": _measure_base, "calibrate": _calibrate}


def _report(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
