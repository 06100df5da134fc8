// The flipbook: x⁽ᵏ⁾ rebuilt from the picture, the removal steps and the fill; see packing.py for the bytes.

async function inflate(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i += 1) bytes[i] = text.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function readPicture(differences, height, width) {
  const size = height * width;
  const planes = differences.slice(0, 3 * size);
  for (let plane = 0; plane < 3; plane += 1) {
    const start = plane * size;
    for (let y = 0; y < height; y += 1) {
      for (let x = 1; x < width; x += 1) planes[start + y * width + x] += planes[start + y * width + x - 1];
    }
    for (let i = width; i < size; i += 1) planes[start + i] += planes[start + i - width];
  }
  const rgba = new Uint8ClampedArray(4 * size);
  for (let i = 0; i < size; i += 1) {
    const green = planes[i];
    rgba[4 * i] = (planes[size + i] + green) & 255;
    rgba[4 * i + 1] = green;
    rgba[4 * i + 2] = (planes[2 * size + i] + green) & 255;
    rgba[4 * i + 3] = 255;
  }
  return rgba;
}

// Outlines of all regions, as path pieces by the step at which they appear (`all`) and by their own region (`own`).
function outlines(steps, height, width) {
  const all = [];
  const own = [];
  const add = (list, step, piece) => {
    if (step) list[step] = (list[step] || "") + piece;
  };
  const run = (a, b, piece) => {
    if (a === b) return;
    add(all, a && b ? Math.min(a, b) : a || b, piece);
    add(own, a, piece);
    add(own, b, piece);
  };
  const at = (y, x) => (y < 0 || x < 0 || y >= height || x >= width ? 0 : steps[y * width + x]);
  const scan = (lines, length, pair, piece) => {
    for (let line = 0; line <= lines; line += 1) {
      let start = 0;
      let [a, b] = pair(line, 0);
      for (let i = 1; i <= length; i += 1) {
        const [c, d] = i < length ? pair(line, i) : [-1, -1];
        if (c !== a || d !== b) {
          run(a, b, piece(line, start, i - start));
          [start, a, b] = [i, c, d];
        }
      }
    }
  };
  scan(height, width, (y, x) => [at(y - 1, x), at(y, x)], (y, x, length) => `M${x} ${y}h${length}`);
  scan(width, height, (x, y) => [at(y, x - 1), at(y, x)], (x, y, length) => `M${x} ${y}v${length}`);
  return { all, own };
}

// Single pixels are veiled instead.
const NO_OUTLINES = { all: [], own: [] };

async function unpack(packed, example, wholeFill) {
  const { height, width, methods } = example;
  const [places, bytes] = await Promise.all(packed.split(".").map(inflate));
  const size = height * width;
  const rgba = readPicture(bytes, height, width);
  const low = places.subarray(0, methods.length * size);
  const high = places.subarray(methods.length * size);
  let place = 3 * size;
  const maps = bytes.subarray(place, (place += methods.length * size));
  const views = {};
  const union = new Uint16Array(size);
  methods.forEach((method, m) => {
    const steps = new Uint16Array(size);
    for (let i = 0; i < size; i += 1) {
      steps[i] = low[m * size + i] | (high[m * size + i] << 8);
      union[i] |= steps[i];
    }
    const heatmap = new Int8Array(maps.slice(m * size, (m + 1) * size).buffer);
    views[method.id] = { steps, heatmap, levels: method.levels, outlines: null, fill: null };
  });
  const readFill = (mask) => {
    const fill = new Uint8Array(3 * size);
    for (let i = 0; i < size; i += 1) {
      if (wholeFill || mask[i]) for (let c = 0; c < 3; c += 1) fill[3 * i + c] = bytes[place++];
    }
    return fill;
  };
  if (example.shared_fill) {
    const fill = readFill(union);
    for (const view of Object.values(views)) view.fill = fill;
  } else {
    for (const method of methods) views[method.id].fill = readFill(views[method.id].steps);
  }
  return { rgba, views, height, width };
}

