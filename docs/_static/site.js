// The slider over two pictures, and tables that sort by the column whose head is pressed.
document.addEventListener("DOMContentLoaded", () => {
  for (const compare of document.querySelectorAll(".compare")) {
    const range = compare.querySelector("input");
    const show = () => compare.style.setProperty("--at", `${range.value}%`);
    range.addEventListener("input", show);
    show();
  }
  // The theme's headings of its menu have no level, and blocks that scroll cannot be reached by the keyboard.
  for (const heading of document.querySelectorAll("[role=heading]:not([aria-level])")) heading.ariaLevel = "2";
  for (const block of document.querySelectorAll("pre, .table-wrapper, .diagram-wide, div.math")) if (block.scrollWidth > block.clientWidth) block.tabIndex = 0;
  for (const link of document.querySelectorAll(".sphx-glr-thumbcontainer a")) link.ariaLabel = link.textContent.trim();
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      head.querySelector("button")?.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") !== "descending";
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const value = (row) => {
          const cell = row.cells[column];
          const number = Number(cell.dataset.value ?? NaN);
          return Number.isNaN(number) ? cell.textContent.trim() : number;
        };
        const rows = [...table.tBodies[0].rows].sort((a, b) => {
          const [x, y] = [value(a), value(b)];
          const order = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y));
          return down ? -order : order;
        });
        table.tBodies[0].append(...rows);
      });
    });
  }
});
