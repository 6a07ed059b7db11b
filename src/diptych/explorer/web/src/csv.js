// A list of pictures as a CSV file.

const quoted = (value) => (/[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);

/** Lines of `row,name` and a column for each scheme that is loaded, ended as RFC 4180 ends them. */
export function csv(rows, names, schemes) {
  const header = ["row", "name", ...schemes.map((scheme) => scheme.name)];
  const lines = rows.map((row) => [String(row), names[row], ...schemes.map((scheme) => valueOf(scheme, row))]);
  return [header, ...lines].map((cells) => cells.map(quoted).join(",") + "\r\n").join("");
}

/** What a scheme says of a picture, in words. */
export function valueOf(scheme, row) {
  const value = scheme.values[row];
  if (scheme.kind === "categories") return scheme.categories[value].name;
  return String(Number(value.toPrecision(6)));
}

/** Hand a file over to the browser's downloads. */
export function download(name, text) {
  const address = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
