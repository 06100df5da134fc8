// The flipbook: one image under two methods, step by step, and where their curves part.

const LETTERS = ["A", "B"];
const CARDS = 60;

class Flipbook {
  /**
   * @param {HTMLElement} root
   * @param {PageData} data
   */
  constructor(root, data) {
    this.root = root;
    this.data = data;
    this.book = data.flipbook;
    this.methods = Object.fromEntries(data.methods.map((method) => [method.id, method]));
    this.score = shownOf(data.score, this.book.wins);
    this.names = data.score_names;
    this.pair = [...this.book.pair];
    this.by = 0;
    this.at = 0;
    this.chosen = false; // whether the step was chosen by hand; if not, it follows where the curves part
    /** @type {Map<Example, Promise<Picture>>} */
    this.unpacked = new Map();
    /** @type {Picture | null} */
    this.picture = null;
    this.example = this.book.examples[0];
    /** @type {ReturnType<typeof setInterval> | undefined} */
    this.timer = undefined;
    this.slider = /** @type {HTMLInputElement} */ (this.part("step"));
    this.stepText = this.part("step-text");
    this.playButton = this.part("play");
    this.caption = this.part("caption");
    this.story = this.part("story");
    this.strip = root.querySelector('[data-part="strip"]');
    this.sides = ["a", "b"].map((side) => this.side(side));
    this.chart = new LineChart(this.part("chart"), data.points, {
      height: (width) => (width < 480 ? 230 : 300),
      zero: this.score === "probability",
      narrow: true,
      endLabels: 46,
      onStep: (at) => this.setStep(at),
      xLabel: data.x_label,
    });
    /** @type {Map<Example, {card: HTMLElement, input: HTMLInputElement, bar: HTMLElement, text: HTMLElement}>} */
    this.cards = new Map(); // those that were made so far
    /** @type {number[]} */
    this.waiting = []; // the examples that have no card in the strip yet, in its order
    this.largest = 1;
    this.listen();
    this.sortStrip();
    this.show(this.book.examples[this.order()[0]]);
  }

  /**
   * @param {string} name
   * @returns {HTMLElement}
   */
  part(name) {
    const found = this.root.querySelector(`[data-part="${name}"]`);
    if (!found) throw new Error(`the page lacks ${name}`);
    return /** @type {HTMLElement} */ (found);
  }

  /** @param {string} side */
  side(side) {
    const image = /** @type {HTMLCanvasElement} */ (this.part(`image-${side}`));
    const heatmap = /** @type {HTMLCanvasElement} */ (this.part(`heatmap-${side}`));
    /** @param {HTMLCanvasElement} canvas */
    const context = (canvas) =>
      /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
    return {
      select: /** @type {HTMLSelectElement} */ (this.part(`method-${side}`)),
      canvas: image,
      pixels: context(image),
      imageOutline: this.part(`image-outline-${side}`),
      heatmap,
      relevance: context(heatmap),
      heatmapOutline: this.part(`heatmap-outline-${side}`),
      readout: this.part(`readout-${side}`),
      note: this.part(`note-${side}`),
      drawn: false,
    };
  }

  listen() {
    this.slider.addEventListener("input", () => {
      this.stop();
      this.setStep(Number(this.slider.value));
    });
    this.playButton.addEventListener("click", () => (this.timer ? this.stop() : this.play()));
    this.part("back").addEventListener("click", () => this.nudge(-1));
    this.part("on").addEventListener("click", () => this.nudge(1));
    this.part("telling").addEventListener("click", () => this.tell());
    this.root.addEventListener("keydown", (event) => this.key(event));
    this.strip?.addEventListener("scroll", () => this.followStrip(), { passive: true });
    this.sides.forEach((side, i) => side.select.addEventListener("change", () => this.choose(i, side.select.value)));
    for (const input of this.inputs("flipbook-sort")) {
      input.addEventListener("change", () => {
        this.by = Number(input.value);
        this.sortStrip();
      });
    }
    for (const input of this.inputs("flipbook-score")) {
      input.addEventListener("change", () => this.setScore(/** @type {Score} */ (input.value)));
    }
  }

