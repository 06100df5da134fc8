// A line chart in SVG, drawn at the size that it has on the screen, so that its text keeps its size.

const SVG = "http://www.w3.org/2000/svg";

/**
 * @param {string} name
 * @param {Record<string, string | number>} attributes
 * @param {Element | null} parent
 * @param {string | null} text
 * @returns {SVGElement}
 */
function svg(name, attributes = {}, parent = null, text = null) {
  const node = /** @type {SVGElement} */ (document.createElementNS(SVG, name));
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, String(value));
  if (text !== null) node.textContent = text;
  if (parent) parent.append(node);
  return node;
}

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} name
 * @param {Record<string, string | null | undefined>} attributes
 * @param {(Node | string)[]} children
 * @returns {HTMLElementTagNameMap[K]}
 */
function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

/**
 * The line of a method as it stands in legends and tables.
 * @param {Method} method
 */
function swatch(method) {
  const node = svg("svg", { width: 32, height: 12, viewBox: "0 0 32 12", class: "swatch", "aria-hidden": "true" });
  const line = svg("path", { d: "M1 6H31", class: "line" }, node);
  if (method.dash) line.setAttribute("stroke-dasharray", method.dash);
  if (method.marker) svg("path", { d: method.marker, class: "mark", transform: "translate(16 6) scale(4.4)" }, node);
  return node;
}

/**
 * @typedef {object} ChartOptions
 * @property {(width: number) => number} height
 * @property {string} xLabel
 * @property {string} [yLabel]
 * @property {boolean} zero whether 0 is in the picture
 * @property {number} endLabels the width of the labels at the lines' ends
 * @property {boolean} [narrow] labels at the ends however narrow the chart is
 * @property {(at: number) => void} onStep called with the index of a point
 */

class LineChart {
  /**
   * @param {HTMLElement} host
   * @param {number[]} points the steps at which values are known
   * @param {ChartOptions} options
   */
  constructor(host, points, options) {
    this.host = host;
    this.points = points;
    this.options = options;
    /** @type {Line[]} */
    this.series = [];
    /** @type {{at: number, height: number, hue: string, text: string}[]} */
    this.notes = [];
    this.at = 0;
    /** @type {string | null} */
    this.chosen = null;
    this.last = Math.max(1, points[points.length - 1]);
    this.unit = 0.001;
    this.width = this.left = this.plotWidth = this.top = this.base = this.lowest = 0;
    this.highest = 1;
    this.root = svg("svg", { "aria-hidden": "true", focusable: "false", class: "chart" });
    this.marker = svg("g", { class: "marker" });
    host.append(this.root);
    /** @param {PointerEvent} event */
    const point = (event) => {
      if (!this.plotWidth) return;
      const box = this.root.getBoundingClientRect();
      const step = ((event.clientX - box.left - this.left) / this.plotWidth) * this.last;
      this.options.onStep(this.nearest(step));
    };
    this.root.addEventListener("pointermove", (event) => {
      if (event.pointerType === "mouse" || event.buttons) point(event);
    });
    this.root.addEventListener("pointerdown", point);
    new ResizeObserver(() => {
      if (Math.abs(host.clientWidth - this.width) >= 1) this.draw();
    }).observe(host);
  }

  /** @param {number} step */
  nearest(step) {
    let best = 0;
    this.points.forEach((point, at) => {
      if (Math.abs(point - step) < Math.abs(this.points[best] - step)) best = at;
    });
    return best;
  }

  /**
   * @param {Line[]} series
   * @param {{yLabel?: string, notes?: {at: number, height: number, hue: string, text: string}[]}} more
   */
  set(series, { yLabel = this.options.yLabel, notes = [] } = {}) {
    this.series = series;
    this.notes = notes;
    this.options.yLabel = yLabel;
    this.draw();
  }

  /**
   * @param {number[]} points
   * @param {string} xLabel
   */
  setPoints(points, xLabel) {
    this.points = points;
    this.last = Math.max(1, points[points.length - 1]);
    this.options.xLabel = xLabel;
  }

  /** @param {number} at */
  setStep(at) {
    this.at = at;
    this.drawMarker();
  }

