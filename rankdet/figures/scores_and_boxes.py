"""aLRP Fig. 1: three box outputs for one score output, told apart by AP and by aLRP, and by no other loss."""

from collections.abc import Iterable, Sequence

from matplotlib.figure import Figure
from tabulate import tabulate

from rankdet.figures.content import COLORS, PAPER, Content
from rankdet.files import as_csv
from rankdet.results.registry import PrintedTable
from rankdet.theory.alrp_tables import ROUNDED, toy_values

LOSSES = ("cross_entropy", "ap_loss", "iou_loss", "alrp_loss")  # as toy_values gives them; the L1 loss needs the boxes
TOLD_APART = ("AP", *LOSSES)  # what is drawn

Values = dict[str, dict[str, float]]  # output -> column -> number


def content(anchors: PrintedTable, performance: PrintedTable, losses: PrintedTable) -> Content:
    """The figure; its three parts as they are printed."""
    columns = [*performance.columns, *losses.columns]
    by_threshold, by_loss = toy_values()
    ours: Values = {}
    for key, name in zip(performance.rows, by_threshold, strict=True):
        ours[key] = dict(zip(performance.columns, by_threshold[name], strict=True))
        ours[key] |= dict(zip(LOSSES, by_loss[name], strict=True))
    printed: Values = {key: performance.rows[key].values | losses.rows[key].values for key in ours}
    body = []
    for key, row in performance.rows.items():
        for whose, values in (("ours", ours[key]), ("paper", printed[key])):
            body.append([f"{row.label}, {whose}", *(_shown(values.get(column)) for column in columns)])
    found, there = _ranks(anchors)
    return Content(
        tabulate(body, ["output", *columns], tablefmt="github", disable_numparse=True, colalign=_align(columns)),
        as_csv(
            ("output", *(f"{column}_{whose}" for column in columns for whose in ("ours", "paper"))),
            [
                (key, *(cell for column in columns for cell in (ours[key].get(column, ""), printed[key][column])))
                for key in ours
            ],
        ),
        {
            "anchors": f"{found} of {there} ranks as printed",
            "performance": _agreement(ours, printed, performance.columns),
            "losses": f"{_agreement(ours, printed, [name for name in losses.columns if name != 'alrp_loss'])}; "
            + ("the same for all three outputs" if _alike(ours) else "not the same for all three outputs"),
            "alrp": f"{_agreement(ours, printed, ['alrp_loss'])}: "
            + ", ".join(f"{values['alrp_loss']:.4f}" for values in ours.values()),
        },
        [
            "Exact: ten anchors, four of them positive; AP by the package's own rule for VOC2012 over five objects, "
            "losses by the package's own functions with a hard step, cross entropy by torch. As printed is within "
            "0.005 of the printed number; the CSV has all digits.",
            "The L1 loss cannot be recomputed, as the offsets of the boxes are not printed.",
        ],
        lambda figure: _draw(figure, anchors, ours),
        (9.6, 4.2),
        "IoU of four positives by their score's rank, and AP and losses of the three outputs",
    )  # fmt: skip


def _align(columns: Sequence[str]) -> list[str]:
    return ["left", *["right"] * len(columns)]


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value + 1e-9:.2f}"  # 0.275 is 0.28, whatever its last bit


def _alike(ours: Values) -> bool:
    """Whether every loss but aLRP has the same value for all outputs."""
    return all(len({round(values[name], 12) for values in ours.values()}) == 1 for name in LOSSES[:-1])


def _agreement(ours: Values, printed: Values, columns: Iterable[str]) -> str:
    pairs = [(values.get(column), printed[key][column]) for column in columns for key, values in ours.items()]
    same = sum(mine is not None and abs(mine - theirs) <= ROUNDED for mine, theirs in pairs)
    return f"{same} of {len(pairs)} values as printed"


def _positives(anchors: PrintedTable) -> list[dict[str, float | None]]:
    """Those with a rank, in the order of the anchors."""
    return [row.values for row in anchors.rows.values() if row.values["rank"] is not None]


def _ranks(anchors: PrintedTable) -> tuple[int, int]:
    """How many of the printed ranks follow from the printed scores and IoUs, and how many are printed."""
    rows, same = _positives(anchors), []
    for column, rank in (("score", "rank"), *((f"R{n}_iou", f"R{n}_rank") for n in (1, 2, 3))):
        ordered = sorted((row[column] for row in rows), reverse=True)
        same += [ordered.index(row[column]) + 1 == row[rank] for row in rows]
    return sum(same), len(same)


def _draw(figure: Figure, anchors: PrintedTable, ours: Values) -> None:
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.6))
    rows = _positives(anchors)
    width = 0.8 / len(ours)
    for place, (key, values) in enumerate(ours.items()):
        name = key.removeprefix("c-").upper()
        left.plot([row["rank"] for row in rows], [row[f"{name}_iou"] for row in rows], color=COLORS[place], marker="o",
                  label=f"(C & {name})")  # fmt: skip
        heights = [values[column] for column in TOLD_APART]
        right.bar([n + (place - 1) * width for n in range(len(TOLD_APART))], heights, width, color=COLORS[place])
    left.set(xlabel="rank of the positive by its score", ylabel="IoU of its box", ylim=(0.4, 1))
    left.set_xticks([1, 2, 3, 4])
    right.axvline(0.5, color=PAPER, lw=0.8)
    right.set_xticks(range(len(TOLD_APART)), ["AP", "cross entropy", "AP Loss", "IoU Loss", "aLRP Loss"])
    right.set(ylabel="AP, and losses")
    right.grid(visible=False, axis="x")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncol=3, frameon=False)
