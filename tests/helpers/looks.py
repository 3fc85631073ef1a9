"""Scripts that find in an open page what cannot be read, or is wider than its place."""

from __future__ import annotations

from typing import Final

POOR_CONTRAST: Final = """() => {
  const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const over = ([r, g, b, a = 1], [R, G, B]) =>
    [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a)];
  const light = (colour) => {
    const [r, g, b] = colour.map((c) => c / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
      layers.push(parse(getComputedStyle(at).backgroundColor));
    }
    return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255]);
  };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !element.checkVisibility()) continue;
    if (element.closest('noscript, title, .unseen')) continue;
    const style = getComputedStyle(element);
    const below = ground(element);
    const text = over(parse(element.ownerSVGElement ? style.fill : style.color), below);
    const [high, low] = [light(text), light(below)].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05);
    seen += 1;
    if (ratio < 4.5) found.push(`${ratio.toFixed(2)} ${walk.currentNode.data}`);
  }
  return { seen, found };
}"""
"""Pieces of text whose contrast to what they stand on is below 4.5, and how many are seen."""
TOO_WIDE: Final = """() => {
  const found = [];
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > width) found.push('the page scrolls sideways');
  for (const card of document.querySelectorAll('.card')) {
    const edge = card.getBoundingClientRect().right + 0.5;
    for (const element of card.querySelectorAll('*')) {
      const { right, width } = element.getBoundingClientRect();
      if (width && right > edge && !element.closest('.unseen, .hit, .frame')) {
        found.push(`${element.tagName}.${element.className} ${element.textContent.slice(0, 30)}`);
      }
    }
  }
  return found;
}"""
"""What reaches beyond the card that it is in, or makes the page scroll sideways."""