// x⁽ᵏ⁾: regions up to step k are replaced by the fill; or, where regions are restored, all the others are.
function perturb(picture, view, step, restores) {
  const pixels = new Uint8ClampedArray(picture.rgba);
  const { steps, fill } = view;
  for (let i = 0; i < steps.length; i += 1) {
    if ((steps[i] !== 0 && steps[i] <= step) !== restores) {
      pixels[4 * i] = fill[3 * i];
      pixels[4 * i + 1] = fill[3 * i + 1];
      pixels[4 * i + 2] = fill[3 * i + 2];
    }
  }
  return new ImageData(pixels, picture.width, picture.height);
}

// Diverging colours, zero in the middle: against the class (blue) … for it (red).
const SCALES = {
  light: [[11, 62, 120], [103, 160, 204], [248, 246, 241], [224, 122, 82], [134, 22, 18]],
  dark: [[150, 210, 255], [44, 110, 168], [26, 28, 31], [190, 78, 40], [255, 196, 140]],
};

function colour(scale, share) {
  const place = (share + 1) * 2;
  const i = Math.min(3, Math.floor(place));
  return [0, 1, 2].map((c) => scale[i][c] + (scale[i + 1][c] - scale[i][c]) * (place - i));
}

function heatmapImage(picture, view, theme, veiledTo) {
  const image = new ImageData(picture.width, picture.height);
  const levels = view.levels || 1;
  const table = [];
  for (let level = -levels; level <= levels; level += 1) table.push(colour(SCALES[theme], level / levels));
  for (let i = 0; i < view.heatmap.length; i += 1) {
    image.data.set(table[view.heatmap[i] + levels], 4 * i);
    image.data[4 * i + 3] = view.steps[i] && view.steps[i] <= veiledTo ? 60 : 255;
  }
  return image;
}

const percent = (share) => `${share > 0 ? "+" : share < 0 ? MINUS : ""}${Math.abs(share * 100).toFixed(0)} %`;

class Flipbook {
  constructor(root, data) {
    this.root = root;
    this.data = data;
    this.methods = Object.fromEntries(data.methods.map((method) => [method.id, method]));
    this.score = data.score;
    this.pair = [...data.flipbook.pair];
    this.step = 0;
    this.unpacked = new Map();
    const find = (name) => root.querySelector(`[data-part="${name}"]`);
    const find2d = (name) => find(name).getContext("2d", { willReadFrequently: true });
    this.slider = find("step");
    this.stepText = find("step-text");
    this.playButton = find("play");
    this.caption = find("caption");
    this.strip = find("strip");
    this.sides = ["a", "b"].map((side) => ({
      select: find(`method-${side}`),
      canvas: find(`image-${side}`),
      pixels: find2d(`image-${side}`),
      imageOutline: find(`image-outline-${side}`),
      heatmap: find(`heatmap-${side}`),
      relevance: find2d(`heatmap-${side}`),
      heatmapOutline: find(`heatmap-outline-${side}`),
      readout: find(`readout-${side}`),
      note: find(`note-${side}`),
    }));
    this.chart = new LineChart(find("chart"), {
      height: (width) => (width < 480 ? 230 : 260),
      zero: data.score === "probability",
      drag: false,
      onStep: (step) => this.setStep(step),
      endLabels: data.label_width,
      xLabel: data.x_label,
    });
    this.slider.addEventListener("input", () => {
      this.stop();
      this.setStep(Number(this.slider.value));
    });
    this.playButton.addEventListener("click", () => (this.timer ? this.stop() : this.play()));
    find("back").addEventListener("click", () => this.nudge(-1));
    find("on").addEventListener("click", () => this.nudge(1));
    root.addEventListener("keydown", (event) => this.key(event));
    this.sides.forEach((side, i) => side.select.addEventListener("change", () => this.choose(i, side.select.value)));
    for (const input of root.querySelectorAll('input[name="flipbook-score"]')) {
      input.addEventListener("change", () => this.setScore(input.value));
    }
    this.buildStrip();
    this.show(data.flipbook.examples[this.order()[0]]);
  }