  /** @param {string} name */
  inputs(name) {
    return /** @type {NodeListOf<HTMLInputElement>} */ (this.root.querySelectorAll(`input[name="${name}"]`));
  }

  get step() {
    return this.data.points[this.at];
  }

  get last() {
    return this.data.points[this.data.points.length - 1];
  }

  /**
   * How differently the two methods do on an image: the difference of the measure that ranks them; positive where A is better.
   * @param {Example} example
   */
  disagreement(example) {
    const [a, b] = this.pair.map((method) => example.values[this.score][method]);
    return a === undefined || b === undefined ? null : this.data.sign * (a - b);
  }

  order() {
    return ordered(this.book.examples.map((example) => this.disagreement(example)), this.by);
  }

  /** @param {Example} example */
  card(example) {
    const known = this.cards.get(example);
    if (known) return known;
    const index = String(this.book.examples.indexOf(example));
    const input = el("input", { type: "radio", name: "flipbook-image", value: index, class: "visually-hidden" });
    const title = example.target_name ? `${example.image}: ${example.target_name}` : example.image;
    const picture = el("img", { src: example.thumbnail, alt: title, title, width: "84", height: "84" });
    if (example.file) picture.loading = "lazy";
    const bar = el("span", { class: "lead" });
    const text = el("span", { class: "lead-text" });
    input.checked = example === this.example;
    input.addEventListener("change", () => this.show(example));
    const made = { card: el("label", { class: "card" }, input, picture, bar, text), input, bar, text };
    this.cards.set(example, made);
    return made;
  }

  sortStrip() {
    this.part("wins").textContent = this.winsText();
    if (!this.strip) return;
    const focused = /** @type {HTMLElement | null} */ (document.activeElement);
    const sizes = this.book.examples.map((example) => Math.abs(this.disagreement(example) ?? 0));
    this.largest = Math.max(...sizes) || 1;
    this.waiting = this.order();
    this.strip.replaceChildren();
    this.strip.scrollLeft = 0;
    this.extendStrip();
    if (focused && this.strip.contains(focused)) focused.focus();
  }

  // Some more cards at the end of the strip: a thousand at once would delay what is seen first.
  extendStrip() {
    for (const index of this.waiting.splice(0, CARDS)) {
      const example = this.book.examples[index];
      const { card, bar, text } = this.card(example);
      const difference = this.disagreement(example);
      const side = (difference ?? 0) >= 0 ? 0 : 1;
      bar.style.setProperty("--hue", this.methods[this.pair[side]].hue);
      bar.style.setProperty("--share", String(Math.abs(difference ?? 0) / this.largest));
      text.textContent =
        difference === null ? "not measured" : `${LETTERS[side]} +${number(Math.abs(difference), this.largest / 50)}`;
      this.strip?.append(card);
    }
  }

  // Before the last card comes into sight, by scrolling or by the arrow keys.
  followStrip() {
    const strip = this.strip;
    if (strip && this.waiting.length && strip.scrollLeft + 3 * strip.clientWidth > strip.scrollWidth) this.extendStrip();
  }

  winsText() {
    const [a, b] = this.pair;
    const found = this.book.wins[this.score][a]?.[b];
    if (!found || a === b) return "";
    const other = this.book.wins[this.score][b][a];
    const even = found[1] - found[0] - other[0];
    return `A better on ${found[0]} of ${found[1]} images, B on ${other[0]}${even ? `, ${even} alike` : ""}`;
  }

  /**
   * @param {number} side
   * @param {string} method
   */
  choose(side, method) {
    this.pair[side] = method;
    this.sortStrip();
    this.draw();
  }

  // What the score is called; a score without a probability may be of no class.
  /** @param {Example} example */
  named(example) {
    const name = this.names[this.score] ?? this.score;
    return Object.keys(this.names).length > 1 ? `${name} of ${example.target_name}` : name;
  }

  /** @param {Score} score */
  setScore(score) {
    this.score = shownOf(score, this.book.wins);
    this.chart.options.zero = this.score === "probability";
    this.sortStrip();
    this.draw();
  }

