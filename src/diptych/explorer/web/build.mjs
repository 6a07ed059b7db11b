// Builds the page into ../static: one script, one style sheet, the licences of what is inside, and a hash of the sources.

import { createHash } from "node:crypto";
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const OUT = "../static";
const SOURCES = ["build.mjs", "package.json", "package-lock.json", ...readdirSync("src").map((name) => `src/${name}`)].sort();

mkdirSync(OUT, { recursive: true });
const { metafile } = await build({
  entryPoints: { explorer: "src/main.js" },
  bundle: true,
  minify: true,
  format: "iife",
  target: ["chrome123", "firefox120", "safari17.5"],
  legalComments: "none",
  metafile: true,
  outdir: OUT,
});
await build({ entryPoints: ["src/explorer.css"], minify: true, outdir: OUT });
for (const name of ["index.html", "icon.svg"]) copyFileSync(`src/${name}`, `${OUT}/${name}`);

const packages = new Set();
for (const [path, { bytesInOutput }] of Object.entries(Object.values(metafile.outputs)[0].inputs)) {
  const found = path.match(/^node_modules\/((?:@[^/]+\/)?[^/]+)\//);
  if (found && bytesInOutput > 0) packages.add(found[1]);
}
const licences = [...packages].sort().map((name) => {
  const { version, license, repository } = JSON.parse(readFileSync(`node_modules/${name}/package.json`, "utf8"));
  const file = ["LICENSE", "LICENSE.md", "LICENSE.txt"].map((word) => `node_modules/${name}/${word}`).find(existsSync);
  if (!file) throw new Error(`${name} (${license}) carries no licence text`);
  const address = (repository?.url ?? repository ?? "").replace(/^git\+/, "");
  return `${name} ${version} (${license}) ${address}\n\n${readFileSync(file, "utf8").trim()}\n`;
});
writeFileSync(`${OUT}/LICENSES.txt`, `explorer.js holds parts of these packages.\n\n${licences.join(`\n${"-".repeat(80)}\n\n`)}`);

const hash = (parts) => {
  const found = createHash("sha256");
  for (const part of parts) found.update(part);
  return found.digest("hex");
};
const built = ["LICENSES.txt", "explorer.css", "explorer.js", "icon.svg", "index.html"];
const record = {
  sources: hash(SOURCES.flatMap((name) => [`${name}\n`, readFileSync(name)])),
  files: Object.fromEntries(built.map((name) => [name, hash([readFileSync(`${OUT}/${name}`)])])),
};
writeFileSync(`${OUT}/built.json`, `${JSON.stringify(record, null, 2)}\n`);