  // How differently the two methods do on an image: the difference of their AOPC at the last step; positive where A is better.
  disagreement(example) {
    const [a, b] = this.pair.map((method) => example.aopc[this.score][method]);
    return a === undefined || b === undefined ? null : this.data.sign * (a - b);
  }

  order() {
    const size = this.data.flipbook.examples.map((example) => Math.abs(this.disagreement(example) ?? -1e-12));
    const missing = this.data.flipbook.examples.map((example) => this.disagreement(example) === null);
    return [...size.keys()].sort((i, j) => missing[i] - missing[j] || size[j] - size[i] || i - j);
  }

  buildStrip() {
    this.cards = this.data.flipbook.examples.map((example, index) => {
      const input = el("input", { type: "radio", name: "flipbook-image", value: String(index), class: "visually-hidden" });
      const title = `${example.image}: ${example.target_name}`;
      const picture = el("img", { src: example.thumbnail, alt: title, title, width: "84", height: "84" });
      const bar = el("span", { class: "lead" });
      const text = el("span", { class: "lead-text" });
      input.addEventListener("change", () => this.show(example));
      const card = el("label", { class: "card" }, input, picture, bar, text);
      return { card, input, bar, text, example };
    });
    this.sortStrip();
  }

  sortStrip() {
    if (!this.strip) return;
    const focused = document.activeElement;
    const order = this.order();
    const largest = Math.abs(this.disagreement(this.data.flipbook.examples[order[0]]) ?? 0) || 1;
    for (const index of order) {
      const { card, bar, text, example } = this.cards[index];
      const difference = this.disagreement(example);
      const winner = this.methods[this.pair[difference >= 0 ? 0 : 1]];
      bar.style.setProperty("--hue", winner.hue);
      bar.style.setProperty("--share", String(Math.abs(difference ?? 0) / largest));
      bar.dataset.side = difference >= 0 ? "a" : "b";
      text.textContent =
        difference === null ? "not measured" : `${difference >= 0 ? "A" : "B"} +${number(Math.abs(difference), largest / 50)}`;
      this.strip.append(card);
    }
    if (this.strip.contains(focused)) focused.focus();
    this.strip.scrollLeft = 0;
  }

  choose(side, method) {
    this.pair[side] = method;
    this.sortStrip();
    this.draw();
  }

  setScore(score) {
    this.score = score;
    this.chart.options.zero = score === "probability";
    this.sortStrip();
    this.draw();
  }

  async show(example) {
    this.example = example;
    for (const card of this.cards || []) card.input.checked = card.example === example;
    if (!this.unpacked.has(example)) {
      this.unpacked.set(example, unpack(document.getElementById(example.blob).textContent, example, this.data.flipbook.restores));
    }
    const picture = await this.unpacked.get(example);
    if (this.example === example) {
      this.picture = picture;
      this.draw();
    }
  }

  view(side) {
    return this.picture.views[this.pair[side]];
  }

  // All that depends on the image, the methods, the score or the theme.
  draw() {
    if (!this.picture) return;
    const { example, picture } = this;
    const classes = [`scored class: ${example.target_name}`];
    if (example.predicted_name !== example.target_name) classes.push(`predicted: ${example.predicted_name}`);
    if (example.label_name) classes.push(`true class: ${example.label_name}`);
    this.caption.replaceChildren(el("strong", {}, example.image), ` · ${classes.join(" · ")}`);
    this.sides.forEach((side, i) => {
      side.select.value = this.pair[i];
      const view = this.view(i);
      for (const canvas of [side.canvas, side.heatmap]) {
        canvas.width = picture.width;
        canvas.height = picture.height;
      }
      for (const outline of [side.imageOutline, side.heatmapOutline]) {
        outline.setAttribute("viewBox", `0 0 ${picture.width} ${picture.height}`);
      }
      const method = this.methods[this.pair[i]];
      side.note.textContent = !view
        ? "Not measured on this image; see what was skipped."
        : view.levels
          ? ""
          : "A random order has no heatmap.";
      if (view) view.outlines ??= this.data.flipbook.veil ? NO_OUTLINES : outlines(view.steps, picture.height, picture.width);
      else side.relevance.clearRect(0, 0, picture.width, picture.height);
      side.drawn = false;
      side.heatmap.setAttribute("aria-label", `Heatmap of ${example.image} by ${method.label}`);
      side.select.closest(".side").style.setProperty("--hue", method.hue);
    });
    this.chart.set(this.curves(), { bands: false, yLabel: `${this.score} of ${example.target_name}` });
    this.drawStep();
  }