  /** @param {number} at index of a point */
  x(at) {
    return this.left + (this.points[at] / this.last) * this.plotWidth;
  }

  /** @param {number} value */
  y(value) {
    return this.top + (1 - (value - this.lowest) / (this.highest - this.lowest)) * (this.base - this.top);
  }

  draw() {
    const width = this.host.clientWidth;
    this.width = width;
    if (!width) return;
    const height = this.options.height(width);
    const wide = this.options.narrow || (width >= 620 && this.options.endLabels > 0);
    this.scale(width, height, wide ? this.options.endLabels : 12);
    this.root.replaceChildren();
    for (const [name, value] of Object.entries({ width, height, viewBox: `0 0 ${width} ${height}` })) {
      this.root.setAttribute(name, String(value));
    }
    this.drawAxes(height);
    for (const one of this.series) if (one.band) this.drawBand(one);
    this.series.forEach((one, i) => this.drawLine(one, i));
    this.notes.forEach((note, i) => this.drawNote(note, this.notes.slice(0, i)));
    if (wide) this.drawEndLabels();
    this.marker = svg("g", { class: "marker" }, this.root);
    this.drawMarker();
    this.emphasise(this.chosen);
  }

  /**
   * @param {number} width
   * @param {number} height
   * @param {number} right
   */
  scale(width, height, right) {
    let [lowest, highest] = extent(this.series);
    if (this.options.zero) [lowest, highest] = [Math.min(0, lowest), Math.max(0, highest)];
    const pad = (highest - lowest || 1) * 0.04;
    this.lowest = lowest - (lowest === 0 ? 0 : pad);
    this.highest = highest + pad;
    const grid = ticks(this.lowest, this.highest, height / 56);
    this.unit = grid.step / 100;
    const longest = Math.max(...grid.values.map((value) => number(value, grid.step).length), 1);
    this.left = 14 + longest * 7;
    this.top = 26;
    this.plotWidth = Math.max(40, width - this.left - right);
    this.base = height - (width < 480 ? 40 : 44);
  }

  /** @param {number} height */
  drawAxes(height) {
    const root = this.root;
    const right = this.left + this.plotWidth;
    const grid = ticks(this.lowest, this.highest, height / 56);
    svg("text", { x: 0, y: 12, class: "axis-title" }, root, this.options.yLabel || "");
    for (const value of grid.values) {
      const y = Math.round(this.y(value)) + 0.5;
      const zero = Math.abs(value) < grid.step * 1e-6;
      svg("line", { x1: this.left, x2: right, y1: y, y2: y, class: zero ? "zero" : "grid" }, root);
      svg("text", { x: this.left - 8, y: y + 4, class: "tick end" }, root, number(value, grid.step));
    }
    for (const step of ticks(0, this.last, Math.min(10, this.plotWidth / 64)).values) {
      if (!Number.isInteger(step)) continue;
      const x = this.left + (step / this.last) * this.plotWidth;
      svg("text", { x, y: this.base + 19, class: "tick middle" }, root, String(step));
    }
    svg("text", { x: right, y: this.base + 37, class: "axis-title end" }, root, this.options.xLabel);
  }

  /** @param {Values} values */
  path(values) {
    let path = "";
    let pen = "M";
    values.forEach((value, at) => {
      if (value === null) {
        pen = "M";
      } else {
        path += `${pen}${this.x(at).toFixed(1)} ${this.y(value).toFixed(1)}`;
        pen = "L";
      }
    });
    return path;
  }

  /** @param {Line} one */
  drawBand(one) {
    const { low, high } = one;
    if (!low || !high) return;
    const there = [...low.keys()].filter((at) => low[at] !== null && high[at] !== null);
    if (!there.length) return;
    /** @param {Values} values */
    const side = (values) => there.map((at) => `${this.x(at).toFixed(1)} ${this.y(Number(values[at])).toFixed(1)}`);
    const d = `M${[...side(high), ...side(low).reverse()].join("L")}Z`;
    this.belongs(svg("path", { d, class: "band" }, this.root), one);
  }

