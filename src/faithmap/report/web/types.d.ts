// What the page's data holds; written by report/page.py and report/flipbook.py.

type Values = (number | null)[];
type Score = "logit" | "probability";

interface Method {
  id: string;
  label: string;
  hue: string; // a CSS colour
  dash: string; // an SVG dash pattern
  marker: string; // an SVG path within -1 … 1, empty for none
}

interface Curve {
  mean: Values;
  low: Values;
  high: Values;
}

// One line of a chart; values stand at the chart's points.
interface Line extends Method {
  values: Values;
  low?: Values;
  high?: Values;
  band?: boolean; // whether its interval is drawn
  strong?: boolean;
  faint?: boolean;
  end?: string; // what stands at its end instead of the label
}

// What the strip of pictures needs of an example.
interface Example {
  image: string;
  label_name: string;
  predicted_name: string;
  target_name: string;
  height: number;
  width: number;
  thumbnail: string;
  values: Record<Score, Record<string, number>>;
  blob?: string; // id of the element that holds its details
  file?: string; // or the script that hands them over
}

interface Details {
  methods: { id: string; levels: number }[];
  shared_fill: boolean;
  curves: Record<Score, Record<string, Values>>;
  packed: string;
}

interface Outlines {
  all: (string | undefined)[];
  own: (string | undefined)[];
}

interface View {
  steps: Uint16Array;
  heatmap: Int8Array;
  levels: number;
  outlines: Outlines | null;
  fill: Uint8Array;
}

interface Picture {
  rgba: Uint8ClampedArray;
  views: Record<string, View>;
  height: number;
  width: number;
  curves: Record<Score, Record<string, Values>>;
}

interface Book {
  examples: Example[];
  pair: [string, string];
  wins: Record<Score, Record<string, Record<string, [number, number]>>>;
  draws: number;
  restores: boolean;
  veil: boolean;
}

// What the figure shows of a run.
interface Shown {
  best: Record<Score, string | null>;
  score_names: Partial<Record<Score, string>>; // one alone where there is no probability
  points: number[];
  views: Record<string, string>; // what the curves of each view are called
  x_label: string;
  curves?: Record<Score, Record<string, Record<string, Curve>>>;
}

interface PageData extends Shown {
  methods: Method[];
  reference: string | null;
  score: Score;
  sign: number;
  label_width: number;
  flipbook: Book;
  choices?: Record<string, Shown>; // of several runs
}
