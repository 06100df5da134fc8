// x⁽ᵏ⁾ rebuilt from the picture, the removal steps and the fill; see packing.py for the bytes.

/** @param {string} base64 */
async function inflate(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i += 1) bytes[i] = text.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/**
 * @param {Uint8Array} differences
 * @param {number} height
 * @param {number} width
 */
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

/**
 * Outlines of all regions, as path pieces by the step at which they appear (`all`) and by their own region (`own`).
 * @param {ArrayLike<number>} steps
 * @param {number} height
 * @param {number} width
 * @returns {Outlines}
 */
function outlines(steps, height, width) {
  /** @type {(string | undefined)[]} */
  const all = [];
  /** @type {(string | undefined)[]} */
  const own = [];
  /**
   * @param {(string | undefined)[]} list
   * @param {number} step
   * @param {string} piece
   */
  const add = (list, step, piece) => {
    if (step) list[step] = (list[step] || "") + piece;
  };
  /**
   * @param {number} a
   * @param {number} b
   * @param {string} piece
   */
  const run = (a, b, piece) => {
    if (a === b) return;
    add(all, a && b ? Math.min(a, b) : a || b, piece);
    add(own, a, piece);
    add(own, b, piece);
  };
  /**
   * @param {number} y
   * @param {number} x
   */
  const at = (y, x) => (y < 0 || x < 0 || y >= height || x >= width ? 0 : steps[y * width + x]);
  /**
   * @param {number} lines
   * @param {number} length
   * @param {(line: number, i: number) => [number, number]} pair
   * @param {(line: number, start: number, length: number) => string} piece
   */
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

/**
 * @param {Details} details
 * @param {Example} example
 * @param {boolean} wholeFill
 * @returns {Promise<Picture>}
 */
async function unpack(details, example, wholeFill) {
  const { height, width } = example;
  const { methods, curves } = details;
  const [places, bytes] = await Promise.all(details.packed.split(".").map(inflate));
  const size = height * width;
  const rgba = readPicture(bytes, height, width);
  const low = places.subarray(0, methods.length * size);
  const high = places.subarray(methods.length * size);
  let place = 3 * size;
  const maps = bytes.subarray(place, (place += methods.length * size));
  /** @type {Record<string, View>} */
  const views = {};
  const union = new Uint16Array(size);
  methods.forEach((method, m) => {
    const steps = new Uint16Array(size);
    for (let i = 0; i < size; i += 1) {
      steps[i] = low[m * size + i] | (high[m * size + i] << 8);
      union[i] |= steps[i];
    }
    const heatmap = new Int8Array(maps.slice(m * size, (m + 1) * size).buffer);
    views[method.id] = { steps, heatmap, levels: method.levels, outlines: null, fill: bytes };
  });
  /** @param {Uint16Array} mask */
  const readFill = (mask) => {
    const fill = new Uint8Array(3 * size);
    for (let i = 0; i < size; i += 1) {
      if (wholeFill || mask[i]) for (let c = 0; c < 3; c += 1) fill[3 * i + c] = bytes[place++];
    }
    return fill;
  };
  if (details.shared_fill) {
    const fill = readFill(union);
    for (const view of Object.values(views)) view.fill = fill;
  } else {
    for (const method of methods) views[method.id].fill = readFill(views[method.id].steps);
  }
  return { rgba, views, height, width, curves };
}

/**
 * x⁽ᵏ⁾: regions up to step k are replaced by the fill; or, where regions are restored, all the others are.
 * @param {Picture} picture
 * @param {View} view
 * @param {number} step
 * @param {boolean} restores
 */
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

/**
 * @param {number[][]} scale
 * @param {number} place −1 … 1
 */
function colour(scale, place) {
  const along = (place + 1) * 2;
  const i = Math.min(3, Math.floor(along));
  return [0, 1, 2].map((c) => scale[i][c] + (scale[i + 1][c] - scale[i][c]) * (along - i));
}

/**
 * @param {Picture} picture
 * @param {View} view
 * @param {"light" | "dark"} theme
 * @param {number} veiledTo
 */
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

/** @type {Map<number, (details: Details) => void>} */
const awaited = new Map();

/**
 * Called by the script of an example that lies beside the page.
 * @param {number} index
 * @param {Details} details
 */
function faithmapExample(index, details) {
  awaited.get(index)?.(details);
}

/**
 * What is needed to show an example: out of the page, or out of a file beside it.
 * @param {Example} example
 * @param {number} index
 * @returns {Promise<Details>}
 */
function detailsOf(example, index) {
  if (example.blob) return Promise.resolve(JSON.parse(document.getElementById(example.blob)?.textContent ?? ""));
  return new Promise((resolve, reject) => {
    awaited.set(index, resolve);
    const script = el("script", { src: example.file });
    script.addEventListener("error", () => reject(new Error(`${example.file} is missing beside the page`)));
    document.head.append(script);
  });
}
