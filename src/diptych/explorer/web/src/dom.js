// Elements are made here and nowhere else, and text enters them by textContent alone: names of files are hostile input.

/** Make an element with attributes, listeners (`onclick: …`) and children (elements or strings). */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

export const byId = (id) => document.getElementById(id);

// What steers a page instead of being seen: control characters, lone surrogates, marks that turn the writing direction.
const STEERS = /[\p{Cc}\p{Cs}\u202a-\u202e\u2066-\u2069]/gu;

/** A name as it may be shown: kept apart from the text around it, what is no visible character replaced. */
export function nameOf(text) {
  const element = document.createElement("bdi");
  element.textContent = visible(text);
  return element;
}

export const visible = (text) => text.replace(STEERS, "\ufffd");

/** Hand a table over to the browser's downloads; a name that is no UTF-8 keeps its bytes, as Python writes it. */
export function download(name, text) {
  const parts = text.split(/([\udc80-\udcff])/u).map((part, place) => (place % 2 ? Uint8Array.of(part.charCodeAt(0) & 255) : part));
  const address = URL.createObjectURL(new Blob(parts, { type: "text/csv;charset=utf-8" }));
  const link = make("a", { href: address, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

/** `12,345 pictures`, `1 picture`. */
export const counted = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
