"""The judge: tells class, pose, scene, pattern, colours, foreground and identity of a picture of the rendered world."""

from benchmarks.quality.judge.judge import Judge, Judgement, load_judge

__all__ = ["Judge", "Judgement", "load_judge"]
