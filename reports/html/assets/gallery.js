// Saves the list of a gallery as CSV (RFC 4180).
"use strict";
(() => {
  const columns = ["index", "source", "given", "proposed", "score", "weight", "loss", "wrong"];
  const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

  for (const gallery of document.querySelectorAll(".gallery")) {
    const suspects = [...gallery.querySelectorAll(".suspect")];
    const save = gallery.querySelector(".save");
    save.hidden = suspects.length === 0;
    const button = save.querySelector("button");
    button.addEventListener("click", () => {
      const rows = [columns, ...suspects.map((suspect) => columns.map((column) => suspect.dataset[column]))];
      const text = rows.map((row) => row.map(quoted).join(",") + "\r\n").join("");
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
      link.download = button.dataset.file;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    });
  }
})();
