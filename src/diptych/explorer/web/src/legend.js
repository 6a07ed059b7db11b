// What the colours mean. An entry that is clicked is singled out, until it is clicked again.

import { gradient, ofCategory } from "./colours.js";
import { make, nameOf, visible } from "./dom.js";
import { groupsOf } from "./schemes.js";

/** Draw the legend of a scheme into `place`; `onOnly` is told the entry that is singled out, or null. */
export function draw(place, scheme, theme, only, onOnly) {
  if (scheme === null) return place.replaceChildren();
  if (scheme.kind === "scale") return place.replaceChildren(scale(scheme, theme));
  const entries = groupsOf(scheme).map(({ name, count, first }, entry) => {
    const swatch = make("span", { class: "swatch" });
    swatch.style.background = ofCategory(scheme, first, theme);
    const button = make(
      "button",
      { type: "button", "aria-pressed": String(entry === only), onclick: () => onOnly(entry === only ? null : entry) },
      swatch,
      make("span", { class: "name", title: visible(name) }, nameOf(name)),
      make("span", { class: "count" }, count.toLocaleString("en")),
    );
    return make("li", {}, button);
  });
  place.replaceChildren(make("ul", { class: "categories" }, ...entries));
}

function scale(scheme, theme) {
  const bar = make("div", { class: "bar" });
  bar.style.background = `linear-gradient(to right, ${gradient(theme).join(", ")})`;
  const ends = [scheme.low, scheme.high].map((value) => make("span", {}, value.toPrecision(3)));
  return make("div", { class: "scale" }, bar, make("div", { class: "ends" }, ...ends), make("p", {}, scheme.note));
}
