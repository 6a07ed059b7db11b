// A list of pictures as a CSV file.

import { cellOf } from "./schemes.js";

// A cell that begins so is a formula to a program for tables, and names of files are other people's: it gets an
// apostrophe in front, which such programs take for the mark of a text. Numbers (classes -1 and +1) are left as they are.
const FORMULA = /^[=+\-@\t\r\n]/;
const NUMBER = /^[+-]?\d+(\.\d+)?(e[+-]?\d+)?$/i;
function harmless(word) {
  const bare = word.replace(/^'+/, ""); // so that one apostrophe less is always the word itself
  return FORMULA.test(bare) && !NUMBER.test(bare) ? `'${word}` : word;
}

const quoted = (value) => (/[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);

/** Lines of `row,name` and a column for each scheme that is loaded, ended as RFC 4180 ends them. */
export function csv(rows, names, schemes) {
  const header = ["row", "name", ...schemes.map((scheme) => scheme.name)];
  const lines = rows.map((row) => [String(row), names[row], ...schemes.map((scheme) => cellOf(scheme, row))]);
  return [header, ...lines].map((cells) => cells.map((cell) => quoted(harmless(cell))).join(",") + "\r\n").join("");
}
