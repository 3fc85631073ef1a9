// One chart over time: lines on axes with units, a summary in words, and the values as a table.

import { h, keyed, s, say } from "./dom.js";
import { GAP, SPAN } from "./history.js";

const HEIGHT = 168;
const EDGE = { left: 62, right: 12, top: 14, bottom: 24 };
const WINDOWS = [60, 120, SPAN]; // seconds; the first that holds what there is
const TABLE_ROWS = 10;

let made = 0;

/** The least of 1, 2, 2.5, 5 times a power of ten from which four steps reach `max`. */
export function niceStep(max, steps = 4) {
  const raw = Math.max(max, 1e-9) / steps;
  const power = 10 ** Math.floor(Math.log10(raw));
  return [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((step) => step >= raw * 0.9999);
}

/**
 * A chart of `history`'s values. `lines` names them (`{name, kind}`; kind is a class that sets
 * colour and dashes), `unit(n)` writes one, `least` is the smallest range of the axis.
 */
export class Chart {
  #history;
  #lines;
  #unit;
  #least;
  #width = 420;
  #pointer = null;
  #now = 0;

  constructor(parent, { title, history, lines, unit, axis, least }) {
    this.#history = history;
    this.#lines = lines;
    this.#unit = unit;
    this.axis = axis ?? unit;
    this.#least = least;
    const id = `chart-${(made += 1)}`;
    this.summary = h("p", { class: "summary", id: `${id}-summary` });
    this.current = h("p", { class: "current" });
    this.svg = s("svg", { height: HEIGHT, role: "img", "aria-labelledby": `${id} ${id}-summary` });
    this.grid = s("g", { class: "grid" });
    this.plot = s("g", { class: "plot" });
    this.cursor = s("g", { class: "cursor" });
    this.svg.append(this.grid, this.plot, this.cursor);
    this.table = h("tbody");
    const head = h("tr", {}, h("th", { scope: "col" }, "Seconds ago"));
    for (const line of lines) head.append(h("th", { scope: "col", class: "num" }, line.name));
    this.frame = h("div", { class: "frame" }, this.svg);
    this.details = h(
      "details",
      {},
      h("summary", {}, "Values"),
      h("table", { class: "values" }, h("caption", { class: "unseen" }, title),
        h("thead", {}, head), this.table),
    );
    const heading = h("h2", { id }, title);
    parent.append(
      h("section", { class: "card chart", "aria-labelledby": id },
        h("div", { class: "head" }, heading, this.current), this.frame, this.summary,
        this.details),
    );
    this.details.addEventListener("toggle", () => this.draw(this.#now));
    this.svg.addEventListener("pointermove", (event) => this.#point(event.offsetX));
    this.svg.addEventListener("pointerleave", () => this.#point(null));
    new ResizeObserver(([entry]) => {
      const width = Math.floor(entry.contentRect.width);
      if (width > 0 && width !== this.#width) {
        this.#width = width;
        this.draw(this.#now);
      }
    }).observe(this.frame);
  }

  /** Draw it as of `now`, in seconds. */
  draw(now) {
    this.#now = now;
    const runs = this.#history.runs();
    const all = runs.flat();
    const oldest = all.length ? now - all[0].at : 0;
    this.window = WINDOWS.find((span) => oldest <= span) ?? SPAN;
    const peak = Math.max(this.#least, ...all.flatMap((sample) => sample.values));
    this.step = niceStep(peak);
    this.top = this.step * Math.ceil(peak / this.step - 1e-9);
    this.svg.setAttribute("width", this.#width);
    this.svg.setAttribute("viewBox", `0 0 ${this.#width} ${HEIGHT}`);
    this.#drawGrid();
    this.#drawLines(runs.map((run) => run.filter((each) => now - each.at <= this.window)));
    this.#drawCursor();
    this.#drawWords(all);
  }

  #x(at) {
    const share = 1 - (this.#now - at) / this.window;
    return EDGE.left + share * (this.#width - EDGE.left - EDGE.right);
  }

  #y(value) {
    return HEIGHT - EDGE.bottom - (value / this.top) * (HEIGHT - EDGE.top - EDGE.bottom);
  }

  #drawGrid() {
    const right = this.#width - EDGE.right;
    const marks = [];
    for (let value = 0; value <= this.top * 1.0001; value += this.step) {
      const y = Math.round(this.#y(value)) + 0.5;
      marks.push(
        s("line", { x1: EDGE.left, x2: right, y1: y, y2: y, class: value ? "" : "base" }),
        s("text", { x: EDGE.left - 8, y: y + 4, "text-anchor": "end" }, this.axis(value)),
      );
    }
    const parts = this.#width < 380 ? 2 : this.window === SPAN ? 5 : 4;
    for (let part = 0; part <= parts; part += 1) {
      const back = this.window * (1 - part / parts);
      const words = back === 0 ? "now" : back >= 60 ? `−${back / 60} min` : `−${back} s`;
      const anchor = part === 0 ? "start" : part === parts ? "end" : "middle";
      const x = this.#x(this.#now - back);
      marks.push(s("text", { x, y: HEIGHT - 6, "text-anchor": anchor }, words));
    }
    this.grid.replaceChildren(...marks);
  }

  #drawLines(runs) {
    const shapes = [];
    for (const [index, { kind }] of this.#lines.entries()) {
      for (const run of runs.filter((each) => each.length)) {
        const points = run.map(
          ({ at, values }) => `${this.#x(at).toFixed(1)},${this.#y(values[index]).toFixed(1)}`,
        );
        if (run.length === 1) {
          const [cx, cy] = points[0].split(",");
          shapes.push(s("circle", { cx, cy, r: 2.5, class: `dot ${kind}` }));
          continue;
        }
        const first = this.#x(run[0].at).toFixed(1);
        const last = this.#x(run.at(-1).at).toFixed(1);
        const floor = this.#y(0).toFixed(1);
        if (index === 0) {
          const area = `M${first},${floor}L${points.join("L")}L${last},${floor}Z`;
          shapes.unshift(s("path", { d: area, class: `area ${kind}` }));
        }
        shapes.push(s("path", { d: `M${points.join("L")}`, class: `line ${kind}` }));
      }
    }
    this.plot.replaceChildren(...shapes);
  }

  #point(x) {
    this.#pointer = x;
    this.#drawCursor();
    this.#drawCurrent();
  }

  /** The sample under the pointer, or the last where it is of now. */
  #chosen() {
    const samples = this.#history.samples;
    const last = samples.at(-1);
    if (last === undefined) return undefined;
    if (this.#pointer === null) return this.#now - last.at > GAP ? undefined : last;
    const distance = (sample) => Math.abs(this.#x(sample.at) - this.#pointer);
    return samples.reduce((best, each) => (distance(each) < distance(best) ? each : best));
  }

  #drawCursor() {
    const sample = this.#chosen();
    if (sample === undefined || sample.at < this.#now - this.window) {
      this.cursor.replaceChildren();
      return;
    }
    const x = this.#x(sample.at);
    const shapes = sample.values.map((value, index) =>
      s("circle", { cx: x, cy: this.#y(value), r: 3.5, class: `dot ${this.#lines[index].kind}` }),
    );
    if (this.#pointer !== null) {
      shapes.unshift(s("line", { x1: x, x2: x, y1: EDGE.top, y2: HEIGHT - EDGE.bottom }));
    }
    this.cursor.replaceChildren(...shapes);
  }

  #drawCurrent() {
    const sample = this.#chosen();
    const parts = this.#lines.map(({ name, kind }, index) => {
      const value = sample === undefined ? "–" : this.#unit(sample.values[index]);
      const swatch = s("svg", { class: "swatch", viewBox: "0 0 18 8", "aria-hidden": "true" },
        s("path", { d: "M1,4H17", class: `line ${kind}` }));
      const label = this.#lines.length > 1 ? [swatch, ` ${name} `] : [];
      return h("span", {}, ...label, h("b", {}, value));
    });
    if (this.#pointer !== null && sample !== undefined) {
      parts.push(h("span", { class: "soft" }, `${Math.round(this.#now - sample.at)} s ago`));
    }
    this.current.replaceChildren(...parts);
  }

  #drawWords(all) {
    this.#drawCurrent();
    if (!all.length) {
      say(this.summary, "No values yet.");
      return;
    }
    const seconds = Math.max(1, Math.round(this.#now - all[0].at));
    const peaks = this.#lines.map(({ name }, index) => {
      const values = all.map((sample) => sample.values[index]);
      if (this.#lines.length > 1) return `${this.#unit(Math.max(...values))} ${name}`;
      const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
      return `${this.#unit(Math.max(...values))}, mean ${this.#unit(mean)}`;
    });
    const span = seconds < 90 ? `${seconds} s` : `${Math.round(seconds / 60)} min`;
    say(this.summary, `peak ${peaks.join(", ")} over ${span}`);
    if (!this.details.open) return;
    const apart = Math.max(1, Math.floor(all.length / TABLE_ROWS));
    const shown = all.toReversed().filter((_, index) => index % apart === 0).slice(0, TABLE_ROWS);
    keyed(this.table, shown, (sample) => sample.at, (sample) => {
      const when = h("td");
      const cells = sample.values.map((value) => h("td", { class: "num" }, this.#unit(value)));
      return {
        element: h("tr", {}, when, ...cells),
        update: () => say(when, String(Math.round(this.#now - sample.at))),
      };
    });
  }
}
