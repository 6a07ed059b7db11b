// Where the page's data come from: a server on this machine, or the files beside a page that was exported.

const CHUNK = 256; // pictures in a file of an export, as export.py writes them
const NEIGHBOUR_CHUNK = 4096;

/** Data by the server that sent this page; every address lies below the random token in the page's own. */
export class Served {
  constructor() {
    this.token = location.pathname.split("/")[1];
  }

  async #get(path) {
    return answered(await fetch(path));
  }

  scene = async () => (await this.#get("scene")).json();
  positions = async () => new Float32Array(await (await this.#get("positions")).arrayBuffer());
  names = async () => (await this.#get("names")).json();
  picture = async (row) => `picture/${row}`;

  /** A scheme's description and its value of each picture. */
  async scheme(name) {
    return typed(await (await this.#get(`scheme/${name}`)).json());
  }

  neighbours = async (row) => (await this.#get(`neighbours/${row}`)).json();

  /** Where a picture from outside belongs. */
  async place(file) {
    const headers = { "X-Diptych-Token": this.token };
    return (await answered(await fetch("place", { method: "POST", headers, body: file }))).json();
  }
}

async function answered(response) {
  if (response.ok) return response;
  let reason = `the server answered ${response.status}`;
  try {
    reason = (await response.json()).error;
  } catch {
    // not our own words: the status has to do
  }
  throw new Error(reason);
}

/** Data of an exported folder: scripts that hand over their content, since a page opened as a file may fetch nothing. */
export class Exported {
  #given = new Map();
  #loading = new Map();

  constructor() {
    globalThis.diptychGive = (name, value) => this.#given.set(name, value);
  }

  #load(name) {
    if (!this.#loading.has(name)) {
      this.#loading.set(
        name,
        new Promise((done, failed) => {
          const script = document.createElement("script");
          script.src = `data/${name}.js`;
          script.onload = () => done(this.#given.get(name));
          script.onerror = () => failed(new Error(`data/${name}.js is missing from this folder: export it again`));
          document.head.append(script);
        }),
      );
    }
    return this.#loading.get(name);
  }

  scene = () => this.#load("scene");
  positions = async () => new Float32Array(bytes(await this.#load("positions")));
  names = () => this.#load("names");

  async picture(row) {
    const encoded = (await this.#load(`pictures-${Math.floor(row / CHUNK)}`))[row % CHUNK];
    if (encoded === null) throw new Error("this picture cannot be read");
    return `data:image/jpeg;base64,${encoded}`;
  }

  async scheme(name) {
    return typed(await this.#load(`scheme-${name}`));
  }

  async neighbours(row) {
    const { count, rows, similarities } = await this.#load(`neighbours-${Math.floor(row / NEIGHBOUR_CHUNK)}`);
    const start = (row % NEIGHBOUR_CHUNK) * count;
    const part = (Type, text) => [...new Type(bytes(text)).subarray(start, start + count)];
    return { rows: part(Uint32Array, rows), similarities: part(Float32Array, similarities) };
  }
}

function typed({ about, values }) {
  const Type = about.kind === "categories" ? Uint8Array : Float32Array;
  return { ...about, values: new Type(bytes(values)) };
}

function bytes(base64) {
  const text = atob(base64);
  const found = new Uint8Array(text.length);
  for (let place = 0; place < text.length; place++) found[place] = text.charCodeAt(place);
  return found.buffer;
}
