"""Figures: top-1 or loss against epoch and time, what changes with the number of nodes, time split, and staleness."""

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.report import frames, staleness
from runner.report.curves import Curve, folded_curves
from runner.report.looks import Labels, add_legend, panels_of
from runner.report.metrics import EVALUATED
from runner.report.runs import Run, in_order

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Quantity:
    """What the y axis shows: its key in evaluations and summaries, title, axis label and scale to its unit."""

    key: str
    title: str
    label: str
    scale: float = 1


QUANTITIES = {
    "top1": Quantity("top1", "Top-1", "top-1 (%)", 100),
    "error": Quantity("error", "Error", "error (%)", 100),
    "loss": Quantity("loss_mean_model", "Loss of the mean model", "loss"),
    "consensus_distance": Quantity("consensus_distance", "Mean consensus distance", "mean distance to the mean model"),
    "consensus_distance_max": Quantity(
        "consensus_distance_max", "Largest consensus distance", "largest distance to the mean model"
    ),
    "time_per_iteration": Quantity("iteration_time_s", "Time per iteration", "time per iteration (ms)", 1000),
    "speedup": Quantity("speedup", "Speed-up", "speed-up over the fewest nodes"),
    "time_split": Quantity("epoch_time_s", "Epoch time", "epoch time (s)"),
}
OF_TIMES = {"iteration_time_s", "speedup", "epoch_time_s"}
"""A run has one value of each, which depends on what its clock tells the time of."""

SPLIT = {"compute_share": "computing", "wait_share": "waiting for communication", "data_share": "waiting for data"}
_SPLIT_LOOKS = (("#0072B2", ""), ("#E69F00", "///"), ("#999999", "..."))  # told apart without colour too
_FAR_APART = 6  # ends of training, from which on times are drawn on a logarithmic axis
_HEADROOM = 0.08  # above the highest line, as a share of the axis