  /** @param {Example} example */
  async show(example) {
    this.example = example;
    this.chosen = false;
    for (const [one, card] of this.cards) card.input.checked = one === example;
    const known = this.unpacked.get(example);
    const index = this.book.examples.indexOf(example);
    const wanted = known ?? detailsOf(example, index).then((details) => unpack(details, example, this.book.restores));
    this.unpacked.set(example, wanted);
    try {
      const picture = await wanted;
      if (this.example === example) {
        this.picture = picture;
        this.draw();
      }
    } catch (error) {
      this.unpacked.delete(example);
      this.story.textContent = `This image cannot be shown: ${error instanceof Error ? error.message : error}.`;
    }
  }

  /** @param {number} side */
  view(side) {
    return this.picture?.views[this.pair[side]];
  }

  /** @param {number} side */
  curve(side) {
    return this.picture?.curves[this.score][this.pair[side]];
  }

  // The step at which the two curves are farthest apart.
  tell() {
    this.stop();
    this.chosen = false;
    this.at = telling(this.curve(0), this.curve(1));
    this.drawStep();
  }

  // All that depends on the image, the methods, the score or the theme.
  draw() {
    if (!this.picture) return;
    const { example, picture } = this;
    const classes = example.target_name ? [`scored class: ${example.target_name}`] : [];
    if (example.predicted_name !== example.target_name) classes.push(`predicted: ${example.predicted_name}`);
    if (example.label_name) classes.push(`true class: ${example.label_name}`);
    this.caption.replaceChildren(el("strong", {}, example.image), ...classes.map((name) => ` · ${name}`));
    this.sides.forEach((side, i) => {
      side.select.value = this.pair[i];
      for (const canvas of [side.canvas, side.heatmap]) {
        canvas.width = picture.width;
        canvas.height = picture.height;
      }
      for (const outline of [side.imageOutline, side.heatmapOutline]) {
        outline.setAttribute("viewBox", `0 0 ${picture.width} ${picture.height}`);
      }
      const view = this.view(i);
      const method = this.methods[this.pair[i]];
      const random = view && !view.levels ? "A random order has no heatmap." : "";
      side.note.textContent = view ? random : "Not measured on this image; see what was skipped.";
      if (view) view.outlines ??= this.book.veil ? NO_OUTLINES : outlines(view.steps, picture.height, picture.width);
      else side.relevance.clearRect(0, 0, picture.width, picture.height);
      side.drawn = false;
      side.heatmap.setAttribute("aria-label", `Heatmap of ${example.image} by ${method.label}`);
      /** @type {HTMLElement} */ (side.select.closest(".side")).style.setProperty("--hue", method.hue);
    });
    const half = this.half();
    this.chart.set(this.lines(), { yLabel: this.named(example), notes: half.notes });
    this.story.textContent = half.text;
    if (this.chosen) this.drawStep();
    else this.tell();
  }

  // "Half of the fall: A at step 12, B at step 41", in words and as marks of the chart.
  half() {
    const [a, b] = [this.curve(0), this.curve(1)];
    if (!a || !b) return { text: "", notes: [] };
    const { restores } = this.book;
    const found = halfway(a, b, restores);
    /** @type {{at: number, height: number, hue: string, text: string}[]} */
    const notes = [];
    const said = [found.a, found.b].map((at, i) => {
      if (at < 0) return `${LETTERS[i]} not within ${this.last} steps`;
      const value = Number((i ? b : a)[at]);
      notes.push({ at, height: value, hue: this.methods[this.pair[i]].hue, text: LETTERS[i] });
      return `${LETTERS[i]} at step ${this.data.points[at]}`;
    });
    if (found.a < 0 && found.b < 0) return { text: `The score does not ${restores ? "rise" : "fall"}.`, notes };
    return { text: `Half of the ${restores ? "rise" : "fall"}: ${said.join(", ")}.`, notes };
  }

  /** @returns {Line[]} */
  lines() {
    const curves = this.picture?.curves[this.score] ?? {};
    const wanted = [...new Set([this.data.reference, ...this.pair])].filter((id) => id !== null && curves[id]);
    return wanted.map((id) => {
      const side = this.pair.indexOf(String(id));
      const method = this.methods[String(id)];
      return { ...method, values: curves[String(id)], faint: side < 0, end: side < 0 ? "" : LETTERS[side] };
    });
  }

