// Sorts and filters the rows of tables. The third press on a head restores the original order.
"use strict";
(() => {
  const names = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

  function enable(block) {
    const body = block.querySelector("tbody");
    const stated = [...body.rows];
    const name = (row) => row.cells[0].textContent;

    // Holes come last in both directions.
    function sorted(column, kind, sign) {
      if (kind === "name") return [...stated].sort((a, b) => sign * names.compare(name(a), name(b)));
      const value = (row) => {
        const text = row.cells[column].dataset.value;
        return text === "" ? NaN : Number(text);
      };
      const known = stated.filter((row) => !Number.isNaN(value(row)));
      const holes = stated.filter((row) => Number.isNaN(value(row)));
      return [...known.sort((a, b) => sign * (value(a) - value(b))), ...holes];
    }

    for (const button of block.querySelectorAll("button.sort")) {
      button.disabled = false;
      const head = button.closest("th");
      const first = button.dataset.better === "higher" ? "descending" : "ascending";
      const next = { none: first, [first]: first === "ascending" ? "descending" : "ascending" };
      button.addEventListener("click", () => {
        const direction = next[head.getAttribute("aria-sort")] ?? "none";
        for (const other of block.querySelectorAll("thead th")) other.setAttribute("aria-sort", "none");
        head.setAttribute("aria-sort", direction);
        const sign = direction === "descending" ? -1 : 1;
        body.append(...(direction === "none" ? stated : sorted(head.cellIndex, button.dataset.kind, sign)));
      });
    }

    const filter = block.querySelector(".filter");
    if (stated.length <= 8) return;  // short enough without a filter
    const input = filter.querySelector("input");
    const status = filter.querySelector("[role=status]");
    filter.hidden = false;
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of stated) {
        row.hidden = !words.every((word) => name(row).toLowerCase().includes(word));
        shown += row.hidden ? 0 : 1;
      }
      status.textContent = words.length ? `${shown} of ${stated.length} rows` : "";
    });
  }

  for (const block of document.querySelectorAll(".table")) enable(block);
})();
