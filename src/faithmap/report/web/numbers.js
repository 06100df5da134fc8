// Numbers, ticks, places of labels: functions without a page, so that node can test them.

const MINUS = "\u2212";

/**
 * A number with as many decimals as its unit asks for.
 * @param {number | null | undefined} value
 * @param {number} step the smallest difference worth showing
 * @returns {string}
 */
function number(value, step) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const decimals = Math.max(0, Math.min(6, Math.ceil(-Math.log10(step) - 1e-9)));
  const text = Math.abs(value).toFixed(decimals);
  return (value < 0 && Number(text) !== 0 ? MINUS : "") + text;
}

/**
 * A number that always has its sign.
 * @param {number} value
 * @param {number} step
 */
function signed(value, step) {
  const text = number(value, step);
  return text.startsWith(MINUS) || Number(text) === 0 ? text : `+${text}`;
}

/**
 * How far a number rose, as the difference of the two numbers that are shown.
 * @param {number} from
 * @param {number} to
 * @param {number} step
 */
function difference(from, to, step) {
  /** @param {number} value */
  const shown = (value) => Number(number(value, step).replace(MINUS, "-"));
  return signed(shown(to) - shown(from), step);
}

/**
 * A score that is there: the one that is asked for, or the only one of a network without a probability.
 * @param {Score} score
 * @param {Partial<Record<Score, unknown>> | undefined} found
 * @returns {Score}
 */
function shownOf(score, found) {
  return !found || score in found ? score : /** @type {Score} */ (Object.keys(found)[0]);
}

/**
 * A probability as people say it: 27 %, 0.4 %, under 0.1 %.
 * @param {number | null} probability
 */
function percent(probability) {
  if (probability === null || !Number.isFinite(probability)) return "–";
  const hundred = probability * 100;
  if (hundred !== 0 && hundred < 0.1) return "under 0.1\u00a0%";
  const nearlyAll = hundred > 99 && hundred < 100;
  return `${hundred.toFixed(hundred < 9.95 || nearlyAll ? 1 : 0)}\u00a0%`;
}

/**
 * Round tick positions that cover lowest … highest.
 * @param {number} lowest
 * @param {number} highest
 * @param {number} wanted
 */
function ticks(lowest, highest, wanted) {
  const span = highest - lowest || Math.abs(highest) || 1;
  const raw = span / Math.max(1, wanted);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999) ?? 10 * power;
  const values = [];
  for (let i = Math.ceil(lowest / step - 1e-9); i * step <= highest + step * 1e-9; i += 1) values.push(i * step);
  return { step, values: values.length ? values : [lowest] };
}

/**
 * The lowest and the highest value of lines and, where they are drawn, of their bands.
 * @param {{values: Values, low?: Values, high?: Values, band?: boolean}[]} series
 * @returns {[number, number]}
 */
function extent(series) {
  let lowest = Infinity;
  let highest = -Infinity;
  for (const one of series) {
    for (const values of one.band && one.low && one.high ? [one.values, one.low, one.high] : [one.values]) {
      for (const value of values) {
        if (value === null) continue;
        lowest = Math.min(lowest, value);
        highest = Math.max(highest, value);
      }
    }
  }
  return lowest > highest ? [0, 1] : [lowest, highest];
}

/**
 * Places moved apart to at least a gap, in their order, within top … base as far as they fit.
 * @param {number[]} places in ascending order
 * @param {number} gap
 * @param {number} top
 * @param {number} base
 */
function spread(places, gap, top, base) {
  /** @type {number[]} */
  const moved = [];
  places.forEach((place, i) => moved.push(Math.max(place, i ? moved[i - 1] + gap : top)));
  for (let i = moved.length - 1; i >= 0; i -= 1) {
    const ceiling = i + 1 < moved.length ? moved[i + 1] - gap : base;
    moved[i] = Math.min(moved[i], Math.max(ceiling, top));
  }
  return moved;
}

/**
 * At which of two curves' points they are farthest apart; the last one where they are never apart.
 * @param {Values | undefined} a
 * @param {Values | undefined} b
 */
function telling(a, b) {
  if (!a || !b) return Math.max(0, (a ?? b ?? [0]).length - 1);
  let best = -1;
  let widest = 0;
  a.forEach((value, at) => {
    const other = b[at];
    if (value === null || other === null || other === undefined) return;
    if (Math.abs(value - other) > widest) [best, widest] = [at, Math.abs(value - other)];
  });
  return best < 0 ? a.length - 1 : best;
}

/**
 * Half of the way of two curves that start together: the height halfway between the start and the farthest value that
 * either of them reaches, and the first point at which each is there (-1 for never).
 * @param {Values} a
 * @param {Values} b
 * @param {boolean} rises
 */
function halfway(a, b, rises) {
  const start = a[0] ?? b[0] ?? 0;
  const way = rises ? 1 : -1;
  const farthest = Math.max(0, ...[...a, ...b].map((value) => (value === null ? 0 : way * (value - start))));
  const height = start + (way * farthest) / 2;
  /** @param {Values} curve */
  const first = (curve) => curve.findIndex((value) => value !== null && way * (value - height) >= 0);
  return farthest > 0 ? { height, a: first(a), b: first(b) } : { height, a: -1, b: -1 };
}

/**
 * The order in which examples are shown: -1 and 1 put those first on which A and B is better, 0 the largest difference.
 * Examples without a difference come last.
 * @param {(number | null)[]} differences positive where A is better
 * @param {number} by
 */
function ordered(differences, by) {
  /** @param {number} value */
  const key = (value) => (by === 0 ? Math.abs(value) : -by * value);
  return [...differences.keys()].sort((i, j) => {
    const [a, b] = [differences[i], differences[j]];
    if (a === null || b === null) return Number(a === null) - Number(b === null) || i - j;
    return key(b) - key(a) || i - j;
  });
}