  /** @param {number} at index of a scored step */
  setStep(at) {
    this.chosen = true;
    this.at = Math.max(0, Math.min(this.data.points.length - 1, at));
    this.drawStep();
  }

  /** @param {number} by */
  nudge(by) {
    this.stop();
    this.setStep(this.at + by);
  }

  drawStep() {
    const { step, picture, example } = this;
    if (!picture) return;
    const { restores, veil } = this.book;
    /** @type {string[]} */
    const said = [];
    this.sides.forEach((side, i) => {
      const view = this.view(i);
      const method = this.methods[this.pair[i]];
      const untouched = () => new ImageData(new Uint8ClampedArray(picture.rgba), picture.width, picture.height);
      side.pixels.putImageData(view ? perturb(picture, view, step, restores) : untouched(), 0, 0);
      if (view && (veil || !side.drawn)) {
        side.relevance.putImageData(heatmapImage(picture, view, currentTheme(), veil ? step : 0), 0, 0);
        side.drawn = true;
      }
      const past = view?.outlines?.all.slice(1, step + 1).join("") ?? "";
      const now = view?.outlines?.own[step] ?? "";
      side.heatmapOutline.querySelector(".past")?.setAttribute("d", past);
      for (const outline of [side.imageOutline, side.heatmapOutline]) {
        for (const path of outline.querySelectorAll(".now")) path.setAttribute("d", now);
      }
      const done = `${step} of ${this.last} regions ${restores ? "restored" : "removed"} in the order of ${method.label}`;
      side.canvas.setAttribute("aria-label", `${example.image}, ${view ? done : "untouched"}`);
      said.push(this.readout(side.readout, i));
    });
    this.slider.value = String(this.at);
    const words = said.filter((text) => text).join(", ");
    this.slider.setAttribute("aria-valuetext", `step ${step} of ${this.last}; ${this.names[this.score]}: ${words}`);
    this.stepText.textContent = `${step} of ${this.last}`;
    this.chart.setStep(this.at);
  }

  /**
   * What the network sees before and after: "stopwatch: 27 % → 4 %", or the logit and its difference.
   * @param {HTMLElement} place
   * @param {number} side
   */
  readout(place, side) {
    const curve = this.curve(side);
    place.replaceChildren();
    if (!curve) return "";
    const [start, value] = [curve[0], curve[this.at]];
    const probability = this.score === "probability";
    const shown = probability ? percent : (/** @type {number | null} */ v) => number(v, 0.01);
    const change = start !== null && value !== null && !probability ? ` (${difference(start, value, 0.01)})` : "";
    place.append(el("span", { class: "was" }, `${shown(start)} → `), el("b", {}, shown(value)), el("span", {}, change));
    return `${this.methods[this.pair[side]].label} ${shown(value)}`;
  }

  play() {
    const end = this.data.points.length - 1;
    if (this.at >= end) this.setStep(0);
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.playButton.setAttribute("aria-pressed", "true");
    this.playButton.setAttribute("aria-label", "Pause");
    const pace = Math.max(90, Math.min(400, 9000 / end));
    this.timer = setInterval(
      () => {
        this.setStep(this.at + 1);
        if (this.at >= end) this.stop();
      },
      calm ? 500 : pace,
    );
  }

  stop() {
    clearInterval(this.timer);
    this.timer = undefined;
    this.playButton.setAttribute("aria-pressed", "false");
    this.playButton.setAttribute("aria-label", "Play");
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const busy = event.target instanceof Element ? event.target.closest("select, button, input") : null;
    if (event.key === " " && (!busy || busy === this.slider)) {
      event.preventDefault();
      if (this.timer) this.stop();
      else this.play();
    } else if (!busy && (event.key === "ArrowLeft" || event.key === "ArrowRight")) {
      event.preventDefault();
      this.nudge((event.key === "ArrowRight" ? 1 : -1) * (event.shiftKey ? 10 : 1));
    }
  }
}