_RC: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "lines.markersize": 4,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # text stays text, in a font that can be searched and edited
    "svg.fonttype": "none",
    "svg.hashsalt": "distsgd",  # the same figure gets the same ids, and so the same bytes
    "savefig.dpi": 200,
}
_UNDATED: dict[str, dict[str, None]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
"""For savefig, by format: the same figure has the same bytes whenever it is drawn."""


@dataclass(frozen=True)
class Mark:
    """A published value, drawn hollow.

    Args:
        value: in the unit of summaries.
        source: for the legend.
    """

    method: str
    nodes: int
    value: float
    source: str


def draw(
    runs: Sequence[Run], *, x: str | None, y: str | None, by: Sequence[str] | None, marks: Sequence[Mark] = ()
) -> "tuple[Figure, str, list[str]]":
    """Draw the finished runs; return the figure, a name for its file, and what could not be read.

    `x` is epoch, time, nodes, staleness or None (epoch and time), `y` a key of QUANTITIES or None, `by` the keys that
    make a line, `marks` published values, against nodes only.
    Raises ValueError for a combination that does not exist and LookupError where there is nothing to draw.
    """
    import matplotlib as mpl

    check_axes(x, y)
    if x == "staleness":
        frame = frames.summaries(runs)
        frames.check_keys("--by", by or (), frame)
        with mpl.rc_context(_RC):
            return _histogram(frame, by or frames.row_keys(frame, ("method", "nodes"))), "staleness", []
    of_times = y is not None and QUANTITIES[y].key in OF_TIMES
    against_nodes = x == "nodes" or (x is None and of_times)
    y = y or ("time_per_iteration" if against_nodes else "top1")
    if not against_nodes and runs and all(run.timing_only for run in runs if run.summary is not None):
        raise LookupError("these runs are for the time only and have no curves; draw `experiments plot --x nodes`")
    frame = frames.summaries(run for run in runs if against_nodes or not run.timing_only)
    frames.check_keys("--by", by or (), frame)
    quantity = QUANTITIES[y] if y not in ("top1", "error") else _of_a_model(QUANTITIES[y], frame)
    with mpl.rc_context(_RC):
        if y == "time_split":
            return _split(frame, quantity, by), f"{y}-nodes", []
        if against_nodes:
            return _against_nodes(frame, quantity, by, marks), f"{y}-nodes", []
        keys = frames.timed_apart(frame, by or frames.row_keys(frame, ("method", "nodes")))
        keys = frames.evaluated_apart(frame, keys, [quantity.key])
        lines, problems = folded_curves(runs, keys, quantity.key)
        name = y if x is None else f"{y}-{x}"
        return _learning_curves(frame, keys, lines, quantity, ["epoch", "time"] if x is None else [x]), name, problems


def check_axes(x: str | None, y: str | None) -> None:
    """
    Raises:
        ValueError: that cannot be drawn against this.
    """
    if x == "staleness" and y is not None:
        raise ValueError(f"--y {y} --x staleness: that draws the share of what was merged; leave --y out")
    if x in ("epoch", "time") and y is not None and QUANTITIES[y].key in OF_TIMES:
        raise ValueError(f"--y {y} --x {x}: a run has one {y.replace('_', ' ')}; draw it with --x nodes")


def _of_a_model(quantity: Quantity, frame: "pd.DataFrame") -> Quantity:
    """Of the model that the runs were evaluated by; where these are several, the lines say which."""
    models = frames.evaluated(frame.to_dict("records"))
    of = f" of the {EVALUATED[models[0]]}" if len(models) == 1 else ""
    return replace(quantity, title=f"{quantity.title}{of}")


def rendered(figure: "Figure", form: str, **settings: Any) -> bytes:
    """The figure in a format: png, pdf, svg. With more of matplotlib's settings, where there are some."""
    import matplotlib as mpl

    out = io.BytesIO()
    with mpl.rc_context(_RC | settings):
        figure.savefig(out, format=form, metadata=_UNDATED.get(form))
    return out.getvalue()


def save(figure: "Figure", path: Path) -> None:
    """Write the figure in the format that the path ends in; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(rendered(figure, path.suffix[1:]))


def _learning_curves(
    frame: "pd.DataFrame", keys: Sequence[str], lines: Sequence[Curve], quantity: Quantity, against: Sequence[str]
) -> "Figure":
    """One panel per x axis; times on different clocks, or of different things, get a panel each."""
    from matplotlib.ticker import MaxNLocator

    times = _Times(frame, keys)
    panels = [(x, kind) for x in against for kind in (times.kinds if x == "time" else [None])]
    labels = Labels(keys, [line.key for line in lines])
    counts = sorted({line.runs for line in lines})
    caption = _caption(frame, keys, counts, "band")
    nodes = sorted({n for n in frame["nodes"] if n is not None})
    where = f", {nodes[0]} nodes" if len(nodes) == 1 and nodes[0] > 1 else ""
    figure, axes = panels_of(len(panels), labels, f"{quantity.title}: {_task(frame)}{where}", caption)
    for axis, (x, kind) in zip(axes, panels, strict=True):
        drawn = [line for line in lines if kind is None or times.of[line.key] == kind]
        longest = max((float(t) for line in drawn for t in line.time_s if t == t), default=0.0)
        unit, seconds = ("h", 3600.0) if longest > 2 * 3600 else ("s", 1.0)
        for line in drawn:
            look = labels.look(line.key, len(line.epoch))
            horizontal = line.epoch if x == "epoch" else line.time_s / seconds
            diverged = f" ({line.diverged} of {line.runs} diverged)" if line.diverged else ""
            axis.plot(horizontal, line.mean * quantity.scale, label=labels.text(line.key) + diverged, **look)
            if line.runs > 1:
                low, high = line.low * quantity.scale, line.high * quantity.scale
                axis.fill_between(horizontal, low, high, color=look["color"], alpha=0.18, linewidth=0)
        axis.set_xlabel("epoch" if kind is None else f"training time ({unit}), {times.text(kind)}")
        ends = [float(line.time_s[-1]) for line in drawn if x == "time"]
        if ends and max(ends) > _FAR_APART * min(ends) > 0:
            axis.set_xscale("log")  # or the shortest would be too small to be seen
        else:
            axis.set_xlim(left=0)
        axis.margins(y=_HEADROOM)
        if x == "epoch":
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].set_ylabel(quantity.label)
    if quantity.key.startswith("consensus") and all(line.low.min() > 0 for line in lines):
        axes[0].set_yscale("log")
    if quantity.scale == 100 and axes[0].get_ylim()[1] > 102:
        axes[0].set_ylim(top=102)
    add_legend(figure, axes, labels, caption)
    return figure


def _against_nodes(
    frame: "pd.DataFrame", quantity: Quantity, by: Sequence[str] | None, marks: Sequence[Mark]
) -> "Figure":
    """The mean over seeds against the number of nodes, on a binary logarithmic axis.

    Times on different clocks, or of different things, get a panel each, with an axis of its own.
    """
    frames.check_values("--y", [quantity.key], frame)
    whole = frame
    frame = frame[[n is not None and v is not None for n, v in zip(frame["nodes"], frame[quantity.key], strict=True)]]
    if frame.empty:
        raise LookupError(f"no finished run has both nodes and {quantity.key}")
    keys = frames.timed_apart(frame, [key for key in by or _line_keys(frame) if key != "nodes"] or ["method"])
    keys = frames.evaluated_apart(frame, keys, [quantity.key])
    a_time = quantity.key in OF_TIMES
    times = _Times(frame, keys)
    panels = times.kinds if a_time else [None]
    lines = _lines(frame, keys)
    labels = Labels(keys, lines, among=_lines(whole, keys))
    counts = sorted({len(group) for _, group in frame.groupby([*keys, "nodes"], dropna=False)})
    caption = _caption(frame, [*keys, "nodes"], counts, "bars")
    title = f"{quantity.title} against nodes: {_timed(frame) if a_time else _task(frame)}"
    figure, axes = panels_of(len(panels), labels, title, caption, sharey=not a_time)
    points = frames.fold(frame, [*keys, "nodes"], [quantity.key]).to_dict("records")
    for axis, kind in zip(axes, panels, strict=True):
        for line in lines:
            if kind is not None and times.of[line] != kind:
                continue
            look = labels.look(line, 1)
            mine = [point for point in points if tuple(point[key] for key in keys) == line]
            nodes, mean, low, high = (
                [point[name] * scale for point in mine]
                for name, scale in (
                    ("nodes", 1),
                    *((f"{quantity.key}_{x}", quantity.scale) for x in ("mean", "low", "high")),
                )
            )
            axis.plot(nodes, mean, label=labels.text(line), **look)
            axis.vlines(nodes, low, high, color=look["color"], linewidth=1, alpha=0.6)
        nodes = sorted(set(frame["nodes"]))
        for mark in (mark for mark in marks if mark.nodes in nodes):
            near = next((labels.look(line, 1) for line in lines if line[0] == mark.method), None)
            if near is not None:
                hollow = {"color": near["color"], "markerfacecolor": "none", "markersize": 8, "linestyle": "none"}
                label = f"{mark.method}, published ({mark.source})"
                axis.plot([mark.nodes], [mark.value * quantity.scale], marker=near["marker"], label=label, **hollow)
        if quantity.key == "speedup":
            linear = [n / nodes[0] for n in nodes]
            axis.plot(nodes, linear, color="0.6", linestyle=":", linewidth=1, label="linear")
            axis.set_yscale("log", base=2)
            axis.set_yticks(linear, [f"{factor:g}" for factor in linear])
        axis.set_xscale("log", base=2)
        axis.set_xticks(nodes, [str(n) for n in nodes])
        axis.set_xticks([], minor=True)
        axis.set_xlim(nodes[0] / 1.25, nodes[-1] * 1.25)
        axis.set_xlabel(f"nodes ({times.text(kind)})" if kind is not None and len(panels) > 1 else "nodes")
        if a_time and quantity.key != "speedup":
            lowest, highest = float(axis.dataLim.y0), float(axis.dataLim.y1)
            if highest > _FAR_APART * lowest > 0:
                axis.set_yscale("log")  # or lines far below the highest would lie upon one another
            else:
                axis.set_ylim(0, (1 + _HEADROOM) * highest if highest > 0 else None)
    axes[0].set_ylabel(quantity.label)
    add_legend(figure, axes, labels, caption)
    return figure


def _split(frame: "pd.DataFrame", quantity: Quantity, by: Sequence[str] | None) -> "Figure":
    """Stacked bars against the number of nodes, a panel for each method: what the time of an epoch goes into."""
    frames.check_values("--y", [quantity.key, *SPLIT], frame)
    keys = frames.timed_apart(frame, [key for key in by or _line_keys(frame) if key != "nodes"] or ["method"])
    times = _Times(frame, keys)
    folded = frames.fold(frame, [*keys, "nodes"], [quantity.key, *SPLIT]).to_dict("records")
    lines = list(dict.fromkeys(tuple(point[key] for key in keys) for point in folded))
    labels = Labels(keys, lines)
    counts = sorted({point["runs"] for point in folded})
    caption = _caption(frame, [*keys, "nodes"], counts, "")
    shown = [share for share in SPLIT if any(point[f"{share}_mean"] for point in folded)]
    title = f"{quantity.title} and its split: {_timed(frame)}"
    figure, axes = panels_of(len(lines), labels, title, caption, sharey=len(times.kinds) == 1)
    highest: dict[tuple[Any, Any], float] = {}
    for axis, line in zip(axes, lines, strict=True):
        mine = [point for point in folded if tuple(point[key] for key in keys) == line]
        below = [0.0] * len(mine)
        for share, (colour, hatch) in zip(shown, _SPLIT_LOOKS, strict=False):
            parts = [point[f"{quantity.key}_mean"] * (point[f"{share}_mean"] or 0.0) for point in mine]
            look: dict[str, Any] = {"facecolor": colour, "hatch": hatch, "edgecolor": "white", "linewidth": 0.5}
            axis.bar(
                [str(point["nodes"]) for point in mine], parts, bottom=below, width=0.7, label=SPLIT[share], **look
            )
            below = [low + part for low, part in zip(below, parts, strict=True)]
        highest[times.of[line]] = max(highest.get(times.of[line], 0.0), *below)
        axis.set_title(textwrap.fill(labels.text(line), 38), fontsize=9)
        axis.set_xlabel("nodes")
        axis.set_axisbelow(True)
        axis.grid(visible=False, axis="x")
    for axis, line in zip(axes, lines, strict=True):
        axis.set_ylim(0, (1 + _HEADROOM) * highest[times.of[line]])
    axes[0].set_ylabel(quantity.label)
    add_legend(figure, axes, labels, caption)
    return figure


def _histogram(frame: "pd.DataFrame", keys: Sequence[str]) -> "Figure":
    """The share of what was merged by its age, one step line a method."""
    from matplotlib.ticker import MaxNLocator

    if "staleness" not in frame or not any(frame["staleness"]):
        raise LookupError("none of these runs has recorded a staleness; asynchronous and overlapped methods do")
    every = staleness.folded(frame, keys)
    late = {line: counts for line, counts in every.items() if max(counts) > 0}
    labels = Labels(keys, list(late or every))
    settings = frames.setting_sentence(
        frame, {"dataset", "model", *(key for key in keys if frames.differs(frame, key))}
    )
    notes = [f"{settings[:1].upper()}{settings[1:]}.", *frames.seeds_note(frame, keys)]
    if late and len(late) < len(every):
        never = dict.fromkeys(labels.text(line) for line in every if line not in late)
        notes.append(f"Never late: {'; '.join(never)}.")
    caption = "\n".join(notes)
    drawn = frame[[row in (late or every) for row in frame[list(keys)].itertuples(index=False, name=None)]]
    figure, axes = panels_of(1, labels, f"Staleness of what was merged: {_task(drawn)}", caption)
    for line, counts in (late or every).items():
        look = labels.look(line)
        share = [100 * counts[age] / counts.total() for age in range(max(counts) + 1)]
        edges = [age - 0.5 for age in range(len(share) + 1)]
        label = f"{labels.text(line)}: mean {staleness.mean(counts):.3g}"
        axes[0].stairs(share, edges, fill=True, alpha=0.1, color=look["color"])
        axes[0].stairs(share, edges, label=label, color=look["color"], linestyle=look["linestyle"], linewidth=1.5)
    axes[0].set_xlabel("staleness (steps, or updates of the centre)")
    axes[0].set_ylabel("share of merges (%)")
    axes[0].set_axisbelow(True)
    axes[0].set_ylim(bottom=0)
    axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    add_legend(figure, axes, labels, caption)
    return figure


def _lines(frame: "pd.DataFrame", keys: Sequence[str]) -> list[tuple[Any, ...]]:
    return in_order(frame[list(keys)].drop_duplicates().itertuples(index=False, name=None))


def _line_keys(frame: "pd.DataFrame") -> list[str]:
    """What makes a line against nodes: the method and what differs, without the settings that follow from the nodes."""
    keys = frames.row_keys(frame, ("method", "nodes"))
    for key in ("global_batch_size", "batch_size"):
        others = [other for other in keys if other != key]
        if key in keys and not frames.tells_apart(frame, key, others):
            keys = others
    return keys


class _Times:
    """What the times of each line are: the clock, and what a virtual one tells the time of."""

    def __init__(self, frame: "pd.DataFrame", keys: Sequence[str]) -> None:
        rows = frame.to_dict("records")
        self.of = {tuple(row[key] for key in keys): (row["clock"], row.get("time_as_for")) for row in rows}
        self.kinds = in_order(set(self.of.values()))
        self.borrowed = any(of for _, of in self.kinds)

    def text(self, kind: tuple[Any, Any]) -> str:
        """`virtual clock`; where there are others also whose time it is."""
        clock, of = kind
        whose = f"as for {of}" if of else "of what was trained"
        return f"{clock} clock" + (f",\n{whose}" if self.borrowed and len(self.kinds) > 1 else "")


def _task(frame: "pd.DataFrame") -> str:
    return frames.setting_sentence(frame, {str(key) for key in frame} - {"dataset", "model"}) or "time only"


def _timed(frame: "pd.DataFrame") -> str:
    """What the times are of: whatever cost groups name, then the task of the runs whose time is their own."""
    if "time_as_for" not in frame:
        return _task(frame)
    own = frame["time_as_for"].isna()
    borrowed = sorted(frame["time_as_for"][~own].unique())
    return "; ".join([*borrowed, *([_task(frame[own])] if own.any() else [])])


def _caption(frame: "pd.DataFrame", keys: Sequence[str], counts: Sequence[int], spread: str) -> str:
    setting = frames.setting_sentence(frame, {"dataset", "model", *(key for key in keys if frames.differs(frame, key))})
    n = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    band = spread and f", {spread} from min to max"
    folded = f"Mean over n = {n} runs{band}." if counts[-1] > 1 else "One run a line (n = 1)."
    notes = [*frames.time_notes(frame.to_dict("records")), *frames.seeds_note(frame, keys)]
    return "\n".join([f"{setting[:1].upper()}{setting[1:]}.", folded, *notes])
