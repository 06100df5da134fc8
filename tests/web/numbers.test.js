// The page's functions that need no page: run with `node --test tests/web/`.

const assert = require("node:assert/strict");
const { readFileSync } = require("node:fs");
const { join } = require("node:path");
const { test } = require("node:test");
const vm = require("node:vm");

const WEB = join(__dirname, "..", "..", "src", "faithmap", "report", "web");
const page = vm.createContext({});
for (const name of ["numbers.js", "pictures.js"]) vm.runInContext(readFileSync(join(WEB, name), "utf8"), page);
const { number, signed, difference, shownOf, percent, ticks, extent, spread, telling, halfway, ordered, outlines } = page;
// What comes out of the other context has other prototypes.
const plain = (value) => JSON.parse(JSON.stringify(value));

test("numbers have the decimals that their unit asks for", () => {
  assert.equal(number(1.2345, 0.01), "1.23");
  assert.equal(number(-1.5, 0.1), "−1.5");
  assert.equal(number(-0.001, 0.1), "0.0");
  assert.equal(number(12, 5), "12");
  assert.equal(number(null, 1), "–");
  assert.equal(number(NaN, 1), "–");
  assert.equal(number(0.5, 0.001), "0.500");
  assert.equal(signed(2.5, 0.1), "+2.5");
  assert.equal(signed(-2.5, 0.1), "−2.5");
  assert.equal(signed(0, 0.1), "0.0");
  // As a reader subtracts: 22.69 → 2.56, though the numbers themselves are 20.124 apart.
  assert.equal(difference(22.687, 2.563, 0.01), "−20.13");
  for (const [from, to] of [[22.685, 2.565], [1.005, 2.015], [-0.125, 0.375]]) {
    const shown = Number(number(to, 0.01).replace("−", "-")) - Number(number(from, 0.01).replace("−", "-"));
    assert.equal(difference(from, to, 0.01), signed(shown, 0.01));
  }
  assert.equal(difference(-1, 1.5, 0.1), "+2.5");
  assert.equal(difference(1, 1.004, 0.01), "0.00");
});

test("probabilities are told in per cent", () => {
  assert.equal(percent(0.274), "27\u00a0%");
  assert.equal(percent(0.0042), "0.4\u00a0%");
  assert.equal(percent(0.00001), "under 0.1\u00a0%");
  assert.equal(percent(0), "0.0\u00a0%");
  assert.equal(percent(0.9961), "99.6\u00a0%");
  assert.equal(percent(1), "100\u00a0%");
  assert.equal(percent(null), "–");
});

test("ticks are round and inside", () => {
  assert.deepEqual(plain(ticks(0, 10, 5)), { step: 2, values: [0, 2, 4, 6, 8, 10] });
  for (const [lowest, highest, wanted] of [[-0.013, 0.4, 5], [-3, 17, 7], [0, 1e-9, 4], [5, 5, 3], [-1e6, 2e6, 9]]) {
    const { step, values } = ticks(lowest, highest, wanted);
    assert.ok(values.length >= 1 && values.length <= wanted + 2, `${values}`);
    assert.match((step / 10 ** Math.floor(Math.log10(step) + 1e-9)).toFixed(6), /^(1|2|5|10)\.000000$/);
    for (const value of values) assert.ok(value >= lowest - step * 1e-6 && value <= highest + step * 1e-6);
  }
});

test("the extent counts bands only where they are drawn", () => {
  const one = { values: [1, null, 2], low: [-5, null, 0], high: [3, null, 9] };
  assert.deepEqual(plain(extent([one])), [1, 2]);
  assert.deepEqual(plain(extent([{ ...one, band: true }])), [-5, 9]);
  assert.deepEqual(plain(extent([{ values: [null] }])), [0, 1]);
});

test("labels are spread in their order, inside, and stay where there is room", () => {
  assert.deepEqual(plain(spread([10, 50, 90], 13, 0, 200)), [10, 50, 90]);
  let seed = 7;
  const random = () => (seed = (seed * 16807) % 2147483647) / 2147483647;
  for (let round = 0; round < 200; round += 1) {
    const places = Array.from({ length: 1 + Math.floor(random() * 9) }, () => random() * 200).sort((a, b) => a - b);
    const moved = spread(places, 17, 0, 200);
    moved.forEach((place, i) => {
      assert.ok(place >= -1e-9 && place <= 200 + 1e-9);
      if (i) assert.ok(place - moved[i - 1] >= 17 - 1e-9);
    });
  }
});

test("the telling step is where two curves are farthest apart", () => {
  assert.equal(telling([5, 4, 1, 2], [5, 5, 4, 2]), 2);
  assert.equal(telling([5, null, 1], [5, 9, 0]), 2);
  assert.equal(telling([5, 4, 3], [5, 4, 3]), 2);
  assert.equal(telling(undefined, [1, 2]), 1);
  assert.equal(telling(undefined, undefined), 0);
});

test("half of the fall is the same height for both", () => {
  assert.deepEqual(plain(halfway([10, 6, 2], [10, 9, 7], false)), { height: 6, a: 1, b: -1 });
  assert.deepEqual(plain(halfway([0, 1, 4], [0, 4, 4], true)), { height: 2, a: 2, b: 1 });
  assert.deepEqual(plain(halfway([1, 2], [1, 3], false)), { height: 1, a: -1, b: -1 });
});

test("examples are ordered by either direction, those without a value last", () => {
  const differences = [1, null, -3, 2];
  assert.deepEqual(plain(ordered(differences, 0)), [2, 3, 0, 1]);
  assert.deepEqual(plain(ordered(differences, -1)), [3, 0, 2, 1]);
  assert.deepEqual(plain(ordered(differences, 1)), [2, 0, 3, 1]);
});

test("one pixel has four edges", () => {
  const { all, own } = outlines([0, 0, 0, 0, 2, 0, 0, 0, 0], 3, 3);
  assert.equal(all[2].match(/[hv]1/g).length, 4);
  assert.equal(own[2], all[2]);
});

test("a network without a probability shows its only score whatever the switch says", () => {
  assert.equal(shownOf("probability", { logit: {}, probability: {} }), "probability");
  assert.equal(shownOf("probability", { logit: {} }), "logit");
  assert.equal(shownOf("probability", undefined), "probability");
});
