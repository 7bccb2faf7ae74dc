// Opens the built documentation in headless Chromium and uses it as a person would.
//
//     npm install --no-save playwright-core axe-core
//     node tools/check_site.mjs docs/_build/html --shots shots
//
// Every page at two widths: links and their anchors, images, errors on the console, requests to other hosts, horizontal
// scrolling, bytes, and what axe finds. Then the slider, the search, a copy button, the zoo's sorting and the trial with good
// and bad pictures. Ends with 1 and one line for each fault.
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { extname, join, relative, resolve } from "node:path";
import { deflateSync, crc32 } from "node:zlib";

const require = createRequire(join(process.cwd(), "package.json"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const root = resolve(process.argv[2] ?? "docs/_build/html");
const shots = process.argv.includes("--shots") ? process.argv[process.argv.indexOf("--shots") + 1] : null;
const expected = resolve(root, "../made/expected");
const MOST_BYTES = 1.5e6;
const WIDTHS = [1280, 390];
const TYPES = {
  ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css", ".json": "application/json",
  ".png": "image/png", ".webp": "image/webp", ".svg": "image/svg+xml", ".wasm": "application/wasm", ".woff2": "font/woff2",
};

const faults = [];
const fault = (text) => {
  faults.push(text);
  console.log(`FAULT ${text}`);
};
const check = (holds, text) => (holds ? console.log(`ok    ${text}`) : fault(text));

const server = createServer((request, answer) => {
  const path = join(root, decodeURIComponent(new URL(request.url, "http://x").pathname));
  try {
    const file = statSync(path).isDirectory() ? join(path, "index.html") : path;
    answer.writeHead(200, { "Content-Type": TYPES[extname(file)] ?? "application/octet-stream" });
    answer.end(readFileSync(file));
  } catch {
    answer.writeHead(404);
    answer.end();
  }
});
await new Promise((done) => server.listen(0, "127.0.0.1", done));
const origin = `http://127.0.0.1:${server.address().port}`;

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"],
});
if (shots) mkdirSync(shots, { recursive: true });

function* htmlFiles(folder) {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) yield* htmlFiles(path);
    else if (entry.name.endsWith(".html")) yield relative(root, path);
  }
}

async function open(context, path) {
  const page = await context.newPage();
  const seen = { bytes: 0 };
  page.on("console", (message) => message.type() === "error" && fault(`${path}: console: ${message.text()}`));
  page.on("pageerror", (error) => fault(`${path}: ${error.message}`));
  page.on("request", (request) => {
    const url = request.url();
    if (!url.startsWith(origin) && !/^(data|blob):/.test(url)) fault(`${path}: asks ${url}`);
  });
  page.on("response", async (response) => {
    if (response.status() >= 400) fault(`${path}: ${response.status()} for ${response.url()}`);
    seen.bytes += (await response.body().catch(() => "")).length;
  });
  await page.goto(`${origin}/${path}`, { waitUntil: "networkidle" });
  return [page, seen];
}

