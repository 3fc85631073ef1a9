// Numbers in words that a person reads. A number and its unit never part at the end of a line.

const INTEGER = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const SPACE = "\u00a0";

/** A whole number, its thousands apart. */
export const count = (n) => INTEGER.format(n);

/** "1 peer", "2 peers". */
export const several = (n, noun) => `${count(n)}${SPACE}${noun}${n === 1 ? "" : "s"}`;

/** Three digits, no more than say something. */
export function digits(n) {
  const places = Math.abs(n) >= 100 ? 0 : Math.abs(n) >= 10 ? 1 : 2;
  return new Intl.NumberFormat("en", { maximumFractionDigits: places }).format(n);
}

/** Three digits and a letter for thousands, for the axis of a chart. */
export function compact(n) {
  if (n >= 1e6) return `${digits(n / 1e6)}${SPACE}M`;
  return n >= 1e4 ? `${digits(n / 1e3)}${SPACE}k` : digits(n);
}

/** Bytes, by thousands. */
export function bytes(n) {
  let unit = 0;
  while (n >= 999.5 && unit < 5) {
    n /= 1000;
    unit += 1;
  }
  return `${unit ? digits(n) : count(n)}${SPACE}${["B", "kB", "MB", "GB", "TB", "PB"][unit]}`;
}

/** Bytes per second. */
export const flow = (n) => `${bytes(n)}/s`;

/** Seconds, by their two largest units. */
export function duration(seconds) {
  if (seconds < 59.5) return `${Math.max(0, Math.round(seconds))}${SPACE}s`;
  const whole = Math.round(seconds);
  for (const [size, name, next, small] of [
    [86400, "d", 3600, "h"],
    [3600, "h", 60, "min"],
    [60, "min", 1, "s"],
  ]) {
    if (whole < size) continue;
    const rest = Math.floor((whole % size) / next);
    const first = `${count(Math.floor(whole / size))}${SPACE}${name}`;
    return rest ? `${first} ${rest}${SPACE}${small}` : first;
  }
  return `${whole}${SPACE}s`;
}

/** Seconds, by their largest unit alone. */
export const roughly = (seconds) => duration(seconds).split(" ", 1)[0];

/** Seconds before now. */
export const ago = (seconds) => (seconds < 1 ? "now" : `${roughly(seconds)} ago`);

/** A round trip, given in seconds. */
export function roundTrip(seconds) {
  return seconds >= 1 ? `${digits(seconds)}${SPACE}s` : `${digits(seconds * 1000)}${SPACE}ms`;
}

/** A share of 1, rounded down: only what is complete is 100 %. */
export function percent(share) {
  const tenths = Math.floor(share * 1000) / 10;
  return `${tenths >= 100 ? "100" : tenths.toFixed(1)}${SPACE}%`;
}

/** The ends of a hash or key. */
export const short = (hash) => (hash.length > 18 ? `${hash.slice(0, 8)}…${hash.slice(-6)}` : hash);

/** A time of day, as the reader's machine says it. */
export const clock = (date) => date.toLocaleTimeString("en", { hourCycle: "h23" });
