"""How often the base model draws what a prompt names: scene, pose, class and colour, told by the judge."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.quality.bootstrap import estimate, mean
from benchmarks.quality.concepts import draw
from benchmarks.quality.jobs import Drawing
from benchmarks.quality.judge import Judge
from benchmarks.results_file import ResultRow, at_least
from benchmarks.showroom.captions import POSE_PHRASES, SCENE_PHRASES, with_article
from benchmarks.showroom.factors import CLASSES, COLOURS, POSES, SCENES
from detex_diffusion.base_model import BaseModel

REACH: Final = 0.95
_PLAN_STREAM: Final = 0xBA5E
_ROUND: Final = 64


@dataclass(frozen=True)
class NamedPicture:
    """A prompt and the words it names, by factor of the judge."""

    prompt: str
    words: dict[str, str]
    seed: int


def plan_named_pictures(kind: str, pictures: int, seed: int) -> list[NamedPicture]:
    """Prompts that name a class and one further factor, or all: every word comes equally often, as far as it goes.

    Args:
        kind: `scene`, `pose`, `main colour`, or `all`.
        pictures: How many.
        seed: Of the words' combinations, the wordings and the pictures.
    """
    rng = np.random.default_rng([_PLAN_STREAM, seed, ("scene", "pose", "main colour", "all").index(kind)])
    classes, scenes, poses, colours = (
        _cycle(rng, words, pictures) for words in (CLASSES, SCENES, POSES, list(COLOURS))
    )
    planned = []
    for class_word, scene, pose, colour in zip(classes, scenes, poses, colours, strict=True):
        words = {"class": class_word}
        if kind in ("main colour", "all"):
            words["main colour"] = colour
        thing = with_article(f"{words['main colour']} {class_word}" if "main colour" in words else class_word)
        if kind == "all":
            words |= {"pose": pose, "scene": scene}
            ending = f" with {pose} pose in {scene} background"
        elif kind == "scene":
            words["scene"] = scene
            ending = f" {rng.choice(SCENE_PHRASES[scene])}"
        elif kind == "pose":
            words["pose"] = pose
            ending = f" {rng.choice(POSE_PHRASES[pose])}" if rng.random() < 0.5 else f" with {pose} pose"
        else:
            ending = ""
        planned.append(NamedPicture(f"a photo of {thing}{ending}", words, int(rng.integers(1 << 32))))
    return planned


def base_accuracy_rows(
    base_model: BaseModel, judge: Judge, pictures: int, seed: int, drawing: Drawing, report: Callable[[str], None]
) -> list[ResultRow]:
    """Accuracies of the base model.

    Args:
        base_model: Who draws.
        judge: Who looks.
        pictures: For each kind of prompt.
        seed: As of `plan_named_pictures`.
        drawing: How to draw.
        report: Told how far it has come.
    """
    rows: list[ResultRow] = []
    classes: list[bool] = []
    for kind in ("scene", "pose", "main colour", "all"):
        right = _right(base_model, judge, plan_named_pictures(kind, pictures, seed), drawing, report)
        classes += [seen["class"] for _, seen in right]
        if kind == "all":
            rows += [
                _row(f"{factor}, where the prompt names all four", [seen[factor] for _, seen in right])
                for factor in ("class", "main colour", "pose", "scene")
            ]
            rows.append(_row("all four right, where the prompt names them", [all(s.values()) for _, s in right]))
        else:
            rows.append(_row(f"{kind} named", [seen[kind] for _, seen in right], _weakest(kind, right), at=REACH))
    rows.insert(0, _row("class named", classes, at=REACH))
    return rows


def _right(
    base_model: BaseModel,
    judge: Judge,
    planned: Sequence[NamedPicture],
    drawing: Drawing,
    report: Callable[[str], None],
) -> list[tuple[NamedPicture, dict[str, bool]]]:
    """Which of the named words the judge sees."""
    found = []
    for start in range(0, len(planned), _ROUND):
        part = planned[start : start + _ROUND]
        prompts, seeds = [each.prompt for each in part], [each.seed for each in part]
        judged = judge.judge(
            draw(base_model, prompts, None, seeds, drawing.steps, drawing.guidance_scale, drawing.solver)
        )
        for i, each in enumerate(part):
            found.append((each, {factor: judged.words[factor][i] == word for factor, word in each.words.items()}))
        report(f"{start + len(part)} of {len(planned)} pictures such as {part[0].prompt!r}")
    return found


def _weakest(factor: str, right: Sequence[tuple[NamedPicture, dict[str, bool]]]) -> str:
    """The three words that are drawn worst."""
    by_word: dict[str, list[bool]] = {}
    for each, seen in right:
        by_word.setdefault(each.words[factor], []).append(seen[factor])
    shares = sorted((float(np.mean(values)), word) for word, values in by_word.items())
    return "weakest: " + ", ".join(f"{word} {share:.2f}" for share, word in shares[:3])


def _row(what: str, right: Sequence[bool], note: str = "", *, at: float | None = None) -> ResultRow:
    found = estimate(mean, [float(each) for each in right])
    told = f"95 % interval {found.low:.3f} to {found.high:.3f} over {len(right)} pictures"
    reach = None if at is None else at_least(at)
    return ResultRow(what=what, value=round(found.value, 4), reach=reach, note=f"{told}; {note}" if note else told)


def _cycle(rng: np.random.Generator, words: Sequence[str], count: int) -> list[str]:
    """`count` words, each as often as the others but for the rest, in random order."""
    rounds = [rng.permutation(words).tolist() for _ in range(-(-count // len(words)))]
    return [str(word) for each in rounds for word in each][:count]
