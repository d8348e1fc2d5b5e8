// Draws the curves of a section: one group at a time, each chart when it comes into view.
"use strict";
(() => {
  const dark = matchMedia("screen and (prefers-color-scheme: dark)");
  let printing = false;
  const isDark = () => dark.matches && !printing;
  const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const ink = (name) => (printing ? { "--muted": "#575d66", "--line": "#dfdedb" }[name] : variable(name));

  function make(tag, name, ...children) {
    const element = document.createElement(tag);
    if (name) element.className = name;
    element.append(...children);
    return element;
  }

  const WIDTH = 1.75;
  const dashes = (method, width) => method.dash.map((length) => length * width);  // in line widths

  // Decimals for four significant digits of the mean, and of its standard deviation.
  const decimals = (mean) => (mean === 0 ? 2 : Math.min(6, Math.max(0, 3 - Math.floor(Math.log10(Math.abs(mean))))));
  const written = (value, digits) => value.toFixed(digits).replace("-", "−");

  class Chart {
    constructor(panel, methods, shown, sync) {
      Object.assign(this, { panel, methods, shown, sync, plot: null, active: false });
      this.place = make("div", "chart");
      this.place.tabIndex = 0;
      this.place.setAttribute("role", "group");
      const unit = panel.unit ? ` (${panel.unit})` : "";
      this.place.setAttribute("aria-label", `Chart of ${panel.quantity}${unit} over epochs; arrow keys read its values`);
      this.element = make("figure", "panel", make("figcaption", "", panel.quantity + unit), this.place);
      this.element.id = panel.key;
      this.readout = make("div", "readout");
      this.element.append(this.readout);
      this.readout.hidden = true;
      this.readout.setAttribute("role", "status");
      this.place.addEventListener("keydown", (event) => this.key(event));
      this.place.addEventListener("blur", () => this.leave());
    }

    colour(curve) {
      const method = this.methods[curve.method];
      return isDark() ? method.dark : method.colour;
    }

    // Three series for each curve: its mean and the edges of its band.
    data() {
      const edge = (curve, sign) =>
        curve.mean.map((mean, i) => (mean === null || curve.std[i] === null ? null : mean + sign * curve.std[i]));
      return [this.panel.epochs, ...this.panel.curves.flatMap((c) => [c.mean, edge(c, 1), edge(c, -1)])];
    }

    draw() {
      this.plot?.destroy();
      const { curves } = this.panel;
      const axis = {
        stroke: ink("--muted"), font: "11px system-ui, sans-serif",
        grid: { stroke: ink("--line"), width: 1 }, ticks: { stroke: ink("--line"), width: 1, size: 4 }, gap: 4,
      };
      const series = curves.flatMap((curve) => {
        const show = this.shown.has(curve.method);
        const lone = curve.mean.filter((value) => value !== null).length < 3;  // a line of one point is invisible
        const edge = { show, stroke: "transparent", width: 0, points: { show: false } };
        const method = this.methods[curve.method];
        const line = { label: method.name, show, stroke: this.colour(curve), width: WIDTH, dash: dashes(method, WIDTH) };
        return [{ ...line, points: { show: lone, size: 8, fill: this.colour(curve) } }, edge, edge];
      });
      const isMean = (i) => i % 3 === 1;
      this.plot = new uPlot({
        ...this.size(),
        legend: { show: false },
        padding: [8, 12, 0, 0],
        scales: { x: { time: false } },
        axes: [
          { ...axis, size: 30, space: 40, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] },
          { ...axis, space: 30, size: (u, values) => 14 + 6.5 * Math.max(2, ...(values ?? []).map((v) => v.length)) },
        ],
        series: [{ label: "epoch" }, ...series.map((one) => ({ ...one }))],
        bands: curves.map((curve, i) => ({ series: [3 * i + 2, 3 * i + 3], fill: `${this.colour(curve)}26` })),
        cursor: {
          sync: { key: this.sync }, y: false,
          points: { size: (u, i) => (isMean(i) ? 7 : 0), width: 0, fill: (u, i) => u.series[i].stroke(u, i) },
        },
        hooks: { draw: [(u) => this.marks(u)], setCursor: [() => this.read()] },
      }, this.data(), this.place);
      this.plot.over.addEventListener("mouseenter", () => { this.active = true; });
      this.plot.over.addEventListener("mouseleave", () => this.leave());
      this.place.uplot = this.plot;
    }

    size() {
      return { width: Math.max(200, this.place.clientWidth), height: this.place.clientHeight };
    }

    resize() {
      if (this.plot && this.plot.width !== this.size().width) this.plot.setSize(this.size());
    }

    update() {
      this.plot?.batch(() => {
        this.panel.curves.forEach((curve, i) => {
          const show = this.shown.has(curve.method);
          for (const j of [1, 2, 3]) if (this.plot.series[3 * i + j].show !== show) this.plot.setSeries(3 * i + j, { show });
        });
      });
    }

    // Marks the epochs where outer phases start.
    marks(u) {
      const starts = this.panel.curves.filter((c) => c.outer !== null && this.shown.has(c.method)).map((c) => c.outer);
      const { ctx, bbox } = u;
      const px = uPlot.pxRatio;
      ctx.save();
      ctx.strokeStyle = ctx.fillStyle = ink("--muted");
      ctx.font = `${10.5 * px}px system-ui, sans-serif`;
      ctx.lineWidth = px;
      ctx.textBaseline = "top";
      ctx.textAlign = "left";
      [...new Set(starts)].sort((a, b) => a - b).forEach((epoch, i) => {
        const x = Math.round(u.valToPos(epoch, "x", true));
        if (x < bbox.left || x > bbox.left + bbox.width) return;
        ctx.setLineDash([4 * px, 3 * px]);
        ctx.beginPath();
        ctx.moveTo(x, bbox.top);
        ctx.lineTo(x, bbox.top + bbox.height);
        ctx.stroke();
        const text = `outer phase from ${epoch}`;
        const { width } = ctx.measureText(text);
        const right = x + 4 * px;
        const left = Math.max(bbox.left, x - 4 * px - width);
        ctx.fillText(text, right + width < bbox.left + bbox.width ? right : left, bbox.top + (2 + 13 * i) * px);
      });
      ctx.restore();
    }

    read() {
      const i = this.plot.cursor.idx;
      this.readout.hidden = !this.active || i === null || i === undefined || this.plot.cursor.left < 0;
      if (this.readout.hidden) return;
      const known = this.panel.curves.filter((c) => this.shown.has(c.method) && c.mean[i] !== null);
      known.sort((a, b) => b.mean[i] - a.mean[i]);
      const n = Math.max(...known.map((curve) => curve.n));
      const rows = known.map((curve) => {
        const digits = decimals(curve.mean[i]);
        const std = curve.std[i] === null ? "" : ` ± ${written(curve.std[i], digits)}`;
        const fewer = curve.n === n ? "" : ` (n = ${curve.n})`;
        const name = make("th", "", this.methods[curve.method].name);
        name.scope = "row";
        const value = make("td", "", written(curve.mean[i], digits) + std + fewer);
        return make("tr", "", make("td", "", this.line(curve)), name, value);
      });
      this.readout.replaceChildren(
        make("b", "", `epoch ${this.panel.epochs[i]}`), known.length ? `, n = ${n}` : "",
        make("table", "", make("tbody", "", ...rows)),
      );
      // Below the chart, or above it at the end of the window.
      const place = this.element.getBoundingClientRect();
      const height = this.readout.offsetHeight;
      const over = place.bottom + height > innerHeight && place.top > height;
      this.readout.style.top = over ? "auto" : "calc(100% + 2px)";
      this.readout.style.bottom = over ? "calc(100% + 2px)" : "auto";
    }

    line(curve) {
      const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
      const set = (element, values) => Object.entries(values).forEach(([key, value]) => element.setAttribute(key, value));
      set(svg, { width: 20, height: 8, "aria-hidden": "true" });
      set(line, { x1: 0, x2: 20, y1: 4, y2: 4, stroke: this.colour(curve), "stroke-width": 2 });
      set(line, { "stroke-dasharray": dashes(this.methods[curve.method], 2).join(" ") || "none" });
      svg.append(line);
      return svg;
    }

    key(event) {
      const last = this.panel.epochs.length - 1;
      const at = this.plot?.cursor.idx ?? 0;
      const to = { ArrowLeft: at - 1, ArrowRight: at + 1, PageDown: at - 10, PageUp: at + 10, Home: 0, End: last }[event.key];
      if (event.key === "Escape") this.leave();
      if (to === undefined || !this.plot) return;
      event.preventDefault();
      this.active = true;
      const epoch = this.panel.epochs[Math.min(last, Math.max(0, to))];
      this.plot.setCursor({ left: this.plot.valToPos(epoch, "x"), top: 10 }, true, true);
    }

    leave() {
      this.active = false;
      this.readout.hidden = true;
    }
  }

  class Curves {
    constructor(root) {
      this.root = root;
      this.data = JSON.parse(root.querySelector("script").textContent);
      this.boxes = [...root.querySelectorAll(".methods input")];
      this.shown = new Set();
      this.charts = [];
      root.hidden = false;
      this.inView = new IntersectionObserver((entries) => {
        for (const entry of entries) {
          if (!entry.isIntersecting) continue;
          this.inView.unobserve(entry.target);
          this.charts.find((chart) => chart.element === entry.target)?.draw();
        }
      }, { rootMargin: "300px" });
      this.sizes = new ResizeObserver(() => this.charts.forEach((chart) => chart.resize()));
      this.sizes.observe(root.querySelector(".panels"));
      for (const box of this.boxes) box.addEventListener("change", () => this.choose());
      for (const button of root.querySelectorAll("[data-shown]")) {
        button.addEventListener("click", () => {
          for (const box of this.boxes) if (!box.disabled) box.checked = button.dataset.shown === "all";
          this.choose();
        });
      }
      const select = root.querySelector("select");
      select?.addEventListener("change", () => this.open(Number(select.value)));
      this.open(Number(select?.value ?? 0));
    }

    open(number) {
      for (const chart of this.charts) chart.plot?.destroy();
      this.inView.disconnect();
      const { panels } = this.data.groups[number];
      const there = new Set(panels.flatMap((panel) => panel.curves.map((curve) => curve.method)));
      for (const box of this.boxes) {
        box.disabled = !there.has(Number(box.value));
        box.closest("label").hidden = box.disabled;
      }
      this.take();
      const sync = `${this.root.id}-${number}`;
      this.charts = panels.map((panel) => new Chart(panel, this.data.methods, this.shown, sync));
      this.root.querySelector(".panels").replaceChildren(...this.charts.map((chart) => chart.element));
      for (const chart of this.charts) this.inView.observe(chart.element);
    }

    take() {
      this.shown.clear();
      for (const box of this.boxes) if (box.checked) this.shown.add(Number(box.value));
    }

    choose() {
      this.take();
      for (const chart of this.charts) chart.update();
    }

    redraw(every) {
      for (const chart of this.charts) if (every || chart.plot) chart.draw();
    }
  }

  const all = [...document.querySelectorAll(".curves")].map((root) => new Curves(root));
  dark.addEventListener("change", () => all.forEach((curves) => curves.redraw(false)));
  // For printing, draw all charts in light mode.
  addEventListener("beforeprint", () => {
    printing = true;
    all.forEach((curves) => curves.redraw(true));
  });
  addEventListener("afterprint", () => {
    printing = false;
    all.forEach((curves) => curves.redraw(true));
  });
})();