  curves() {
    const curves = this.example.curves[this.score];
    const reference = this.data.reference;
    const wanted = [...new Set([reference, ...this.pair])].filter((method) => curves[method]);
    return wanted.map((method) => {
      const { label, hue, dash } = this.methods[method];
      return { id: method, label, hue, dash, values: curves[method], faint: !this.pair.includes(method) };
    });
  }

  setStep(step) {
    this.step = Math.max(0, Math.min(this.data.steps, step));
    this.drawStep();
  }

  nudge(by) {
    this.stop();
    this.setStep(this.step + by);
  }

  drawStep() {
    const { step, picture, example } = this;
    if (!picture) return;
    const { restores, veil } = this.data.flipbook;
    const said = [];
    this.sides.forEach((side, i) => {
      const view = this.view(i);
      const method = this.methods[this.pair[i]];
      const untouched = () => new ImageData(picture.rgba, picture.width, picture.height);
      side.pixels.putImageData(view ? perturb(picture, view, step, restores) : untouched(), 0, 0);
      if (view && (veil || !side.drawn)) {
        side.relevance.putImageData(heatmapImage(picture, view, currentTheme(), veil ? step : 0), 0, 0);
        side.drawn = true;
      }
      const past = view ? view.outlines.all.slice(1, step + 1).join("") : "";
      const now = view ? view.outlines.own[step] || "" : "";
      side.heatmapOutline.querySelector(".past").setAttribute("d", past);
      for (const outline of [side.imageOutline, side.heatmapOutline]) {
        for (const path of outline.querySelectorAll(".now")) path.setAttribute("d", now);
      }
      const what = view ? `${step} of ${this.data.steps} regions ${restores ? "restored" : "removed"} in the order of ${method.label}` : "untouched";
      side.canvas.setAttribute("aria-label", `${example.image}, ${what}`);
      const curve = example.curves[this.score][this.pair[i]];
      side.readout.replaceChildren();
      if (curve) {
        const [start, value] = [curve[0], curve[step]];
        const unit = this.score === "probability" ? 0.001 : 0.01;
        const change = start > 0 ? ` (${percent(value / start - 1)})` : "";
        side.readout.append(el("span", { class: "was" }, `${number(start, unit)} → `), el("b", {}, number(value, unit)), el("span", {}, change));
        said.push(`${method.label} ${number(value, unit)}`);
      }
    });
    this.slider.value = String(step);
    this.slider.setAttribute("aria-valuetext", `step ${step} of ${this.data.steps}; ${this.score}: ${said.join(", ")}`);
    this.stepText.textContent = `${step} of ${this.data.steps}`;
    this.chart.setStep(step);
  }

  play() {
    if (this.step >= this.data.steps) this.setStep(0);
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.playButton.setAttribute("aria-pressed", "true");
    this.playButton.setAttribute("aria-label", "Pause");
    this.timer = setInterval(
      () => {
        this.setStep(this.step + 1);
        if (this.step >= this.data.steps) this.stop();
      },
      calm ? 500 : 90,
    );
  }

  stop() {
    clearInterval(this.timer);
    this.timer = null;
    this.playButton.setAttribute("aria-pressed", "false");
    this.playButton.setAttribute("aria-label", "Play");
  }

  key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const busy = event.target.closest("select, button, input");
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
