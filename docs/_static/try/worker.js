// Both directions of a model on ONNX Runtime Web, in tiles laid as the library lays them.
import * as ort from "./ort/ort.wasm.min.mjs";

ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
ort.env.wasm.numThreads = self.crossOriginIsolated ? navigator.hardwareConcurrency : 1;

const sessions = new Map();

class Told extends Error {}

self.onmessage = async ({ data: job }) => {
  try {
    self.postMessage({ result: await run(job) });
  } catch (error) {
    self.postMessage({ error: error.message ?? String(error), told: error instanceof Told });
  }
};

async function run({ task, model, pixels, width, height, size }) {
  const seconds = {};
  let lr = { pixels, width, height };
  let share = (done) => self.postMessage({ share: done });
  if (task === "both") {
    const session = await open(model.down);
    self.postMessage({ status: `Shrinking with ${model.name} …` });
    const started = performance.now();
    lr = await downscale(session, model, lr, (done) => share(done / 2));
    seconds.down = (performance.now() - started) / 1000;
  }
  const session = await open(model.up);
  self.postMessage({ status: `Bringing it back with ${model.name} …` });
  const started = performance.now();
  const whole = await upscale(session, model, lr, (done) => share(task === "both" ? (1 + done) / 2 : done));
  seconds.up = (performance.now() - started) / 1000;
  const sr = cut(whole, size);
  const psnr = task === "both" ? psnrOf(sr, pixels) : null;
  return { lr, sr: { ...size2(size), pixels: toPixels(sr) }, psnr, seconds };
}

const size2 = ([height, width]) => ({ width, height });

async function open({ file, bytes }) {
  if (sessions.has(file)) return sessions.get(file);
  self.postMessage({ status: `Loading the network (${(bytes / 1e6).toFixed(1)} MB) …` });
  try {
    const answer = await fetch(new URL(file, import.meta.url));
    if (!answer.ok) throw new Error(answer.statusText);
    const session = await ort.InferenceSession.create(await answer.arrayBuffer(), { executionProviders: ["wasm"] });
    sessions.set(file, session);
    return session;
  } catch (error) {
    throw new Told(`The network did not load (${error.message}). Are you offline?`);
  }
}

// HR pixels to LR pixels: borders repeated up to a multiple of the scale.
async function downscale(session, { scale, tile, overlap }, { pixels, width, height }, share) {
  const [rows, columns] = [Math.ceil(height / scale), Math.ceil(width / scale)];
  const lr = new Uint8ClampedArray(4 * rows * columns).fill(255);
  const tiles = windows(rows, columns, tile / scale, Math.ceil(overlap / scale));
  for (const [index, window] of tiles.entries()) {
    const [top, left, bottom, right] = window.seen.map((value) => scale * value);
    const [h, w] = [bottom - top, right - left];
    const planes = new Float32Array(3 * h * w);
    for (let y = 0; y < h; y++) {
      const row = width * Math.min(top + y, height - 1);
      for (let x = 0; x < w; x++) {
        const from = 4 * (row + Math.min(left + x, width - 1));
        for (let c = 0; c < 3; c++) planes[(c * h + y) * w + x] = pixels[from + c] / 255;
      }
    }
    const { lr: made } = await session.run({ hr: new ort.Tensor("float32", planes, [1, 3, h, w]) });
    paste(made, window, 1, (c, y, x, value) => {
      lr[4 * (y * columns + x) + c] = Math.round(255 * value);
    });
    share((index + 1) / tiles.length);
  }
  return { pixels: lr, width: columns, height: rows };
}

// LR pixels to planes of HR, of scale times the size.
async function upscale(session, { scale, tile, overlap }, { pixels, width, height }, share) {
  const [rows, columns] = [scale * height, scale * width];
  const planes = new Float32Array(3 * rows * columns);
  const tiles = windows(height, width, tile / scale, Math.ceil(overlap / scale));
  for (const [index, window] of tiles.entries()) {
    const [top, left, bottom, right] = window.seen;
    const [h, w] = [bottom - top, right - left];
    const given = new Float32Array(3 * h * w);
    for (let y = 0; y < h; y++) {
      for (let x = 0; x < w; x++) {
        const from = 4 * ((top + y) * width + left + x);
        for (let c = 0; c < 3; c++) given[(c * h + y) * w + x] = pixels[from + c] / 255;
      }
    }
    const { sr } = await session.run({ lr: new ort.Tensor("float32", given, [1, 3, h, w]) });
    paste(sr, window, scale, (c, y, x, value) => {
      planes[(c * rows + y) * columns + x] = value;
    });
    share((index + 1) / tiles.length);
  }
  return { planes, rows, columns };
}

// Tiles of LR pixels, and what each sees: itself and `overlap` around, as far as the picture goes.
function windows(rows, columns, tile, overlap) {
  const found = [];
  for (let top = 0; top < rows; top += tile) {
    for (let left = 0; left < columns; left += tile) {
      const [bottom, right] = [Math.min(top + tile, rows), Math.min(left + tile, columns)];
      const seen = [Math.max(top - overlap, 0), Math.max(left - overlap, 0)];
      seen.push(Math.min(bottom + overlap, rows), Math.min(right + overlap, columns));
      found.push({ own: [top, left, bottom, right], seen });
    }
  }
  return found;
}

function paste(tensor, { own, seen }, scale, put) {
  const [, , h, w] = tensor.dims;
  const [top, left, bottom, right] = own.map((value) => scale * value);
  const [above, before] = seen.map((value) => scale * value);
  for (let c = 0; c < 3; c++) {
    for (let y = top; y < bottom; y++) {
      const row = (c * h + y - above) * w - before;
      for (let x = left; x < right; x++) put(c, y, x, tensor.data[row + x]);
    }
  }
}

function cut({ planes, rows, columns }, [height, width]) {
  const out = new Float32Array(3 * height * width);
  for (let c = 0; c < 3; c++) {
    for (let y = 0; y < height; y++) {
      const from = (c * rows + y) * columns;
      out.set(planes.subarray(from, from + width), (c * height + y) * width);
    }
  }
  return out;
}

function toPixels(planes) {
  const count = planes.length / 3;
  const pixels = new Uint8ClampedArray(4 * count).fill(255);
  for (let c = 0; c < 3; c++) {
    for (let i = 0; i < count; i++) pixels[4 * i + c] = Math.round(255 * Math.min(1, Math.max(0, planes[c * count + i])));
  }
  return pixels;
}

function psnrOf(planes, pixels) {
  const count = planes.length / 3;
  let sum = 0;
  for (let c = 0; c < 3; c++) {
    for (let i = 0; i < count; i++) {
      const difference = Math.min(1, Math.max(0, planes[c * count + i])) - pixels[4 * i + c] / 255;
      sum += difference * difference;
    }
  }
  return sum === 0 ? Infinity : 10 * Math.log10((3 * count) / sum);
}
