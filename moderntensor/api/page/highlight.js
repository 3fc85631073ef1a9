// The peer under the pointer, in the table and in the picture alike.

const listeners = [];

export function onHighlight(listener) {
  listeners.push(listener);
}

export function highlight(address) {
  for (const listener of listeners) listener(address);
}
