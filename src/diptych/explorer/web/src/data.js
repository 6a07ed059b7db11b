// Where the page's data come from: a server on this machine, or the files beside a page that was exported.

const CHUNK = 256; // pictures in a file of an export, as export.py writes them
const NEIGHBOUR_CHUNK = 4096;

const AGAIN = 500; // milliseconds until what the server is computing is asked for again

/** Data by the server that sent this page; every address lies below the random token in the page's own. */
export class Served {
  constructor() {
    this.token = location.pathname.split("/")[1];
  }

  /** Ask until it is there; `told` hears what the server is computing meanwhile, and for how many seconds. */
  async #get(path, told = () => {}) {
    for (;;) {
      const response = await answered(path);
      if (response.status !== 202) return response;
      const { computing, seconds } = await response.json();
      told(computing, seconds);
      await new Promise((done) => setTimeout(done, AGAIN));
    }
  }

  scene = async (told) => (await this.#get("scene", told)).json();
  positions = async () => new Float32Array(await (await this.#get("positions")).arrayBuffer());
  names = async () => (await this.#get("names")).json();
  picture = async (row) => `picture/${row}`;

  /** A scheme's description and its value of each picture. */
  async scheme(name, told) {
    return typed(await (await this.#get(`scheme/${name}`, told)).json());
  }

  neighbours = async (row) => (await this.#get(`neighbours/${row}`)).json();

  /** Where a picture from outside belongs. */
  async place(file) {
    const headers = { "X-Diptych-Token": this.token };
    return (await answered("place", { method: "POST", headers, body: file })).json();
  }
}

async function answered(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("the server does not answer: is `diptych explore` still running?");
  }
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

const TYPES = { u1: Uint8Array, u4: Uint32Array, f4: Float32Array };

function typed({ about, type, values }) {
  return { ...about, values: new TYPES[type](bytes(values)) };
}

function bytes(base64) {
  const text = atob(base64);
  const found = new Uint8Array(text.length);
  for (let place = 0; place < text.length; place++) found[place] = text.charCodeAt(place);
  return found.buffer;
}
