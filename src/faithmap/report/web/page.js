// What the page does: the theme, the figure, sorting, copying.

function currentTheme() {
  const chosen = document.documentElement.dataset.theme;
  if (chosen === "light" || chosen === "dark") return chosen;
  return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

function themes(changed) {
  const root = document.documentElement;
  let kept = null;
  try {
    kept = localStorage.getItem("faithmap-theme");
  } catch {
    // Storage is not there in a sandboxed frame: the theme is then not remembered.
  }
  for (const input of document.querySelectorAll('input[name="theme"]')) {
    input.checked = input.value === (kept || "auto");
    if (input.checked) root.dataset.theme = input.value;
    input.addEventListener("change", () => {
      root.dataset.theme = input.value;
      try {
        localStorage.setItem("faithmap-theme", input.value);
      } catch {
        // As above.
      }
      changed();
    });
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
}

class Figure {
  constructor(root, data) {
    this.root = root;
    this.data = data;
    this.score = data.score;
    this.against = "relative";
    this.bands = true;
    this.step = data.steps;
    this.hidden = new Set();
    this.plot = root.querySelector('[data-part="plot"]');
    this.legend = root.querySelector('[data-part="legend"]');
    this.stepText = root.querySelector('[data-part="figure-step"]');
    this.chart = new LineChart(this.plot, {
      height: (width) => Math.round(Math.max(280, Math.min(420, width * 0.5))),
      zero: true,
      endLabels: data.label_width,
      xLabel: data.x_label,
      onStep: (step) => this.setStep(step),
    });
    for (const input of root.querySelectorAll("input[name]")) {
      if (input.checked && input.name === "score") this.score = input.value;
      if (input.checked && input.name === "against") this.against = input.value;
      input.addEventListener("change", () => {
        if (input.name === "score") this.score = input.value;
        if (input.name === "against") this.against = input.value;
        if (input.name === "bands") this.bands = input.checked;
        this.draw();
      });
    }
    this.plot.addEventListener("keydown", (event) => this.key(event));
    this.buildLegend();
    this.draw();
  }

  buildLegend() {
    this.rows = this.data.methods.map((method) => {
      const input = el("input", { type: "checkbox", name: "method", value: method.id });
      input.checked = true;
      input.addEventListener("change", () => {
        if (input.checked) this.hidden.delete(method.id);
        else this.hidden.add(method.id);
        this.draw();
      });
      const swatch = svg("svg", { width: 30, height: 12, class: "swatch", "aria-hidden": "true" });
      const line = svg("path", { d: "M1 6H29", class: "line" }, swatch);
      if (method.dash) line.setAttribute("stroke-dasharray", method.dash);
      const value = el("span", { class: "value" });
      const interval = el("span", { class: "interval" });
      const row = el("label", { class: "key" }, input, swatch, el("span", { class: "name" }, method.label), value, interval);
      row.style.setProperty("--hue", method.hue);
      row.addEventListener("pointerenter", () => this.chart.emphasise(method.id));
      row.addEventListener("pointerleave", () => this.chart.emphasise(null));
      input.addEventListener("focus", () => this.chart.emphasise(input.matches(":focus-visible") ? method.id : null));
      input.addEventListener("blur", () => this.chart.emphasise(null));
      const item = el("li", {}, row);
      this.legend.append(item);
      return { method, item, value, interval };
    });
  }

  series() {
    const curves = this.data.curves[this.score][this.against];
    return this.data.methods
      .filter((method) => curves[method.id] && !this.hidden.has(method.id))
      .map((method) => ({ ...method, ...curves[method.id], values: curves[method.id].mean }));
  }

  draw() {
    const relative = this.against === "relative";
    const yLabel = `AOPC${relative ? " relative to random" : ""}, ${this.score}`;
    this.chart.set(this.series(), { bands: this.bands, yLabel });
    this.setStep(this.step);
  }

  setStep(step) {
    this.step = step;
    this.chart.setStep(step);
    const curves = this.data.curves[this.score][this.against];
    const unit = this.chart.unit || 0.001;
    const said = [];
    for (const { method, item, value, interval } of this.rows) {
      const curve = curves[method.id];
      item.hidden = !curve;
      if (!curve) continue;
      const [mean, low, high] = [curve.mean[step], curve.low[step], curve.high[step]];
      value.textContent = number(mean, unit);
      interval.textContent = low === null || high === null ? "" : `${number(low, unit)} … ${number(high, unit)}`;
      if (!this.hidden.has(method.id)) said.push([mean, `${method.label} ${number(mean, unit)}`]);
    }
    said.sort((a, b) => b[0] - a[0]);
    this.stepText.textContent = String(step);
    this.plot.setAttribute("aria-valuenow", String(step));
    this.plot.setAttribute("aria-valuetext", `step ${step}: ${said.map((pair) => pair[1]).join(", ")}`);
  }

  key(event) {
    const big = Math.max(1, Math.round(this.data.steps / 10));
    const moves = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -big, PageUp: big };
    let step = null;
    if (event.key in moves) step = this.step + moves[event.key];
    if (event.key === "Home") step = 0;
    if (event.key === "End") step = this.data.steps;
    if (step === null) return;
    event.preventDefault();
    this.setStep(Math.max(0, Math.min(this.data.steps, step)));
  }
}

// Rows sort by the `data-value` of their cells: numbers as numbers, the rest by the alphabet; empty ones stay last.
function sortable(table) {
  const body = table.tBodies[0];
  table.querySelectorAll("th[aria-sort]").forEach((header) => {
    const column = header.cellIndex;
    header.querySelector("button").addEventListener("click", () => {
      const down = header.getAttribute("aria-sort") === "none" ? header.dataset.first === "descending" : header.getAttribute("aria-sort") === "ascending";
      for (const other of table.querySelectorAll("th[aria-sort]")) other.setAttribute("aria-sort", "none");
      header.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const rows = [...body.rows].map((row, index) => ({ row, index, text: value(row) }));
      const numeric = rows.every(({ text }) => text === "" || Number.isFinite(Number(text)));
      const compare = (a, b) => (numeric ? Number(a.text) - Number(b.text) : a.text.localeCompare(b.text));
      rows.sort((a, b) => (a.text === "") - (b.text === "") || (down ? compare(b, a) : compare(a, b)) || a.index - b.index);
      body.append(...rows.map(({ row }) => row));
    });
  });
}

async function copy(button) {
  const source = document.getElementById(button.dataset.copy);
  let done = false;
  try {
    await navigator.clipboard.writeText(source.textContent);
    done = true;
  } catch {
    getSelection().selectAllChildren(source);
    done = document.execCommand("copy");
  }
  button.textContent = done ? "Copied" : "Press Ctrl+C";
  setTimeout(() => (button.textContent = "Copy"), 2000);
}

function start() {
  const data = JSON.parse(document.getElementById("data").textContent);
  const figure = document.getElementById("figure");
  const flipbook = document.getElementById("flipbook");
  const book = flipbook && data.flipbook ? new Flipbook(flipbook, data) : null;
  if (figure) new Figure(figure, data);
  themes(() => book && book.draw());
  if (book) book.draw();
  document.querySelectorAll("table.sortable").forEach(sortable);
  document.querySelectorAll("button[data-copy]").forEach((button) => button.addEventListener("click", () => copy(button)));
  document.documentElement.classList.add("ready");
}

start();
