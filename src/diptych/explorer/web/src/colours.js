// A colour for each picture, by the scheme that was chosen.

const LIGHT = (
  "2b5f93 c8602f 2f8f5b a23b72 c79a1e 5b4fa0 17899b b02a37 7a8b2c 8c6248 " +
  "6fa5d8 eba27d 86c9a2 d891bb e3c875 a9a0dd 7cc5d0 e58a92 bcc97a c4a48e"
).split(" ");
const DARK = (
  "6aa5e0 ea8a5a 5fbf8c d673a8 e6bd4a 9a8cf0 43b9cc ef6f7c a9bf52 bd8f70 " +
  "3f6d9e a85a35 3b7d5a 8f4a70 94792f 6257a6 2a7683 a04650 6f7e36 7d5f4b"
).split(" ");
const REST = { light: "a9acb2", dark: "5d626b" }; // of pictures without a class, or with one of the many rare ones
const PLAIN = { light: "2b5f93", dark: "84b6e8" };
const SCALE = { light: ["b3bac4", "dfa27c", "b4532a", "5a1d08"], dark: ["59616d", "a3613f", "e8956d", "fff0e2"] };
const FAINT = 26; // opacity 0..255 of what is not singled out

const channels = (hex) => [0, 2, 4].map((start) => parseInt(hex.slice(start, start + 2), 16));

/** The colour of a category as CSS. */
export function ofCategory(scheme, category, theme) {
  return `#${category < scheme.coloured ? (theme === "dark" ? DARK : LIGHT)[category] : REST[theme]}`;
}

/** A scale's colours, lowest first, as CSS. */
export const gradient = (theme) => SCALE[theme].map((hex) => `#${hex}`);

/** Opacity of points 0..255: many lie on each other, and a crowd should still show where it is dense. */
const opacity = (count) => (count > 200_000 ? 140 : count > 20_000 ? 185 : 225);

/** Red, green, blue and opacity of each picture in turn.
 * @param {object | null} scheme null where all look alike
 * @param {{first: number, end: number} | null} only the categories that are singled out
 * @param {Uint8Array | null} chosen 1 for each picture that is singled out
 */
export function paint(count, scheme, theme, only, chosen) {
  const colours = new Uint8ClampedArray(4 * count);
  const strong = opacity(count);
  const table = tableOf(scheme, theme);
  for (let row = 0; row < count; row++) {
    const entry = scheme === null ? 0 : scheme.kind === "categories" ? scheme.values[row] : step(scheme, row);
    colours.set(table[entry], 4 * row);
    const meant = (only === null || (entry >= only.first && entry < only.end)) && (chosen === null || chosen[row]);
    colours[4 * row + 3] = meant ? strong : FAINT;
  }
  return colours;
}

function tableOf(scheme, theme) {
  if (scheme === null) return [channels(PLAIN[theme])];
  if (scheme.kind === "categories") {
    return scheme.categories.map((_, category) => channels(ofCategory(scheme, category, theme).slice(1)));
  }
  const stops = SCALE[theme].map(channels);
  return Array.from({ length: 256 }, (_, place) => {
    const along = (place / 255) * (stops.length - 1);
    const first = Math.min(stops.length - 2, Math.floor(along));
    return stops[first].map((value, channel) => value + (stops[first + 1][channel] - value) * (along - first));
  });
}

function step(scheme, row) {
  const along = (scheme.values[row] - scheme.low) / (scheme.high - scheme.low || 1);
  return Math.round(255 * Math.min(1, Math.max(0, along)));
}
