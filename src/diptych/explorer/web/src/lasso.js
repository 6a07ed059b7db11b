// Points within a line drawn by hand.

/** The rows whose points lie inside a polygon, by the even-odd rule.
 * @param {Float32Array} positions x and y of each point in turn
 * @param {number[][]} polygon corners [x, y]; the last is joined to the first
 */
export function inside(positions, polygon) {
  const count = polygon.length;
  const [xs, ys] = [0, 1].map((axis) => Float64Array.from(polygon, (corner) => corner[axis]));
  const [left, right] = [Math.min(...xs), Math.max(...xs)];
  const [bottom, top] = [Math.min(...ys), Math.max(...ys)];
  const rows = [];
  for (let row = 0; row < positions.length / 2; row++) {
    const [x, y] = [positions[2 * row], positions[2 * row + 1]];
    if (x < left || x > right || y < bottom || y > top) continue;
    let within = false;
    for (let here = 0, before = count - 1; here < count; before = here++) {
      if (ys[here] > y !== ys[before] > y) {
        const cut = ((xs[before] - xs[here]) * (y - ys[here])) / (ys[before] - ys[here]) + xs[here];
        if (x < cut) within = !within;
      }
    }
    if (within) rows.push(row);
  }
  return rows;
}

/** Draws a line over the map while the pointer is down, and hands its corners over in pixels. */
export class Lasso {
  constructor(overlay, path, onDone) {
    this.overlay = overlay;
    this.path = path;
    this.corners = [];
    this.drawing = false;
    overlay.addEventListener("pointerdown", (event) => {
      overlay.setPointerCapture(event.pointerId);
      this.drawing = true;
      this.corners = [];
      this.#extend(event);
    });
    overlay.addEventListener("pointermove", (event) => this.drawing && this.#extend(event));
    overlay.addEventListener("pointerup", () => {
      if (!this.drawing) return;
      const corners = this.corners;
      this.clear();
      if (corners.length > 2) onDone(corners);
    });
    overlay.addEventListener("pointercancel", () => this.clear());
  }

  /** Whether the pointer draws instead of moving the map. */
  set active(on) {
    this.overlay.toggleAttribute("hidden", !on); // an SVG element has no property of that name
    if (!on) this.clear();
  }

  clear() {
    this.drawing = false;
    this.path.setAttribute("d", "");
  }

  #extend(event) {
    const box = this.overlay.getBoundingClientRect();
    const corner = [event.clientX - box.left, event.clientY - box.top];
    const last = this.corners.at(-1);
    if (last && Math.hypot(corner[0] - last[0], corner[1] - last[1]) < 3) return;
    this.corners.push(corner);
    this.path.setAttribute("d", `M${this.corners.map((point) => point.join(",")).join("L")}Z`);
  }
}
