// What a scheme says of a picture, and which colours stand for what.

/** What a scheme says of a picture, as a cell of a table: nothing where it has no word for it. */
export function cellOf(scheme, row) {
  const value = scheme.values[row];
  if (scheme.kind === "categories") return scheme.categories[value].name ?? "";
  return String(Number(value.toPrecision(6)));
}

/** The same for people. */
export function wordOf(scheme, row) {
  return isMissing(scheme, row) ? `no ${scheme.title}` : cellOf(scheme, row);
}

const isMissing = (scheme, row) => scheme.kind === "categories" && scheme.categories[scheme.values[row]].name === null;

/** The entries of the legend, in order: categories with a colour of their own, the rest of them as one, those without.
 * @returns {{name: string, count: number, first: number, end: number, own: boolean}[]} `first` to `end` of the categories
 */
export function groupsOf({ categories, coloured, title }) {
  const groups = categories.slice(0, coloured).map(({ name, count }, place) => ({ name, count, first: place, end: place + 1, own: true }));
  const end = categories.at(-1)?.name === null ? categories.length - 1 : categories.length;
  if (end > coloured) {
    const rest = categories.slice(coloured, end);
    const name = rest.length === 1 ? rest[0].name : `${rest.length.toLocaleString("en")} others`;
    groups.push({ name, count: rest.reduce((sum, { count }) => sum + count, 0), first: coloured, end, own: false });
  }
  if (end < categories.length) groups.push({ name: `no ${title}`, count: categories[end].count, first: end, end: end + 1, own: false });
  return groups;
}
