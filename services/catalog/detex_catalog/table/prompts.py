"""Prompts from templates: `{concept}` and its attribute words, `{scene}`, `{class_word}`."""

import re

from detex_catalog.table.faults import shown
from detex_core.errors import InvalidInputError
from detex_core.prompt import parse_prompt

DEFAULT_TEMPLATE = "a photo of a {concept}"
DEFAULT_SCENE_TEMPLATE = "a photo of a {concept} {scene}"
_PLACEHOLDER = re.compile(r"\{(?P<name>[a-z_]+)(?P<word>:[a-z][a-z0-9_-]*:[0-9]+)?\}|[{}]")


def prompts_of(template: tuple[str, ...], scenes: tuple[str, ...], concept: str, class_word: str) -> list[str]:
    """The prompts of a row: each template with each scene, in order.

    Args:
        template: None takes a plain one.
        scenes: Words for `{scene}`; where there are some, each template must have a place for them.
        concept: Name of the concept; `{concept}` becomes its subject word, `{concept:pose:2}` an attribute word.
        class_word: For `{class_word}`; may be empty, then that is not accepted.

    Raises:
        ValueError: A placeholder is unknown, `{concept}` is missing, or the generator's grammar refuses the prompt.
    """
    templates = template or (DEFAULT_SCENE_TEMPLATE if scenes else DEFAULT_TEMPLATE,)
    prompts = []
    for each in templates:
        names = {match["name"] for match in _PLACEHOLDER.finditer(each)}
        if scenes and "scene" not in names:
            raise ValueError(f"must have a place {{scene}} where there are scenes, got {shown(each)}")
        prompts += [_filled(each, scene, concept, class_word) for scene in (scenes if scenes else ("",))]
    return prompts


def _filled(template: str, scene: str, concept: str, class_word: str) -> str:
    values = {"concept": f"[{concept}]", "scene": scene, "class_word": class_word}

    def replaced(match: re.Match[str]) -> str:
        name, word = match["name"], match["word"]
        if name == "concept" and word:
            return f"[{concept}{word}]"
        if word or not values.get(name or ""):
            raise ValueError(
                "must use {concept}, {concept:ATTRIBUTE:PHOTO}, and {scene} and {class_word} where the row has them, "
                f"got {match[0]} in {shown(template)}"
            )
        return values[name]

    prompt = _PLACEHOLDER.sub(replaced, template)
    try:
        parsed = parse_prompt(prompt)
    except InvalidInputError as error:
        raise ValueError(f"must be a prompt that the generator reads ({error.message})") from None
    if concept not in parsed.concepts():
        raise ValueError(f"must name {{concept}}, got {shown(template)}")
    return prompt
