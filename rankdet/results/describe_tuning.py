"""The sentences under a table about learning rate and box weight: tuned or not, how, and at whose expense."""

from collections.abc import Sequence

from rankdet.results.plan import Plan
from rankdet.results.runs import Run
from rankdet.results.tuning import Tuning

TITLES = {
    "retinanet": "RetinaNet",
    "ssd": "SSD",
    "faster_rcnn": "Faster R-CNN",
    "foveabox": "FoveaBox",
    "deformable_detr": "Deformable DETR",
}


def title(detector: str) -> str:
    """A detector's name as the papers write it."""
    return TITLES.get(detector, detector)


def tuning_lines(plan: Plan, runs: Sequence[Run]) -> list[str]:
    """One sentence or two per point, for each detector of the runs in turn; named where there are several."""
    detectors = list(dict.fromkeys(run.detector for run in runs))
    if not plan.tunings and len(detectors) < 2:
        return [f"Learning rate and box weight are the configuration's defaults: {_how_to_tune(detectors)}."]
    lines = []
    for detector in detectors:
        own = [run for run in runs if run.detector == detector]
        several = f"{title(detector)}: " if len(detectors) > 1 else ""
        tunings = {run.data: plan.tunings[detector, run.data] for run in own if (detector, run.data) in plan.tunings}
        for tuning in {tuning.path: tuning for tuning in tunings.values()}.values():
            alike = [run for run in own if run.data in tunings and tunings[run.data].path == tuning.path]
            lines += [several + line for line in _tuned(plan, tuning, alike)]
        if any(run.data not in tunings for run in own):
            lines.append(
                f"{title(detector)}, untuned: learning rate and box weight are the configuration's defaults: "
                f"{_how_to_tune([detector])}."
            )
    return lines


def _how_to_tune(detectors: Sequence[str]) -> str:
    other = "".join(f" DETECTOR={detector}" for detector in detectors if detector != "retinanet")
    return f"nothing was tuned (make tune{other} does)"


def _tuned(plan: Plan, tuning: Tuning, runs: Sequence[Run]) -> list[str]:
    seeds = ", ".join(map(str, tuning.seeds))
    where = f"protocol {tuning.protocol} version {tuning.protocol_version}, seed {seeds}"
    every = dict(sorted(_used(runs).items()))
    used = {loss: best for loss, best in every.items() if loss in tuning.losses}
    lines = [
        f"Tuned per loss on {tuning.data}, split val, {_tried(tuning, list(used))} ({where}): "
        + "; ".join(f"{loss}: {_settings(best)}" for loss, best in used.items())
        + "."
    ]
    untuned = ", ".join(loss for loss in every if loss not in used)
    if untuned:
        lines.append(f"Not tuned, with the configuration's learning rate and box weight: {untuned}.")
    if not used:
        return lines[1:]
    others = ", ".join(dict.fromkeys(run.data for run in runs if run.data != tuning.data))
    if others:
        lines.append(f"These settings were tuned on {tuning.data}, not on {others}; make tune DATA=... searches here.")
    edges = [f"{' and '.join(tuning.edges[loss])} for {loss}" for loss in used if tuning.edges.get(loss)]
    if edges:
        lines.append(f"At the edge of the grid, so that a better value may lie beyond: {', '.join(edges)}.")
    collapsed = [f"{tuning.collapsed[loss]} with {loss}" for loss in used if tuning.collapsed.get(loss)]
    if collapsed:
        lines.append(f"Of the {tuning.num_trials} settings of a loss, these ended below 1 AP: {', '.join(collapsed)}.")
    if plan.protocol != tuning.protocol:
        lines.append(
            f"The settings were tuned under {tuning.protocol}; trainings as long as these may do better with others."
        )
    versions = {run.protocol_version for run in runs}
    if plan.protocol == tuning.protocol and versions != {tuning.protocol_version}:
        lines.append(f"The settings are stale: tuned under version {tuning.protocol_version} of the protocol.")
    return lines


def _tried(tuning: Tuning, used: Sequence[str]) -> str:
    """How many settings, and which."""
    alone = [loss for loss in used if loss in tuning.fewer]
    values = [f"{key} of {', '.join(f'{value:g}' for value in axis)}" for key, axis in tuning.grid.items()]
    if alone and len(alone) == len(used):  # their own number is all there is to tell
        return f"{max(tuning.fewer[loss] for loss in alone)} settings: {values[0] if values else ''}"
    fewer = "".join(f", {tuning.fewer[loss]} for {loss}" for loss in alone)
    fewer += f", which {'has' if len(alone) == 1 else 'have'} no box weight" if alone else ""
    grid = f", {' with '.join(values)}" if values else ""
    return f"the same {tuning.num_trials} settings for each{fewer}{grid}"


def _used(runs: Sequence[Run]) -> dict[str, tuple[str, ...]]:
    """loss -> the tuned overrides that its rows took over: most of them, where a row sets one by hand."""
    used: dict[str, tuple[str, ...]] = {}
    for run in runs:
        loss = next(item for item in run.overrides if item.startswith("loss=")).removeprefix("loss=")
        used[loss] = max(used.get(loss, ()), run.tuned, key=len)
    return used


def _settings(tuned: tuple[str, ...]) -> str:
    return ", ".join(item.replace("=", " ") for item in tuned) or "none, defaults"
