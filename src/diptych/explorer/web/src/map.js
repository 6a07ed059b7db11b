// The map: points drawn by deck.gl (WebGL 2), and the way from pixels to the map's own numbers and back.

import { Deck, OrthographicView } from "@deck.gl/core";
import { ScatterplotLayer } from "@deck.gl/layers";
import { Grid } from "./grid.js";

const MARGIN = 0.92; // of the smaller side, taken by the whole map
const DEEPEST = 14; // times the map may be doubled beyond that
const REACH = 14; // pixels from the pointer within which a point is meant
const FAR = 90; // and from the middle, which keys move by steps

export class PointMap {
  /**
   * @param {HTMLElement} parent where to draw
   * @param {{onMove: () => void, onDrawn: () => void, onError: (error: Error) => void}} told
   */
  constructor(parent, told) {
    Object.assign(this, { parent, told, marks: [], colours: null, count: 0 });
    this.view = { target: [0, 0, 0], zoom: this.#whole() };
    this.touched = false;
    this.deck = new Deck({
      parent,
      views: new OrthographicView({ id: "map", flipY: false }),
      controller: { keyboard: false, doubleClickZoom: true, scrollZoom: { speed: 0.008 } },
      viewState: this.#viewState(),
      onViewStateChange: ({ viewState }) => this.#look(viewState.target, viewState.zoomX ?? viewState.zoom),
      onAfterRender: () => this.colours && told.onDrawn(),
      onError: told.onError,
      // The canvas would be a second stop for the Tab key: it is its parent that keys are for.
      onLoad: () => parent.querySelector("canvas").removeAttribute("tabindex"),
      getCursor: ({ isDragging }) => (isDragging ? "grabbing" : "crosshair"),
      layers: [],
    });
    new ResizeObserver(() => {
      if (!this.touched) this.view = { target: [0, 0, 0], zoom: this.#whole() };
      this.#redraw();
      told.onMove();
    }).observe(parent);
  }

  /** Take up the points: x and y of each in turn, within -1..1; they are drawn once they have colours. */
  fill(positions) {
    this.positions = positions;
    this.count = positions.length / 2;
    this.grid = new Grid(positions);
  }

  /** Colour the points: red, green, blue and opacity of each in turn. */
  paint(colours) {
    this.colours = colours;
    this.data = {
      length: this.count,
      attributes: {
        getPosition: { value: this.positions, size: 2 },
        getFillColor: { value: colours, size: 4 },
      },
    };
    this.#redraw();
  }

  /** Draw rings around points: `rows` or `places` [x, y], in a colour [r, g, b]. */
  mark(marks) {
    this.marks = marks;
    this.#redraw();
  }

  /** Show all points. */
  fit() {
    this.touched = false;
    this.#show([0, 0, 0], this.#whole());
  }

  zoomBy(doublings) {
    this.#look(this.view.target, this.view.zoom + doublings);
  }

  /** Move what is seen by pixels: right and down. */
  panBy(right, down) {
    const scale = 2 ** this.view.zoom;
    const [x, y] = this.view.target;
    this.#look([x + right / scale, y - down / scale, 0], this.view.zoom);
  }

  /** Bring a place into the middle, near enough to see it apart. */
  centre(place) {
    this.#look([place[0], place[1], 0], Math.max(this.view.zoom, this.#whole() + 2));
  }

  place(row) {
    return [this.positions[2 * row], this.positions[2 * row + 1]];
  }

  /** From pixels within the map to its numbers. */
  unproject([right, down]) {
    const { width, height } = this.#size();
    const scale = 2 ** this.view.zoom;
    return [this.view.target[0] + (right - width / 2) / scale, this.view.target[1] - (down - height / 2) / scale];
  }

  /** From the map's numbers to pixels within it. */
  project([x, y]) {
    const { width, height } = this.#size();
    const scale = 2 ** this.view.zoom;
    return [width / 2 + (x - this.view.target[0]) * scale, height / 2 - (y - this.view.target[1]) * scale];
  }

  /** The point meant by a pixel, -1 for none. */
  pick(pixel) {
    return this.#near(pixel, REACH);
  }

  /** The point meant by someone who moves the map by keys. */
  pickMiddle() {
    return this.#near(this.middle, FAR);
  }

  #near(pixel, reach) {
    const [x, y] = this.unproject(pixel);
    return this.grid.nearest(x, y, reach / 2 ** this.view.zoom);
  }

  /** The corners of what is seen. */
  frame() {
    const { width, height } = this.#size();
    return [[0, 0], [width, 0], [width, height], [0, height]].map((corner) => this.unproject(corner));
  }

  get middle() {
    const { width, height } = this.#size();
    return [width / 2, height / 2];
  }

  #size() {
    return { width: this.parent.clientWidth || 1, height: this.parent.clientHeight || 1 };
  }

  #whole() {
    const { width, height } = this.#size();
    return Math.log2((MARGIN * Math.min(width, height)) / 2);
  }

  #look(target, zoom) {
    this.touched = true;
    this.#show(target, Math.min(this.#whole() + DEEPEST, Math.max(this.#whole() - 1, zoom)));
  }

  #show(target, zoom) {
    const held = target.slice(0, 2).map((value) => Math.min(1.2, Math.max(-1.2, value)));
    this.view = { target: [...held, 0], zoom };
    this.#redraw();
    this.told.onMove();
  }

  #viewState() {
    return { ...this.view, minZoom: this.#whole() - 1, maxZoom: this.#whole() + DEEPEST };
  }

  // Pixels: small where many share the map, growing slowly as it is enlarged.
  get radius() {
    const { width, height } = this.#size();
    const crowded = Math.sqrt((0.1 * width * height) / (Math.PI * this.count));
    return Math.min(9, Math.max(1.1, Math.min(4.5, crowded)) * 2 ** (0.3 * (this.view.zoom - this.#whole())));
  }

  #redraw() {
    const radius = this.radius;
    const points =
      this.colours &&
      new ScatterplotLayer({
        id: "points",
        data: this.data,
        getRadius: 1,
        radiusUnits: "pixels",
        radiusScale: radius,
        stroked: false,
      });
    const rings = this.marks.map(
      ({ places, colour, strong }, place) =>
        new ScatterplotLayer({
          id: `rings-${place}`,
          data: places,
          getPosition: (point) => point,
          getRadius: radius + (strong ? 5 : 3),
          radiusUnits: "pixels",
          filled: false,
          stroked: true,
          getLineColor: colour,
          getLineWidth: strong ? 3 : 2,
          lineWidthUnits: "pixels",
          updateTriggers: { getRadius: [radius, strong], getLineColor: colour, getLineWidth: strong },
        }),
    );
    this.deck.setProps({ viewState: this.#viewState(), layers: [points, ...rings] });
  }
}
