// What the page does: the theme, the score, the figure, sorting, copying.

/** @returns {"light" | "dark"} */
function currentTheme() {
  const chosen = document.documentElement.dataset.theme;
  if (chosen === "light" || chosen === "dark") return chosen;
  return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

/** @param {() => void} changed */
function themes(changed) {
  const root = document.documentElement;
  let kept = null;
  try {
    kept = localStorage.getItem("faithmap-theme");
  } catch {
    // Storage is not there in a sandboxed frame: the theme is then not remembered.
  }
  for (const input of /** @type {NodeListOf<HTMLInputElement>} */ (document.querySelectorAll('input[name="theme"]'))) {
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
  /**
   * @param {HTMLElement} root
   * @param {PageData} data
   */
  constructor(root, data) {
    this.root = root;
    this.data = data;
    this.score = data.score;
    this.against = "relative";
    this.bands = "best";
    this.at = this.first();
    /** @type {Set<string>} */
    this.hidden = new Set();
    /** @type {string | null} */
    this.pointed = null;
    this.plot = /** @type {HTMLElement} */ (root.querySelector('[data-part="plot"]'));
    this.legend = /** @type {HTMLElement} */ (root.querySelector('[data-part="legend"]'));
    this.stepText = /** @type {HTMLElement} */ (root.querySelector('[data-part="figure-step"]'));
    this.chart = new LineChart(this.plot, data.points, {
      height: (width) => Math.round(Math.max(280, Math.min(420, width * 0.5))),
      zero: true,
      endLabels: data.label_width,
      xLabel: data.x_label,
      onStep: (at) => this.setStep(at),
    });
    for (const input of /** @type {NodeListOf<HTMLInputElement>} */ (root.querySelectorAll('input[type="radio"]'))) {
      if (input.checked && input.name === "against") this.against = input.value;
      input.addEventListener("change", () => {
        if (input.name === "against") this.against = input.value;
        if (input.name === "bands") this.bands = input.value;
        this.draw();
      });
    }
    this.plot.addEventListener("keydown", (event) => this.key(event));
    this.rows = data.methods.map((method) => this.row(method));
    this.draw();
  }

  // Shows another run: its steps, curves and best method.
  /** @param {Shown} run */
  setRun(run) {
    Object.assign(this.data, run);
    this.chart.setPoints(run.points, run.x_label);
    if (!(this.against in run.views)) this.against = Object.keys(run.views)[0];
    this.plot.setAttribute("aria-valuemax", String(run.points[run.points.length - 1]));
    this.at = this.first();
    this.draw();
  }

  // The step that is shown first: the last one, or where the best curve is highest if all curves end in nothing.
  first() {
    const last = this.data.points.length - 1;
    const best = this.data.best[this.shownScore()];
    const mean = (best && this.curves()[best]?.mean) || [];
    const top = telling(mean, mean.map(() => 0));
    return mean.length && Math.abs(mean[last] ?? 0) < 0.05 * Math.abs(mean[top] ?? 0) ? top : last;
  }

  /** @param {Method} method */
  row(method) {
    const input = el("input", { type: "checkbox", name: "method", value: method.id });
    input.checked = true;
    input.addEventListener("change", () => {
      if (input.checked) this.hidden.delete(method.id);
      else this.hidden.add(method.id);
      this.draw();
    });
    const value = el("span", { class: "value" });
    const interval = el("span", { class: "interval" });
    const row = el("label", { class: "key" }, input, swatch(method), el("span", { class: "name" }, method.label), value, interval);
    row.style.setProperty("--hue", method.hue);
    row.addEventListener("pointerenter", () => this.point(method.id));
    row.addEventListener("pointerleave", () => this.point(null));
    input.addEventListener("focus", () => this.point(input.matches(":focus-visible") ? method.id : null));
    input.addEventListener("blur", () => this.point(null));
    const item = el("li", {}, row);
    this.legend.append(item);
    return { method, item, value, interval };
  }

  // Shows one method strongly, with its interval.
  /** @param {string | null} id */
  point(id) {
    if (this.pointed === id) return;
    this.pointed = id;
    this.chart.chosen = id;
    this.draw();
  }

  // The score of the switch, or the only one that the run has.
  shownScore() {
    return shownOf(this.score, this.data.curves);
  }

  curves() {
    return this.data.curves?.[this.shownScore()][this.against] ?? {};
  }

  /** @returns {Line[]} */
  series() {
    const curves = this.curves();
    const best = this.data.best[this.shownScore()];
    return this.data.methods
      .filter((method) => curves[method.id] && !this.hidden.has(method.id))
      .map((method) => ({
        ...method,
        ...curves[method.id],
        values: curves[method.id].mean,
        strong: method.id === best,
        band: this.bands === "all" || method.id === this.pointed || (this.bands === "best" && method.id === best),
      }));
  }

  draw() {
    this.chart.set(this.series(), { yLabel: `${this.data.views[this.against]}, ${this.data.score_names[this.shownScore()]}` });
    this.setStep(this.at);
  }

  /** @param {Score} score */
  setScore(score) {
    this.score = score;
    this.draw();
  }

  /** @param {number} at index of a scored step */
  setStep(at) {
    this.at = at;
    this.chart.setStep(at);
    const curves = this.curves();
    const unit = this.chart.unit;
    /** @type {[number, string][]} */
    const said = [];
    for (const { method, item, value, interval } of this.rows) {
      const curve = curves[method.id];
      item.hidden = !curve;
      if (!curve) continue;
      const [mean, low, high] = [curve.mean[at], curve.low[at], curve.high[at]];
      value.textContent = number(mean, unit);
      interval.textContent = low === null || high === null ? "" : `${number(low, unit)} … ${number(high, unit)}`;
      if (!this.hidden.has(method.id)) said.push([mean ?? 0, `${method.label} ${number(mean, unit)}`]);
    }
    said.sort((a, b) => b[0] - a[0]);
    const step = this.data.points[at];
    this.stepText.textContent = String(step);
    this.plot.setAttribute("aria-valuenow", String(step));
    this.plot.setAttribute("aria-valuetext", `step ${step}: ${said.map((pair) => pair[1]).join(", ")}`);
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const last = this.data.points.length - 1;
    const big = Math.max(1, Math.round(last / 10));
    /** @type {Record<string, number>} */
    const moves = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -big, PageUp: big };
    let at = null;
    if (event.key in moves) at = this.at + moves[event.key];
    if (event.key === "Home") at = 0;
    if (event.key === "End") at = last;
    if (at === null) return;
    event.preventDefault();
    this.setStep(Math.max(0, Math.min(last, at)));
  }
}

/**
 * Rows sort by the `data-value` of their cells: numbers as numbers, the rest by the alphabet; empty ones stay last.
 * @param {HTMLTableElement} table
 */
function sortable(table) {
  const body = table.tBodies[0];
  for (const header of /** @type {NodeListOf<HTMLTableCellElement>} */ (table.querySelectorAll("th[aria-sort]"))) {
    const column = header.cellIndex;
    header.querySelector("button")?.addEventListener("click", () => {
      const now = header.getAttribute("aria-sort");
      const down = now === "none" ? header.dataset.first === "descending" : now === "ascending";
      for (const other of table.querySelectorAll("th[aria-sort]")) other.setAttribute("aria-sort", "none");
      header.setAttribute("aria-sort", down ? "descending" : "ascending");
      /** @param {HTMLTableRowElement} row */
      const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent ?? "";
      const rows = [...body.rows].map((row, index) => ({ row, index, text: value(row) }));
      const numeric = rows.every(({ text }) => text === "" || Number.isFinite(Number(text)));
      /**
       * @param {{text: string}} a
       * @param {{text: string}} b
       */
      const compare = (a, b) => (numeric ? Number(a.text) - Number(b.text) : a.text.localeCompare(b.text));
      rows.sort(
        (a, b) =>
          Number(a.text === "") - Number(b.text === "") || (down ? compare(b, a) : compare(a, b)) || a.index - b.index,
      );
      body.append(...rows.map(({ row }) => row));
    });
  }
}

/** @param {HTMLElement} button */
async function copy(button) {
  const source = document.getElementById(button.dataset.copy ?? "");
  if (!source) return;
  let done = false;
  try {
    await navigator.clipboard.writeText(source.textContent ?? "");
    done = true;
  } catch {
    getSelection()?.selectAllChildren(source);
    done = document.execCommand("copy");
  }
  button.textContent = done ? "Copied" : "Press Ctrl+C";
  setTimeout(() => (button.textContent = "Copy"), 2000);
}

function start() {
  /** @type {PageData} */
  const data = JSON.parse(document.getElementById("data")?.textContent ?? "");
  const root = document.documentElement;
  root.dataset.score = data.score;
  const place = document.getElementById("figure");
  const leaves = document.getElementById("flipbook");
  const figure = place && data.curves ? new Figure(place, { ...data }) : null;
  const book = leaves && data.flipbook.examples.length ? new Flipbook(leaves, data) : null;
  const scores = /** @type {NodeListOf<HTMLInputElement>} */ (document.querySelectorAll('input[name="score"]'));
  for (const input of scores) {
    input.checked = input.value === data.score;
    input.addEventListener("change", () => {
      const score = /** @type {Score} */ (input.value);
      root.dataset.score = score;
      figure?.setScore(score);
      book?.setScore(score);
    });
  }
  document.getElementById("choice")?.addEventListener("change", (event) => {
    const key = /** @type {HTMLSelectElement} */ (event.target).value;
    for (const part of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-choice]"))) {
      part.hidden = part.dataset.choice !== key;
    }
    if (data.choices) figure?.setRun(data.choices[key]);
  });
  themes(() => book && book.draw());
  document.querySelectorAll("table.sortable").forEach((table) => sortable(/** @type {HTMLTableElement} */ (table)));
  for (const button of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("button[data-copy]"))) {
    button.addEventListener("click", () => copy(button));
  }
  addEventListener("beforeprint", () => book?.setStep(data.points.length - 1));
  root.classList.add("ready");
}

start();
