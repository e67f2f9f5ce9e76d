"""Weights of one run as the start of another."""

from pathlib import Path

import torch
from torch import nn

from rankdet.errors import UserError

SCORE_LAYERS = ("heads.class_output", "rpn.score_output", "roi_head.score_output")  # of one stage, and of two
CLASS_LAYERS = (*SCORE_LAYERS, "roi_head.box_output")  # the only ones whose shape may depend on the number of classes


def initialise_from(model: nn.Module, path: Path, fresh_class_head: bool = False) -> list[str]:
    """Loads weights.pt of another run; CLASS_LAYERS that another number of classes shapes otherwise start fresh.

    fresh_class_head: those of the scores do in any case, in both stages. Returns notes for the log, naming what starts
    fresh. UserError where the file cannot be read or anything else differs.
    """
    if not path.is_file():
        raise UserError(f"init_from={path}: no such file; give the weights.pt of a finished run")
    try:
        theirs = torch.load(path, map_location="cpu", weights_only=True)["model"]
    except Exception as error:
        raise UserError(f"init_from={path}: not a weights.pt of this project ({type(error).__name__})") from error
    mine = model.state_dict()
    differing = {
        k for k in mine.keys() | theirs.keys() if k not in mine or k not in theirs or mine[k].shape != theirs[k].shape
    }
    fresh = {k for k in differing if k in mine and k in theirs and k.startswith(CLASS_LAYERS)}
    if differing - fresh:
        raise UserError(
            f"init_from={path}: another architecture, differs in {', '.join(sorted(differing - fresh)[:3])}"
        )
    why = "another number of classes" if fresh else "fresh_class_head=true"
    if fresh_class_head:
        fresh |= {k for k in mine if k.startswith(SCORE_LAYERS)}
    model.load_state_dict({k: v for k, v in theirs.items() if k not in fresh}, strict=False)
    notes = [f"initialised from {path}"]
    return notes + ([f"{why}: {', '.join(sorted(fresh))} start fresh"] if fresh else [])
