"""The contrast of all visible text of a page, from computed styles, as WCAG 2.2 defines it."""

from dataclasses import dataclass

from playwright.sync_api import Page

# Text of disabled controls is exempt (WCAG 1.4.3). Of an input the text that is shown is its value or its placeholder.
_MEASURE = """
() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const parse = (text) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = text;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (front, back) => [0, 1, 2].map((i) => front[i] * front[3] + back[i] * (1 - front[3])).concat(1);
  const luminance = ([r, g, b]) => {
    const linear = [r, g, b].map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const ratio = (a, b) => {
    const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };
  const page = parse(getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor);
  const behind = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.push(at);
    let color = [page[0], page[1], page[2], 1];
    for (const layer of layers.reverse()) {
      const style = getComputedStyle(layer), back = parse(style.backgroundColor);
      color = over([back[0], back[1], back[2], back[3] * style.opacity], color);
    }
    return color;
  };
  const opacity = (element) => element ? getComputedStyle(element).opacity * opacity(element.parentElement) : 1;
  const visible = (element, box) => {
    if (box.width < 2 || box.height < 2 || !element.checkVisibility({visibilityProperty: true})) return false;
    for (let at = element; at; at = at.parentElement) {
      const style = getComputedStyle(at);
      if (style.clip === 'rect(0px, 0px, 0px, 0px)' || style.clipPath === 'inset(50%)' || style.opacity === '0')
        return false;
    }
    return true;
  };
  // Icons are letters of a font; what a chart draws inside itself is not behind its text in the document.
  const skipped = 'script, style, noscript, canvas, [data-testid=stIconMaterial], .role-mark';
  const found = [];
  const note = (element, text, color) => {
    if (element.closest(':disabled, [aria-disabled=true], [data-disabled=true]')) return;
    // The value of a slider hangs above the knob that it belongs to.
    const back = element.closest('[data-testid=stSliderThumbValue]') ? behind(element.closest('[data-testid=stSlider]'))
      : behind(element), shown = parse(color);
    const front = over([shown[0], shown[1], shown[2], shown[3] * opacity(element)], back);
    found.push([text.trim().slice(0, 60), ratio(front, back)]);
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = texts.nextNode(); node; node = texts.nextNode()) {
    const element = node.parentElement, range = document.createRange();
    range.selectNodeContents(node);
    if (!node.data.trim() || element.closest(skipped)) continue;
    if (!visible(element, range.getBoundingClientRect())) continue;
    const style = getComputedStyle(element);
    note(element, node.data, element.closest('svg') ? style.fill : style.color);
  }
  for (const input of document.querySelectorAll('input, textarea')) {
    if (!visible(input, input.getBoundingClientRect()) || ['checkbox', 'radio', 'file', 'range'].includes(input.type))
      continue;
    const style = getComputedStyle(input, input.value ? null : '::placeholder');
    if (input.value || input.placeholder) note(input, input.value || input.placeholder, style.color);
  }
  return found;
}
"""


@dataclass(frozen=True, slots=True)
class Text:
    """A text that a page shows, and its contrast from 1 to 21."""

    text: str
    contrast: float


def visible_texts(page: Page) -> list[Text]:
    """Measure every text in sight, and below and above what the window shows."""
    return [Text(text, contrast) for text, contrast in page.evaluate(_MEASURE)]


def contrast(first: str, second: str) -> float:
    """Return the contrast of two colors such as ``#808495``, by the same formula."""
    low, high = sorted(map(_luminance, (first, second)))
    return (high + 0.05) / (low + 0.05)


def _luminance(color: str) -> float:
    values = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values]
    return sum(part * value for part, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
