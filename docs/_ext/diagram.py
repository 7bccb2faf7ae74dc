"""Line drawings as SVG that takes the page's colours."""

from html import escape

_HEAD = (
    '<svg class="diagram" viewBox="0 0 {width} {height}" role="img" aria-label="{label}" '
    'style="max-width:{width}px" font-family="sans-serif" font-size="13" fill="none" stroke="currentColor">'
    '<defs><marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
    'orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="currentColor" stroke="none"/></marker></defs>'
)


class Diagram:
    """Boxes, arrows and words on a sheet of so many units.

    Args:
        name: of the drawing, one of its own on a page.
        label: for those who do not see it.
    """

    def __init__(self, name: str, label: str, width: int, height: int) -> None:
        self.name = name
        self.parts = [_HEAD.format(name=f"head-{name}", label=escape(label), width=width, height=height)]

    def box(self, x: float, y: float, width: float, height: float, *lines: str, filled: bool = False) -> None:
        """A box with lines of text in its middle."""
        fill = ' fill="currentColor" fill-opacity="0.08"' if filled else ""
        self.parts.append(f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="4"{fill}/>')
        for number, line in enumerate(lines):
            self.text(x + width / 2, y + height / 2 + 4.5 + 16 * (number - (len(lines) - 1) / 2), line)

    def text(self, x: float, y: float, words: str, *, anchor: str = "middle", small: bool = False) -> None:
        """Words whose baseline is at ``y``."""
        size = ' font-size="11"' if small else ""
        self.parts.append(
            f'<text x="{x}" y="{y}" text-anchor="{anchor}"{size} fill="currentColor" stroke="none">'
            f"{escape(words)}</text>"
        )

    def arrow(self, *points: tuple[float, float], faint: bool = False) -> None:
        """A line through points, with a head at its end."""
        line = " ".join(f"{x},{y}" for x, y in points)
        opacity = ' opacity="0.35"' if faint else ""
        self.parts.append(f'<polyline points="{line}" marker-end="url(#head-{self.name})"{opacity}/>')

    def html(self) -> str:
        """The drawing, to stand in a page."""
        return "".join([*self.parts, "</svg>\n"])
