// Points sorted into the cells of a grid: the one nearest to the pointer is found without looking at all of them.

const PER_CELL = 4;
const MOST = 1024; // cells a side

export class Grid {
  /** @param {Float32Array} positions x and y of each point in turn, all within -1..1 */
  constructor(positions) {
    const count = positions.length / 2;
    this.positions = positions;
    this.side = Math.min(MOST, Math.max(1, Math.ceil(Math.sqrt(count / PER_CELL))));
    const cells = new Uint32Array(count);
    this.starts = new Uint32Array(this.side * this.side + 1);
    for (let row = 0; row < count; row++) {
      cells[row] = this.#line(positions[2 * row + 1]) * this.side + this.#line(positions[2 * row]);
      this.starts[cells[row] + 1]++;
    }
    for (let cell = 0; cell < this.side * this.side; cell++) this.starts[cell + 1] += this.starts[cell];
    this.rows = new Uint32Array(count);
    const next = this.starts.slice();
    for (let row = 0; row < count; row++) this.rows[next[cells[row]]++] = row;
  }

  #line(value) {
    return Math.min(this.side - 1, Math.max(0, Math.floor(((value + 1) / 2) * this.side)));
  }

  /** The point nearest to (x, y) and no farther than `radius`; of equally near ones the last drawn, -1 for none. */
  nearest(x, y, radius) {
    let [best, row] = [radius * radius, -1];
    const right = this.#line(x + radius);
    for (let line = this.#line(y - radius); line <= this.#line(y + radius); line++) {
      const end = this.starts[line * this.side + right + 1];
      for (let place = this.starts[line * this.side + this.#line(x - radius)]; place < end; place++) {
        const other = this.rows[place];
        const [dx, dy] = [this.positions[2 * other] - x, this.positions[2 * other + 1] - y];
        const apart = dx * dx + dy * dy;
        if (apart < best || (apart === best && other > row)) [best, row] = [apart, other];
      }
    }
    return row;
  }
}