const pages = [...htmlFiles(root)].sort();
const anchors = new Map();
const links = [];
for (const width of WIDTHS) {
  const context = await browser.newContext({ viewport: { width, height: 900 } });
  for (const path of pages) {
    const [page, seen] = await open(context, path);
    const found = await page.evaluate(async () => {
      for (const image of document.images) image.loading = "eager";
      await Promise.all([...document.images].map((image) => image.decode().catch(() => null)));
      return {
        overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
        broken: [...document.images].filter((image) => !image.naturalWidth).map((image) => image.src),
        unnamed: [...document.images].filter((image) => !image.hasAttribute("alt")).map((image) => image.src),
        ids: [...document.querySelectorAll("[id]")].map((element) => element.id),
        links: [...document.querySelectorAll("a[href]")].map((link) => link.href),
      };
    });
    if (found.overflow > 0) fault(`${path} at ${width}: scrolls sideways by ${found.overflow} pixels`);
    for (const source of found.broken) fault(`${path}: no image at ${source}`);
    for (const source of found.unnamed) fault(`${path}: no alternative text for ${source}`);
    if (width === WIDTHS[0]) {
      anchors.set(path, new Set(found.ids));
      links.push(...found.links.map((link) => [path, link]));
      if (seen.bytes > MOST_BYTES) fault(`${path}: ${seen.bytes} bytes`);
    }
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() => axe.run({ resultTypes: ["violations"] }));
    for (const one of violations.filter(({ impact }) => ["serious", "critical"].includes(impact))) {
      const where = one.nodes.slice(0, 3).map((node) => node.target);
      fault(`${path} at ${width}: axe: ${one.id}: ${one.help}: ${where.join("; ")}`);
    }
    if (shots && !path.includes("/")) await page.screenshot({ path: join(shots, `${path}_${width}.png`), fullPage: true });
    await page.close();
  }
  await context.close();
}
for (const [path, link] of links) {
  if (!link.startsWith(origin)) continue;
  const url = new URL(link);
  let target = decodeURIComponent(url.pathname.slice(1)) || "index.html";
  if (target.endsWith("/")) target += "index.html";
  const exists = target.endsWith(".html") ? anchors.has(target) : statSync(join(root, target), { throwIfNoEntry: false });
  if (!exists) fault(`${path}: a link to ${target}`);
  const id = decodeURIComponent(url.hash.slice(1));
  if (id && exists && anchors.has(target) && !anchors.get(target).has(id)) fault(`${path}: a link to ${target}#${id}`);
}
console.log(`${pages.length} pages, ${links.length} links`);

const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, acceptDownloads: true });
await context.grantPermissions(["clipboard-read", "clipboard-write"], { origin });

const [front] = await open(context, "index.html");
const at = () => front.$eval(".compare", (element) => element.style.getPropertyValue("--at"));
await front.focus(".compare input");
await front.keyboard.press("ArrowRight");
check((await at()) === "51%", "the slider follows the keyboard");
const box = await (await front.$(".compare")).boundingBox();
await front.mouse.click(box.x + 0.25 * box.width, box.y + box.height / 2);
check(Math.abs(parseInt(await at(), 10) - 25) < 4, "the slider follows the mouse");
await front.hover("div.highlight");
await front.click("div.highlight button.copybtn >> nth=0");
check((await front.evaluate(() => navigator.clipboard.readText())).startsWith("pip install"), "a block is copied");
await front.close();

const touch = await browser.newContext({ viewport: { width: 390, height: 800 }, hasTouch: true });
const [phone] = await open(touch, "index.html");
const place = await (await phone.$(".compare")).boundingBox();
await phone.touchscreen.tap(place.x + 0.75 * place.width, place.y + place.height / 2);
const touched = await phone.$eval(".compare", (element) => parseInt(element.style.getPropertyValue("--at"), 10));
check(Math.abs(touched - 75) < 5, "the slider follows a finger");
await touch.close();

const [search] = await open(context, "search.html?q=AffineCoupling");
await search.waitForSelector("#search-results li a", { timeout: 20000 }).catch(() => null);
const results = await search.$$eval("#search-results li a", (found) => found.map((link) => link.textContent));
check(results.some((text) => text.includes("AffineCoupling")), `the search finds AffineCoupling (${results.length} results)`);
await search.close();

const [zoo] = await open(context, "models.html");
await zoo.click('table.sortable th button:text-is("parameters")');
const column = await zoo.$eval("table.sortable th[aria-sort]", (head) => head.cellIndex + 1);
const parameters = await zoo.$$eval(`table.sortable tbody td:nth-child(${column})`, (cells) => cells.map((cell) => Number(cell.dataset.value)));
check(parameters.every((value, index) => !index || value <= parameters[index - 1]), "the zoo sorts by parameters");
await zoo.close();

const [trial] = await open(context, "try.html");
const said = () => trial.textContent("#try-status");
const finished = (pattern, milliseconds = 600000) =>
  trial.waitForFunction((source) => new RegExp(source).test(document.querySelector("#try-status").textContent), pattern, { timeout: milliseconds });
const file = (name, buffer, mimeType = "image/png") => ({ name, mimeType, buffer });

