// The list beside the map: a picture and its neighbours, a selection, what a search found, where a dropped picture lies.

import { counted, make, nameOf } from "./dom.js";

const SHOWN = 120; // rows of a list that are drawn at once

export class Panel {
  /**
   * @param {HTMLElement} place
   * @param {object} data where pictures come from
   * @param {{names: string[] | null}} known
   * @param {{pictures: boolean}} scene
   * @param {{open: (row: number) => void, point: (row: number) => void}} told by clicks, and by pointing at an entry (-1: no longer)
   */
  constructor(place, data, known, scene, told) {
    Object.assign(this, { place, data, known, scene, told });
  }

  show(title, ...content) {
    const within = this.place.contains(document.activeElement);
    const heading = make("h2", { id: "panel-title", tabindex: "-1" }, title);
    this.place.replaceChildren(heading, ...content);
    this.place.scrollTop = 0;
    if (within) heading.focus(); // what had the focus is gone: the Tab key goes on from here
  }

  /** Pictures with their names; `notes` says something of each. */
  list(rows, notes = null) {
    const list = make("ol", { class: "pictures" });
    const more = make("button", { class: "more", type: "button", onclick: () => draw() });
    let drawn = 0;
    const draw = () => {
      const end = Math.min(rows.length, drawn + SHOWN);
      for (; drawn < end; drawn++) list.append(this.#entry(rows[drawn], notes && notes[drawn]));
      more.textContent = `Show more of ${counted(rows.length, "picture")}`;
      more.hidden = drawn >= rows.length;
    };
    draw();
    return make("div", {}, list, more);
  }

  /** A picture as large as it comes. */
  large(row) {
    const figure = make("figure", { class: "large" }, ...(this.scene.pictures ? [this.thumb(row)] : []));
    figure.append(make("figcaption", {}, nameOf(this.name(row))));
    return figure;
  }

  name(row) {
    return this.known.names === null ? `picture ${row}` : this.known.names[row];
  }

  thumb(row) {
    const image = make("img", { alt: "", loading: "lazy", decoding: "async" });
    image.addEventListener("error", () => image.replaceWith(make("span", { class: "broken" }, "cannot be read")));
    this.data.picture(row).then(
      (address) => (image.src = address),
      () => image.dispatchEvent(new Event("error")),
    );
    return image;
  }

  #entry(row, note) {
    const button = make(
      "button",
      {
        type: "button",
        "data-row": row,
        onclick: () => this.told.open(row),
        onfocus: () => this.told.point(row),
        onpointerenter: () => this.told.point(row),
        onpointerleave: () => this.told.point(-1),
        onblur: () => this.told.point(-1),
      },
      ...(this.scene.pictures ? [make("span", { class: "thumb" }, this.thumb(row))] : []),
      make("span", { class: "name" }, nameOf(this.name(row))),
      note === null ? null : make("span", { class: "note" }, note),
    );
    return make("li", {}, button);
  }
}