  /**
   * @param {Line} one
   * @param {number} place among the lines: their markers stand at different steps
   */
  drawLine(one, place) {
    const kind = one.faint ? "line faint" : one.strong ? "line strong" : "line";
    const line = svg("path", { d: this.path(one.values), class: kind }, this.root);
    if (one.dash) line.setAttribute("stroke-dasharray", one.dash);
    this.belongs(line, one);
    if (!one.marker || one.faint) return;
    const every = Math.max(1, Math.floor(one.values.length / 5));
    for (let at = (place * Math.max(1, Math.floor(every / 3))) % every; at < one.values.length; at += every) {
      const value = one.values[at];
      if (value === null) continue;
      const transform = `translate(${this.x(at).toFixed(1)} ${this.y(value).toFixed(1)}) scale(${one.strong ? 5 : 4})`;
      this.belongs(svg("path", { d: one.marker, class: "mark", transform }, this.root), one);
    }
  }

  /**
   * @param {SVGElement} node
   * @param {Line} one
   */
  belongs(node, one) {
    node.style.setProperty("--hue", one.hue);
    node.dataset.method = one.id;
  }

  // Labels at the line ends, pushed apart until none covers another.
  drawEndLabels() {
    const labels = this.series
      .map((one) => ({ one, end: one.values.findLastIndex((value) => value !== null) }))
      .filter(({ one, end }) => end >= 0 && one.end !== "")
      .map(({ one, end }) => ({ one, from: this.y(Number(one.values[end])), x: this.x(end) }))
      .sort((a, b) => Math.round(a.from - b.from));
    const heights = spread(labels.map(({ from }) => from), 17, this.top, this.base);
    labels.forEach(({ one, from, x }, i) => {
      const y = heights[i];
      const name = one.end ?? one.label;
      this.belongs(svg("path", { d: `M${x + 4} ${from}L${x + 12} ${y}`, class: "tie" }, this.root), one);
      if (one.marker) {
        const transform = `translate(${x + 20} ${y}) scale(4.4)`;
        this.belongs(svg("path", { d: one.marker, class: "mark", transform }, this.root), one);
      }
      const room = Math.max(1, Math.floor((this.options.endLabels - 30) / 7.5));
      const text = name.length > room ? `${name.slice(0, room - 1)}…` : name;
      const kind = one.strong ? "end-label strong" : "end-label";
      this.belongs(svg("text", { x: x + 29, y: y + 4, class: kind }, this.root, text), one);
    });
  }

  /**
   * @param {{at: number, height: number, hue: string, text: string}} note
   * @param {{at: number}[]} before notes that are there already: a text close to one of theirs stands above it
   */
  drawNote({ at, height, hue, text }, before) {
    const above = before.filter((other) => Math.abs(this.x(other.at) - this.x(at)) < 16).length;
    const [x, y] = [this.x(at), this.y(height)];
    const line = svg("path", { d: `M${x.toFixed(1)} ${y.toFixed(1)}V${this.base}`, class: "note-line" }, this.root);
    line.style.setProperty("--hue", hue);
    const label = svg("text", { x: x + 4, y: this.base - 5 - 15 * above, class: "note-text" }, this.root, text);
    label.style.setProperty("--hue", hue);
  }

  /**
   * Draw one method strongly and the others faintly; null shows all alike.
   * @param {string | null} id
   */
  emphasise(id) {
    this.chosen = id;
    this.root.classList.toggle("one", this.series.some((one) => one.id === id));
    for (const node of /** @type {NodeListOf<SVGElement>} */ (this.root.querySelectorAll("[data-method]"))) {
      node.classList.toggle("chosen", node.dataset.method === id);
    }
  }

  drawMarker() {
    this.marker.replaceChildren();
    if (!this.plotWidth) return;
    const at = Math.min(this.at, this.points.length - 1);
    const x = this.x(at);
    svg("line", { x1: x, x2: x, y1: this.top, y2: this.base, class: "cross" }, this.marker);
    for (const one of this.series) {
      const value = one.values[at];
      if (value === null || value === undefined || one.faint) continue;
      const dot = svg("circle", { cx: x, cy: this.y(value), r: 4.5, class: "dot" }, this.marker);
      this.belongs(dot, one);
      dot.classList.toggle("chosen", one.id === this.chosen);
    }
  }
}