await trial.click("#try-sample");
await finished("brought back in");
console.log(`      ${await said()}; ${await trial.textContent("#try-sr-caption")}`);
const same = await trial.evaluate(async (bytes) => {
  const bitmap = await createImageBitmap(new Blob([new Uint8Array(bytes)], { type: "image/png" }));
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0);
  const wanted = context.getImageData(0, 0, bitmap.width, bitmap.height).data;
  const shown = document.querySelector("#try-lr");
  const found = shown.getContext("2d").getImageData(0, 0, shown.width, shown.height).data;
  if (wanted.length !== found.length) return 0;
  let equal = 0;
  for (let i = 0; i < wanted.length; i++) if (i % 4 !== 3 && wanted[i] === found[i]) equal++;
  return equal / (0.75 * wanted.length);
}, [...readFileSync(join(expected, "sample_lr.png"))]);
check(same >= 0.999, `LR agrees with the library's in ${(100 * same).toFixed(3)} % of its values`);
const psnr = parseFloat(/([\d.]+) dB/.exec(await trial.textContent("#try-sr-caption"))?.[1]);
const library = Number(readFileSync(join(expected, "sample_psnr.txt"), "utf8"));
check(Math.abs(psnr - library) < 0.02, `PSNR is the library's: ${psnr} and ${library.toFixed(2)} dB`);

const [download] = await Promise.all([trial.waitForEvent("download"), trial.click("#try-save-lr")]);
const saved = readFileSync(await download.path());
await trial.check('input[value="restore"]');
await trial.setInputFiles("#try-file", file(download.suggestedFilename(), saved));
await finished("^Brought back in");
check(/^600×400/.test(await trial.textContent("#try-sr-caption")), "a saved LR is brought back to its size");

await trial.check('input[value="both"]');
await trial.setInputFiles("#try-file", file("notes.txt", Buffer.from("no picture"), "text/plain"));
await finished("no picture that your browser can read", 20000);
check(true, `a text file: ${await said()}`);
await trial.setInputFiles("#try-file", file("huge.png", blankPng(10000, 10000)));
await finished("100 megapixels", 60000);
check(true, `100 megapixels: ${await said()}`);
await trial.setInputFiles("#try-file", file("broken.png", saved.subarray(0, 60)));
await finished("no picture|cannot be decoded", 20000);
check(true, `half a file: ${await said()}`);

await context.setOffline(true);
await trial.evaluate(() => (document.querySelector("#try-status").textContent = ""));
await trial.setInputFiles("#try-file", file("small.png", saved));
await finished("^Shrunk in");
check(true, "it works offline once loaded");
await context.setOffline(false);

if (process.argv.includes("--best")) {
  await trial.evaluate(() => (document.querySelector("#try-status").textContent = ""));
  await trial.selectOption("#try-model", "iirn_x4");
  await trial.click("#try-sample");
  await finished("brought back in");
  console.log(`      iirn_x4: ${await said()}; ${await trial.textContent("#try-sr-caption")}`);
}
if (shots) await trial.screenshot({ path: join(shots, "trial.png"), fullPage: true });
await browser.close();
server.close();
if (shots) writeFileSync(join(shots, "faults.txt"), faults.join("\n"));
console.log(faults.length ? `${faults.length} faults` : "no faults");
process.exit(faults.length ? 1 : 0);

function blankPng(width, height) {
  const chunk = (type, data) => {
    const body = Buffer.concat([Buffer.from(type), data]);
    const out = Buffer.alloc(body.length + 8);
    out.writeUInt32BE(data.length, 0);
    body.copy(out, 4);
    out.writeUInt32BE(crc32(body), body.length + 4);
    return out;
  };
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header[8] = 1; // one bit of grey
  const rows = Buffer.alloc((Math.ceil(width / 8) + 1) * height);
  const signature = Buffer.from([137, 80, 78, 71, 13, 10, 26, 10]);
  return Buffer.concat([signature, chunk("IHDR", header), chunk("IDAT", deflateSync(rows)), chunk("IEND", Buffer.alloc(0))]);
}
