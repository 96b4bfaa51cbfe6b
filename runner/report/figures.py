"""Figures: top-1 or loss against epoch and time, and what changes with the number of nodes."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.report import frames
from runner.report.curves import Curve, folded_curves
from runner.report.metrics import header_of
from runner.report.runs import Run, natural_order

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Quantity:
    """What the y axis shows: its key in evaluations and summaries, title, axis label and scale to its unit."""

    key: str
    title: str
    label: str
    scale: float = 1


QUANTITIES = {
    "top1": Quantity("top1_mean_model", "Top-1 of the mean model", "top-1 (%)", 100),
    "loss": Quantity("loss_mean_model", "Loss of the mean model", "loss"),
    "consensus_distance": Quantity("consensus_distance", "Consensus distance", "consensus distance"),
    "time_per_iteration": Quantity("iteration_time_s", "Time per iteration", "time per iteration (ms)", 1000),
}

# Okabe & Ito's palette, safe for colour-blind readers; the SGP paper's colours for its three methods.
_PAPER = {"allreduce": "#D55E00", "dpsgd": "#009E73", "sgp": "#0072B2"}
_PALETTE = ["#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000", "#999999"]
_MARKERS = "osD^vPX*"
_PAPER_STYLES = {8: "--", 16: "-"}  # the SGP paper's line styles, by nodes
_STYLES: list[Any] = ["-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 4))]
_FEW_POINTS = 20
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
    "savefig.dpi": 200,
}


def draw(
    runs: Sequence[Run], *, x: str | None, y: str | None, by: Sequence[str] | None
) -> "tuple[Figure, str, list[str]]":
    """Draw the finished runs; return the figure, a name for its file, and what could not be read.

    `x` is epoch, time, nodes or None (epoch and time), `y` a key of QUANTITIES or None, `by` the keys that make a line.
    Raises ValueError for a combination that does not exist and LookupError where there is nothing to draw.
    """
    import matplotlib as mpl

    against_nodes = x == "nodes" or (x is None and y == "time_per_iteration")
    y = y or ("time_per_iteration" if against_nodes else "top1")
    if y == "time_per_iteration" and not against_nodes:
        raise ValueError(f"--y {y} --x {x}: a run has one time per iteration; draw it with --x nodes")
    if not against_nodes and runs and all(run.timing_only for run in runs if run.summary is not None):
        raise LookupError("these runs are for the time only and have no curves; draw `experiments plot --x nodes`")
    frame = frames.summaries(run for run in runs if against_nodes or not run.timing_only)
    frames.check_keys("--by", by or (), frame)
    with mpl.rc_context(_RC):
        if against_nodes:
            return _against_nodes(frame, QUANTITIES[y], by), f"{y}-nodes", []
        keys = frames.timed_apart(frame, by or frames.row_keys(frame, ("method", "nodes")))
        lines, problems = folded_curves(runs, keys, QUANTITIES[y].key)
        name = y if x is None else f"{y}-{x}"
        return (
            _learning_curves(frame, keys, lines, QUANTITIES[y], ["epoch", "time"] if x is None else [x]),
            name,
            problems,
        )


def save(figure: "Figure", path: Path) -> None:
    """Write the figure in the format that the path ends in; folders are made."""
    import matplotlib as mpl

    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(_RC):
        figure.savefig(path)


def _learning_curves(
    frame: "pd.DataFrame", keys: Sequence[str], lines: Sequence[Curve], quantity: Quantity, against: Sequence[str]
) -> "Figure":
    """One panel per x axis; times on different clocks, or of different things, get a panel each."""
    from matplotlib.ticker import MaxNLocator

    times = _Times(frame, keys)
    panels = [(x, kind) for x in against for kind in (times.kinds if x == "time" else [None])]
    labels = _Labels(frame, keys, [line.key for line in lines])
    counts = sorted({line.runs for line in lines})
    caption = _caption(frame, keys, counts, "band")
    figure, axes = _panels(len(panels), labels, f"{quantity.title}: {_task(frame)}", caption)
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
        axis.set_xlim(left=0)
        axis.margins(y=_HEADROOM)
        if x == "epoch":
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].set_ylabel(quantity.label)
    if quantity.scale == 100 and axes[0].get_ylim()[1] > 102:
        axes[0].set_ylim(top=102)
    _legend(figure, axes, labels, caption)
    return figure


def _against_nodes(frame: "pd.DataFrame", quantity: Quantity, by: Sequence[str] | None) -> "Figure":
    """The mean over seeds against the number of nodes, on a binary logarithmic axis.

    Times on different clocks, or of different things, get a panel each, with an axis of its own.
    """
    frames.check_values("--y", [quantity.key], frame)
    frame = frame[[n is not None and v is not None for n, v in zip(frame["nodes"], frame[quantity.key], strict=True)]]
    if frame.empty:
        raise LookupError(f"no finished run has both nodes and {quantity.key}")
    keys = frames.timed_apart(frame, [key for key in by or _line_keys(frame) if key != "nodes"] or ["method"])
    a_time = quantity.key == "iteration_time_s"
    times = _Times(frame, keys)
    panels = times.kinds if a_time else [None]
    lines = sorted(
        frame[keys].drop_duplicates().itertuples(index=False, name=None),
        key=lambda key: [natural_order(k) for k in key],
    )
    labels = _Labels(frame, keys, lines)
    counts = sorted({len(group) for _, group in frame.groupby([*keys, "nodes"], dropna=False)})
    caption = _caption(frame, [*keys, "nodes"], counts, "bars")
    title = f"{quantity.title} against nodes: {_timed(frame) if a_time else _task(frame)}"
    figure, axes = _panels(len(panels), labels, title, caption, sharey=not a_time)
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
        axis.set_xscale("log", base=2)
        axis.set_xticks(nodes, [str(n) for n in nodes])
        axis.set_xticks([], minor=True)
        axis.set_xlim(nodes[0] / 1.25, nodes[-1] * 1.25)
        axis.set_xlabel(f"nodes ({times.text(kind)})" if kind is not None and len(panels) > 1 else "nodes")
        if a_time:
            highest = float(axis.dataLim.y1)
            axis.set_ylim(0, (1 + _HEADROOM) * highest if highest > 0 else None)
    axes[0].set_ylabel(quantity.label)
    _legend(figure, axes, labels, caption)
    return figure


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
        self.kinds = sorted(set(self.of.values()), key=lambda kind: [natural_order(part) for part in kind])
        self.borrowed = any(of for _, of in self.kinds)

    def text(self, kind: tuple[Any, Any]) -> str:
        """`virtual clock`; where there are others also whose time it is."""
        clock, of = kind
        whose = f"as for {of}" if of else "of what was trained"
        return f"{clock} clock" + (f",\n{whose}" if self.borrowed and len(self.kinds) > 1 else "")


class _Labels:
    """Texts and looks of the lines: the colour and marker by everything but the nodes, the line style by the nodes.

    Where the nodes are all the same, the style tells a method's variants from its plain form, so that a line shows
    through one that lies upon it.
    """

    def __init__(self, frame: "pd.DataFrame", keys: Sequence[str], lines: Sequence[tuple[Any, ...]]) -> None:
        self.keys = list(keys)
        several = [len({line[i] for line in lines}) > 1 for i in range(len(keys))]
        self.named = [i for i, key in enumerate(keys) if several[i] or i == 0]
        self.texts = [self.text(line) for line in lines]
        self.nodes = sorted({line[self.keys.index("nodes")] for line in lines} - {None}) if "nodes" in keys else []
        methods = list(dict.fromkeys(str(self._who(line)[0]) for line in lines))
        plain = [method.partition(" (")[0] for method in methods]
        self.variants = {method: plain[:i].count(plain[i]) for i, method in enumerate(methods)}
        free = [colour for colour in _PALETTE if colour not in {_PAPER.get(self._who(line)[0]) for line in lines}]
        self.colours: dict[tuple[Any, ...], str] = {}
        for line in lines:
            who = self._who(line)
            if who not in self.colours:
                paper = _PAPER.get(who[0])
                use_paper = paper is not None and paper not in self.colours.values()
                self.colours[who] = (
                    paper
                    if use_paper and paper
                    else (free.pop(0) if free else _PALETTE[len(self.colours) % len(_PALETTE)])
                )

    def _who(self, line: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(value for key, value in zip(self.keys, line, strict=True) if key != "nodes")

    def text(self, line: tuple[Any, ...]) -> str:
        """`sgp (overlap=1), 8 nodes`."""
        return ", ".join(filter(None, (_words(self.keys[i], line[i]) for i in self.named)))

    def look(self, line: tuple[Any, ...], points: int) -> dict[str, Any]:
        """Colour, line style and, where the points are few, marker."""
        who = self._who(line)
        nodes = line[self.keys.index("nodes")] if "nodes" in self.keys else None
        marker = _MARKERS[list(self.colours).index(who) % len(_MARKERS)] if points <= _FEW_POINTS else None
        return {"color": self.colours[who], "linestyle": self._style(str(who[0]), nodes), "marker": marker}

    def _style(self, method: str, nodes: Any) -> Any:
        if len(self.nodes) < 2 or nodes is None:
            return _STYLES[self.variants[method] % len(_STYLES)]
        fixed = {n: _PAPER_STYLES[n] for n in self.nodes if n in _PAPER_STYLES}
        if nodes in fixed:
            return fixed[nodes]
        others = [n for n in self.nodes if n not in fixed]
        free = [style for style in _STYLES if style not in fixed.values()]
        return free[others.index(nodes) % len(free)]


_SPEAKS_FOR_ITSELF = ("method", "algorithm", "variant", "group", "experiment", "dataset", "model", "settings")


def _words(key: str, value: Any) -> str:
    if key == "time_as_for":
        return f"time as for {value}" if value else "time of what was trained"
    if value is None and key in frames.OF_VIRTUAL_RUNS:
        return ""  # of a real run, which the clock tells apart
    if value is None:
        return f"no {header_of(key)}"
    if key in ("nodes", "workers"):
        return f"{value} {key if value != 1 else key[:-1]}"
    if key == "clock":
        return f"{value} clock"
    if isinstance(value, str):
        return value if key in _SPEAKS_FOR_ITSELF or not value else f"{header_of(key)} {value}"
    return f"{header_of(key)} {value:g}"


def _task(frame: "pd.DataFrame") -> str:
    return frames.setting_sentence(frame, {str(key) for key in frame} - {"dataset", "model"}) or "all runs"


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
    folded = f"Mean over n = {n} runs, {spread} from min to max." if counts[-1] > 1 else "One run a line (n = 1)."
    notes = [*frames.time_notes(frame.to_dict("records")), *frames.seeds_note(frame, keys)]
    return "\n".join([f"{setting[:1].upper()}{setting[1:]}.", folded, *notes])


def _panels(count: int, labels: _Labels, title: str, caption: str, sharey: bool = True) -> "tuple[Figure, list[Axes]]":
    from matplotlib.figure import Figure

    width = {1: 5.6, 2: 8.0}.get(count, 3.7 * count)
    lines = _fill(title, width, 11).count("\n") + _fill(caption, width, 8).count("\n")
    entries = [_entry(text, width) for text in labels.texts]
    rows = -(-len(entries) // _columns(width, entries)) + sum(entry.count("\n") for entry in entries)
    figure = Figure(figsize=(width, 3.0 + 0.19 * (lines + rows)), layout="constrained")
    figure.suptitle(_fill(title, width, 11), fontsize=11, fontweight="bold", x=0.01, ha="left")
    return figure, list(figure.subplots(1, count, sharey=sharey, squeeze=False)[0])


def _legend(figure: "Figure", axes: "Sequence[Axes]", labels: _Labels, caption: str) -> None:
    """One legend for all panels below them, the caption above its entries."""
    width = float(figure.get_figwidth())
    entries: dict[str, Any] = {}
    for axis in axes:
        for handle, text in zip(*axis.get_legend_handles_labels(), strict=True):
            entries.setdefault(_entry(text, width), handle)
    legend = figure.legend(
        entries.values(),
        entries.keys(),
        loc="outside lower left",
        ncols=_columns(width, list(entries)),
        title=_fill(caption, width, 8),
        title_fontsize=8,
        alignment="left",
        handlelength=3,
    )
    legend.get_title().set_color("0.35")


def _entry(text: str, width: float) -> str:
    """A line's name in the legend, wrapped; the line itself takes the room of about 8 characters."""
    return textwrap.fill(text, _characters(width, 9) - 8)


def _fill(text: str, width: float, points: int) -> str:
    """Each line of the text wrapped to a width in inches."""
    return "\n".join(textwrap.fill(line, _characters(width, points)) for line in text.split("\n"))


def _characters(width: float, points: int) -> int:
    """About how many characters of a font of so many points fit into so many inches."""
    return int(width * 72 / points / 0.58)


def _columns(width: float, texts: Sequence[str]) -> int:
    return max(1, int(_characters(width, 9) / (max(map(len, texts)) + 8)))
