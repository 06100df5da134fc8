// A line chart in SVG, drawn at the size that it has on the screen, so that its text keeps its size.

const SVG = "http://www.w3.org/2000/svg";

function svg(name, attributes = {}, parent = null, text = null) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== null) node.textContent = text;
  if (parent) parent.append(node);
  return node;
}

function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

const MINUS = "\u2212";

// A number with as many decimals as its unit asks for: `step` is the smallest difference worth showing.
function number(value, step) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const decimals = Math.max(0, Math.min(6, Math.ceil(-Math.log10(step))));
  const text = Math.abs(value).toFixed(decimals);
  return (value < 0 && Number(text) !== 0 ? MINUS : "") + text;
}

// Round tick positions that cover lowest … highest.
function ticks(lowest, highest, wanted) {
  const span = highest - lowest || Math.abs(highest) || 1;
  const raw = span / Math.max(1, wanted);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
  const found = [];
  for (let i = Math.ceil(lowest / step - 1e-9); i * step <= highest + step * 1e-9; i += 1) found.push(i * step);
  return { step, values: found };
}

function extent(series, bands) {
  let lowest = Infinity;
  let highest = -Infinity;
  for (const one of series) {
    for (const values of bands && one.low ? [one.values, one.low, one.high] : [one.values]) {
      for (const value of values) {
        if (value === null) continue;
        if (value < lowest) lowest = value;
        if (value > highest) highest = value;
      }
    }
  }
  return lowest > highest ? [0, 1] : [lowest, highest];
}

class LineChart {
  // options: height(width), yLabel, xLabel, zero (whether 0 is in the picture), endLabels (their width), onStep(step)
  constructor(host, options) {
    this.host = host;
    this.options = options;
    this.series = [];
    this.step = 0;
    this.bands = true;
    this.root = svg("svg", { "aria-hidden": "true", focusable: "false", class: "chart" });
    host.append(this.root);
    const at = (event) => {
      if (!this.x || !this.options.onStep) return;
      const box = this.root.getBoundingClientRect();
      const step = Math.round(((event.clientX - box.left - this.left) / this.plotWidth) * this.last);
      this.options.onStep(Math.max(0, Math.min(this.last, step)));
    };
    this.root.addEventListener("pointermove", (event) => {
      if (event.pointerType === "mouse" ? !this.options.drag || event.buttons : event.buttons) at(event);
    });
    this.root.addEventListener("pointerdown", at);
    this.width = 0;
    new ResizeObserver(() => {
      if (Math.abs(host.clientWidth - this.width) >= 1) this.draw();
    }).observe(host);
  }

  set(series, { bands = this.bands, yLabel = this.options.yLabel } = {}) {
    this.series = series;
    this.bands = bands;
    this.options.yLabel = yLabel;
    this.draw();
  }

  setStep(step) {
    this.step = step;
    this.drawMarker();
  }

  draw() {
    const width = this.host.clientWidth;
    this.width = width;
    if (!width) return;
    const height = this.options.height(width);
    const wide = width >= 620 && this.options.endLabels;
    const small = width < 480;
    this.last = Math.max(1, ...this.series.map((one) => one.values.length - 1));
    let [lowest, highest] = extent(this.series, this.bands);
    if (this.options.zero) [lowest, highest] = [Math.min(0, lowest), Math.max(0, highest)];
    const pad = (highest - lowest || 1) * 0.04;
    lowest -= lowest === 0 ? 0 : pad;
    highest += pad;
    const grid = ticks(lowest, highest, height / 56);
    this.unit = grid.step / 100;
    const longest = Math.max(...grid.values.map((value) => number(value, grid.step).length), 1);
    this.left = 14 + longest * 7;
    const right = wide ? this.options.endLabels : 12;
    const top = 26;
    const bottom = small ? 40 : 44;
    this.plotWidth = Math.max(40, width - this.left - right);
    const plotHeight = height - top - bottom;
    this.x = (step) => this.left + (step / this.last) * this.plotWidth;
    this.y = (value) => top + (1 - (value - lowest) / (highest - lowest)) * plotHeight;
    this.top = top;
    this.base = top + plotHeight;

    const root = this.root;
    root.replaceChildren();
    root.setAttribute("width", width);
    root.setAttribute("height", height);
    root.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg("text", { x: 0, y: 12, class: "axis-title" }, root, this.options.yLabel || "");
    for (const value of grid.values) {
      const y = Math.round(this.y(value)) + 0.5;
      const zero = Math.abs(value) < grid.step * 1e-6;
      svg("line", { x1: this.left, x2: this.left + this.plotWidth, y1: y, y2: y, class: zero ? "zero" : "grid" }, root);
      svg("text", { x: this.left - 8, y: y + 4, class: "tick end" }, root, number(value, grid.step));
    }
    for (const step of ticks(0, this.last, Math.min(10, this.plotWidth / 64)).values) {
      if (!Number.isInteger(step)) continue;
      svg("text", { x: this.x(step), y: this.base + 19, class: "tick middle" }, root, String(step));
    }
    const xLabel = { x: this.left + this.plotWidth, y: this.base + 37, class: "axis-title end" };
    svg("text", xLabel, root, this.options.xLabel);
    for (const one of this.series) if (this.bands && one.low) this.drawBand(one);
    for (const one of this.series) this.drawLine(one);
    if (wide) this.drawEndLabels();
    this.marker = svg("g", { class: "marker" }, root);
    this.drawMarker();
    this.emphasise(this.chosen ?? null);
  }

