"""How figures look: colours, markers and line styles, labels, panels, and the legend below them."""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from runner.report import frames
from runner.report.metrics import EVALUATED, header_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito's palette, safe for colour-blind readers; the SGP paper's colours for its three methods. A method has one
# colour in all figures where its plain form has it to itself.
_PAPER = {
    "allreduce": "#D55E00",
    "dpsgd": "#009E73",
    "sgp": "#0072B2",
    "easgd": "#CC79A7",
    "gossip_pull": "#56B4E9",
    "gossip_push": "#E69F00",
    "async_sgd": "#000000",
    "sasgd": "#0072B2",
    "downpour": "#E69F00",
    "eamsgd": "#CC79A7",
    "hier_avg": "#0072B2",
    "k_avg": "#D55E00",
}
_PALETTE = ["#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000", "#999999"]
_MARKERS = "osD^vPX*"
_PAPER_STYLES = {8: "--", 16: "-"}  # the SGP paper's line styles, by nodes
_STYLES: list[Any] = ["-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 4))]
DISTINCT = len(_PALETTE) * len(_STYLES)
"""More lines cannot be told apart."""
_FEW_POINTS = 20


class Labels:
    """Texts and looks of the lines: the line style by the nodes or else by the cluster, the colour by everything else.

    Where these are all the same, the style tells a method's variants from its plain form, so that a line shows through
    one that lies upon it.
    """

    def __init__(
        self,
        keys: Sequence[str],
        lines: Sequence[tuple[Any, ...]],
        among: Sequence[tuple[Any, ...]] = (),
    ) -> None:
        """
        Args:
            lines: values of keys.
            among: these lines and those that other figures of the same runs have beside them: colours and markers are
                shared out among all, so that a line has the same in each figure. None: the lines.

        Raises:
            ValueError: there are too many.
        """
        self.keys = list(keys)
        several = [len({line[i] for line in lines}) > 1 for i in range(len(keys))]
        self.named = [i for i, key in enumerate(keys) if several[i] or i == 0]
        self.texts = [self.text(line) for line in lines]
        self.by_style = next((key for key in ("nodes", "cluster") if key in keys), None)
        self.styled = sorted({self._styled(line) for line in lines} - {None})
        among = among or lines
        if len(lines) > DISTINCT:
            raise ValueError(f"{len(lines)} lines: more than can be told apart; narrow them down with --where")
        free = [colour for colour in _PALETTE if colour not in {_paper_colour(self._who(line)) for line in among}]
        self.colours: dict[tuple[Any, ...], str] = {}
        for line in among:
            who = self._who(line)
            if who not in self.colours:
                paper = _paper_colour(who)
                use_paper = paper is not None and paper not in self.colours.values()
                self.colours[who] = (
                    paper
                    if use_paper and paper
                    else (free.pop(0) if free else _PALETTE[len(self.colours) % len(_PALETTE)])
                )
        self.variants = self._variants()

    def _variants(self) -> dict[tuple[Any, ...], int]:
        """A method's variants in turn, its plain form first; where a colour comes again, one that it has not had."""
        methods = list(dict.fromkeys(str(who[0]) for who in self.colours))
        plain = [method.partition(" (")[0] for method in methods]
        found: dict[tuple[Any, ...], int] = {}
        taken: set[tuple[str, int]] = set()
        for who, colour in self.colours.items():
            place = methods.index(str(who[0]))
            first = plain[:place].count(plain[place]) % len(_STYLES)
            others = [variant % len(_STYLES) for variant in range(first, first + len(_STYLES))]
            found[who] = next((variant for variant in others if (colour, variant) not in taken), first)
            taken.add((colour, found[who]))
        return found

    def _who(self, line: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(value for key, value in zip(self.keys, line, strict=True) if key != self.by_style)

    def _styled(self, line: tuple[Any, ...]) -> Any:
        """The value that the line's style stands for."""
        return line[self.keys.index(self.by_style)] if self.by_style else None

    def text(self, line: tuple[Any, ...]) -> str:
        """`sgp (overlap=1), 8 nodes`."""
        return ", ".join(filter(None, (_words(self.keys[i], line[i]) for i in self.named)))

    def look(self, line: tuple[Any, ...], points: int = 1) -> dict[str, Any]:
        """Colour, line style and, where the points are few, marker."""
        who = self._who(line)
        colours = list(self.colours.values())[: list(self.colours).index(who) + 1]
        place = colours.index(self.colours[who]) + colours.count(self.colours[who]) - 1  # another where it comes again
        marker = _MARKERS[place % len(_MARKERS)] if points <= _FEW_POINTS else None
        style = self._style(self.variants[who], self._styled(line))
        return {"color": self.colours[who], "linestyle": style, "marker": marker}

    def _style(self, variant: int, styled: Any) -> Any:
        if len(self.styled) < 2 or styled is None:
            return _STYLES[variant]
        fixed = {n: _PAPER_STYLES[n] for n in self.styled if n in _PAPER_STYLES}
        if styled in fixed:
            return fixed[styled]
        others = [n for n in self.styled if n not in fixed]
        free = [style for style in _STYLES if style not in fixed.values()]
        return free[others.index(styled) % len(free)]


def _paper_colour(who: tuple[Any, ...]) -> str | None:
    return _PAPER.get(str(who[0]).partition(" (")[0])


_SPEAKS_FOR_ITSELF = ("method", "algorithm", "variant", "group", "experiment", "dataset", "model", "settings")


def _words(key: str, value: Any) -> str:
    if key == "time_as_for":
        return f"time as for {value}" if value else "time of what was trained"
    if value is None and key in frames.OF_VIRTUAL_RUNS:
        return ""  # of a real run, which the clock tells apart
    if value is None:
        return f"no {header_of(key)}"
    if key == "evaluated_model":
        return EVALUATED.get(value, str(value))
    if key in ("nodes", "workers"):
        return f"{value} {key if value != 1 else key[:-1]}"
    if key == "clock":
        return f"{value} clock"
    if isinstance(value, str):
        return value if key in _SPEAKS_FOR_ITSELF or not value else f"{header_of(key)} {value}"
    return f"{header_of(key)} {value:g}"


MOST_PANELS = 24
AS_WIDE_AS_BOLD = 13
"""Points of letters that take the room of bold ones of 11."""


def panels_of(count: int, labels: Labels, title: str, caption: str, sharey: bool = True) -> "tuple[Figure, list[Axes]]":
    from matplotlib.figure import Figure

    if count > MOST_PANELS:
        raise ValueError(f"{count} panels: more than can be read; narrow them down with --where")
    columns = min(count, 4)
    height = -(-count // columns)
    width = {1: 5.6, 2: 8.0}.get(count, 3.7 * columns)
    lines = _fill(title, width, AS_WIDE_AS_BOLD).count("\n") + _fill(caption, width, 8).count("\n")
    entries = [_entry(text, width) for text in labels.texts]
    rows = -(-len(entries) // _columns(width, entries)) + sum(entry.count("\n") for entry in entries)
    figure = Figure(figsize=(width, 3.0 * height + 0.19 * (lines + rows)), layout="constrained")
    figure.suptitle(_fill(title, width, AS_WIDE_AS_BOLD), fontsize=11, fontweight="bold", x=0.01, ha="left")
    axes = list(figure.subplots(height, columns, sharey=sharey, squeeze=False).flat)
    for axis in axes[count:]:
        axis.remove()
    return figure, axes[:count]


def add_legend(figure: "Figure", axes: "Sequence[Axes]", labels: Labels, caption: str) -> None:
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
