"""aLRP Table 1: how many hyperparameters a loss has, counted over the arguments of those that are implemented."""

from matplotlib.figure import Figure
from tabulate import tabulate

from rankdet.figures.content import COLORS, PAPER, Content
from rankdet.files import as_csv
from rankdet.results.registry import PrintedTable
from rankdet.theory.alrp_tables import TABLE_1, arguments_of

ROWS = ("ap-loss", "focal-loss", "dr-loss", "alrp")  # of the printed table, in the order of TABLE_1
NOT_COUNTED = {
    "fcos": "not implemented",
    "freeanchor": "not implemented",
    "faster-rcnn": "its losses are implemented; others of its hyperparameters are of the sampling",
    "centernet": "not implemented",
}


def content(table: PrintedTable) -> Content:
    """The table."""
    (column,) = table.columns
    counted = {key: arguments_of(modules) for key, (_, modules, _) in zip(ROWS, TABLE_1, strict=True)}
    body, points = [], {}
    for key, row in table.rows.items():
        printed = row.values[column]
        assert isinstance(printed, int)
        ours = len(counted[key]) - 1 if key in counted else None
        points[key] = (printed, ours)
        body.append((row.label, "-" if ours is None else ours, printed, ", ".join(counted.get(key, ())) or "-",
                     NOT_COUNTED.get(key, "")))  # fmt: skip
    headers = ("loss", "counted", "paper", "arguments, one of the weights not counted", "note")
    lines = [(key, "" if ours is None else ours, printed) for key, (printed, ours) in points.items()]
    same = [key for key, (printed, ours) in points.items() if ours == printed and key != "alrp"]
    others = [printed for key, (printed, _) in points.items() if key != "alrp"]
    return Content(
        tabulate(body, headers, tablefmt="github", colalign=("left", "right", "right", "left", "left")),
        as_csv(("row", "counted", "paper"), lines),
        {
            "alrp": f"{points['alrp'][1]}: {_named(counted['alrp'])}",
            "others": f"{len(same)} of {len(counted) - 1} counts as printed; the mean of all {len(others)} printed "
            f"ones is {sum(others) / len(others):.1f}",
        },
        [
            "Counted by a program: a number among the arguments of a loss and its box loss counts if changing it by a "
            "tenth changes the gradient of a made-up batch; one factor of the whole is the learning rate's affair. "
            "aLRP's second is the weight with which self-balancing starts, 50, of which the paper's Table 4 tries four "
            "values. DR loss is counted by its released program, with a lambda for each side and the factor tau.",
        ],
        lambda figure: _draw(figure, table, points),
        (7.2, 3.8),
        "number of hyperparameters by loss, counted and as printed",
    )  # fmt: skip


def _named(arguments: list[str]) -> str:
    return " and ".join(name.partition(".")[2] for name in arguments if not name.endswith(".weight"))


def _draw(figure: Figure, table: PrintedTable, points: dict[str, tuple[int, int | None]]) -> None:
    axes = figure.add_subplot()
    for place, (key, (printed, ours)) in enumerate(points.items()):
        axes.barh(place + 0.2, printed, 0.4, color=PAPER, label="paper, as printed" if place == 0 else None)
        axes.text(printed + 0.1, place + 0.2, str(printed), va="center", fontsize=8)
        if ours is None:
            axes.text(0.1, place - 0.2, "not counted", va="center", fontsize=8, color=PAPER)
        else:
            axes.barh(place - 0.2, ours, 0.4, color=COLORS[0], label="counted" if key == ROWS[0] else None)
            axes.text(ours + 0.1, place - 0.2, str(ours), va="center", fontsize=8)
    axes.set_yticks(range(len(points)), [table.rows[key].label for key in points])
    axes.invert_yaxis()
    axes.set(xlabel="hyperparameters of the loss", xlim=(0, 11))
    axes.grid(visible=False, axis="y")
    axes.legend(frameon=False, loc="upper right")