  path(values) {
    let path = "";
    let pen = "M";
    values.forEach((value, step) => {
      if (value === null) {
        pen = "M";
      } else {
        path += `${pen}${this.x(step).toFixed(1)} ${this.y(value).toFixed(1)}`;
        pen = "L";
      }
    });
    return path;
  }

  drawBand(one) {
    const steps = one.low.map((_, step) => step).filter((step) => one.low[step] !== null && one.high[step] !== null);
    if (!steps.length) return;
    const point = (step, values) => `${this.x(step).toFixed(1)} ${this.y(values[step]).toFixed(1)}`;
    const there = steps.map((step) => point(step, one.high));
    const back = [...steps].reverse().map((step) => point(step, one.low));
    const band = svg("path", { d: `M${[...there, ...back].join("L")}Z`, class: "band" }, this.root);
    band.style.setProperty("--hue", one.hue);
    if (one.id !== undefined) band.dataset.method = one.id;
  }

  drawLine(one) {
    const line = svg("path", { d: this.path(one.values), class: one.faint ? "line faint" : "line" }, this.root);
    line.style.setProperty("--hue", one.hue);
    if (one.dash) line.setAttribute("stroke-dasharray", one.dash);
    if (one.id !== undefined) line.dataset.method = one.id;
  }

  // Labels at the line ends, pushed apart until none covers another.
  drawEndLabels() {
    const gap = 17;
    const labels = this.series
      .map((one) => ({ one, end: one.values.findLastIndex((value) => value !== null) }))
      .filter(({ end }) => end >= 0)
      .map(({ one, end }) => ({ one, from: this.y(one.values[end]), x: this.x(end) }))
      .sort((a, b) => a.from - b.from);
    labels.forEach((label, i) => {
      label.y = Math.max(label.from, i ? labels[i - 1].y + gap : this.top);
    });
    for (let i = labels.length - 1; i >= 0; i -= 1) {
      const ceiling = i + 1 < labels.length ? labels[i + 1].y - gap : this.base;
      labels[i].y = Math.min(labels[i].y, Math.max(ceiling, this.top));
    }
    for (const { one, from, x, y } of labels) {
      const tie = svg("path", { d: `M${x + 4} ${from}L${x + 14} ${y}`, class: "tie" }, this.root);
      tie.style.setProperty("--hue", one.hue);
      if (one.id !== undefined) tie.dataset.method = one.id;
      const room = Math.floor((this.options.endLabels - 20) / 7.5);
      const text = one.label.length > room ? `${one.label.slice(0, room - 1)}…` : one.label;
      const label = svg("text", { x: x + 18, y: y + 4, class: "end-label" }, this.root, text);
      label.style.setProperty("--hue", one.hue);
      if (one.id !== undefined) label.dataset.method = one.id;
    }
  }

  // Draw one method strongly and the others faintly; null shows all alike.
  emphasise(id) {
    this.chosen = id;
    this.root.classList.toggle("one", this.series.some((one) => one.id === id));
    for (const node of this.root.querySelectorAll("[data-method]")) {
      node.classList.toggle("chosen", node.dataset.method === id);
    }
  }

  drawMarker() {
    if (!this.marker) return;
    this.marker.replaceChildren();
    const step = Math.min(this.step, this.last);
    const x = this.x(step);
    svg("line", { x1: x, x2: x, y1: this.top, y2: this.base, class: "cross" }, this.marker);
    for (const one of this.series) {
      const value = one.values[step];
      if (value === null || value === undefined || one.faint) continue;
      const dot = svg("circle", { cx: x, cy: this.y(value), r: 4.5, class: "dot" }, this.marker);
      dot.style.setProperty("--hue", one.hue);
      if (one.id !== undefined) dot.dataset.method = one.id;
      dot.classList.toggle("chosen", one.id === this.chosen);
    }
  }
}
