// The page's side of the trial: a picture in, the worker's answer out. All computing is in worker.js.
const MOST_PIXELS = 24e6;
const here = new URL(".", import.meta.url);
const find = (id) => document.getElementById(id);
const status = (text, isError = false) => {
  find("try-status").textContent = text;
  find("try-status").classList.toggle("try-error", isError);
};

let worker = null;
let models = [];
let busy = false;

class Told extends Error {} // with a sentence for the visitor

try {
  models = await (await fetch(new URL("models.json", here))).json();
  for (const model of models) {
    const megabytes = ((model.down.bytes + model.up.bytes) / 1e6).toFixed(1);
    find("try-model").add(new Option(`${model.name}: ${model.words}, ${megabytes} MB`, model.name));
  }
} catch {
  status("The list of models did not load; please load the page again.", true);
}

find("try-file").addEventListener("change", (event) => take(event.target.files[0]));
find("try-stop").addEventListener("click", stop);
find("try-sample").addEventListener("click", async () => {
  try {
    const answer = await fetch(new URL("sample.png", here));
    find("try").task.value = "both";
    take(new File([await answer.blob()], "sample.png", { type: "image/png" }));
  } catch {
    status("The sample did not load; are you offline?", true);
  }
});
const drop = find("try-drop");
for (const kind of ["dragenter", "dragover"]) {
  drop.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.add("try-over");
  });
}
for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, () => drop.classList.remove("try-over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  take(event.dataTransfer.files[0]);
});

async function take(file) {
  if (!file || busy) return;
  find("try-file").value = "";
  find("try-result").hidden = true;
  status("");
  const task = find("try").task.value;
  const model = models.find((one) => one.name === find("try-model").value);
  setBusy(true);
  try {
    const picture = await read(file, task === "restore" ? model.scale : 1);
    const size = task === "restore" ? sizeIn(file.name, picture, model.scale) : [picture.height, picture.width];
    show(await compute({ task, model, ...picture, size }), picture, file.name, task, model);
  } catch (error) {
    status(error instanceof Told ? error.message : `It failed: ${error.message}`, true);
    if (!(error instanceof Told)) stopWorker();
  } finally {
    setBusy(false);
  }
}

async function read(file, growth) {
  const url = URL.createObjectURL(file);
  try {
    const image = new Image();
    image.src = url;
    try {
      await new Promise((resolve, reject) => Object.assign(image, { onload: resolve, onerror: reject }));
    } catch {
      throw new Told(`“${file.name}” is no picture that your browser can read.`);
    }
    const [width, height] = [image.naturalWidth, image.naturalHeight];
    if (!width || !height) throw new Told(`“${file.name}” does not say how large it is.`);
    const pixels = width * height * growth * growth;
    if (pixels > MOST_PIXELS) {
      const megapixels = Math.round(pixels / 1e6);
      throw new Told(`That would be ${megapixels} megapixels; this page takes up to ${MOST_PIXELS / 1e6}. The command line takes more.`);
    }
    const bitmap = await createImageBitmap(file, { premultiplyAlpha: "none" }).catch(() => {
      throw new Told(`“${file.name}” cannot be decoded by your browser.`);
    });
    const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
    const context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
    context.drawImage(bitmap, 0, 0);
    const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
    return { pixels: data, width: bitmap.width, height: bitmap.height };
  } finally {
    URL.revokeObjectURL(url);
  }
}

// A saved LR says in its name how large the original was.
function sizeIn(name, { width, height }, scale) {
  const found = /_(\d+)x(\d+)\D*$/.exec(name);
  const size = found ? [Number(found[2]), Number(found[1])] : [height * scale, width * scale];
  const fits = Math.ceil(size[0] / scale) === height && Math.ceil(size[1] / scale) === width;
  return fits ? size : [height * scale, width * scale];
}

function compute(job) {
  worker ??= new Worker(new URL("worker.js", here), { type: "module" });
  return new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => {
      if (data.status) status(data.status);
      if (data.share !== undefined) find("try-progress").value = data.share;
      if (data.error) reject(data.told ? new Told(data.error) : new Error(data.error));
      if (data.result) resolve(data.result);
    };
    worker.onerror = (event) => reject(new Error(event.message ?? "the worker did not start"));
    find("try-stop").onclick = () => reject(new Told("Stopped."));
    worker.postMessage(job);
  });
}

function show({ lr, sr, psnr, seconds }, picture, name, task, model) {
  const stem = name.replace(/\.[^.]*$/, "").replace(/_lr_x\d+_\d+x\d+$/, "");
  draw(find("try-lr"), lr);
  draw(find("try-sr"), sr);
  const plain = find("try-plain");
  Object.assign(plain, { width: sr.width, height: sr.height });
  const context = plain.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(find("try-lr"), 0, 0, lr.width * model.scale, lr.height * model.scale);
  find("try-lr-caption").textContent = `LR: ${lr.width}×${lr.height}`;
  const quality = psnr === null ? "" : `, ${psnr.toFixed(2)} dB (PSNR, RGB)`;
  find("try-sr-caption").textContent = `${sr.width}×${sr.height}${quality}`;
  const lrFile = `${stem}_lr_x${model.scale}_${sr.width}x${sr.height}.png`;
  save(find("try-save-lr"), find("try-lr"), lrFile);
  save(find("try-save-sr"), find("try-sr"), `${stem}_restored.png`);
  find("try-save-lr").hidden = task === "restore";
  find("try-result").hidden = false;
  status(task === "restore" ? `Brought back in ${seconds.up.toFixed(1)} s.` : `Shrunk in ${seconds.down.toFixed(1)} s, brought back in ${seconds.up.toFixed(1)} s.`);
}

function draw(canvas, { pixels, width, height }) {
  Object.assign(canvas, { width, height });
  canvas.getContext("2d").putImageData(new ImageData(pixels, width, height), 0, 0);
}

function save(link, canvas, name) {
  link.onclick = (event) => {
    event.preventDefault();
    canvas.toBlob((blob) => {
      const url = URL.createObjectURL(blob);
      Object.assign(document.createElement("a"), { href: url, download: name }).click();
      setTimeout(() => URL.revokeObjectURL(url), 10000);
    }, "image/png");
  };
}

function setBusy(now) {
  busy = now;
  find("try-stop").hidden = !now;
  find("try-progress").hidden = !now;
  find("try-progress").value = 0;
  for (const control of [find("try-file"), find("try-sample"), find("try-model")]) control.disabled = now;
}

function stop() {
  stopWorker();
}

function stopWorker() {
  worker?.terminate();
  worker = null;
}
