// The viewer of one finished job: its controls, and the scene that they change.
import { $, announce, bytes, el } from "./dom.js";
import { download, fileUrl } from "./api.js";
import { AXES, Scene } from "./scene.js";
import { sidesOf } from "./sides.js";
import { listStructures } from "./structures.js";
import { windowsOf } from "./windows.js";

const VIEWS = { planes: "Planes", axial: "Axial", coronal: "Coronal", sagittal: "Sagittal", solid: "3D" };
const FLAT_ONLY = ["window-box", "outline-box", "opacity-box"];
const DOWNLOADS = {
  segmentation: ["Segmentation", "NIfTI label map on the scan's grid"],
  picture: ["Picture", "the same as PNG, values as greys"],
  seg: ["DICOM SEG", "for a PACS"],
  rtstruct: ["DICOM RTSTRUCT", "contours for planning"],
  mesh: ["Surfaces", "glTF, in patient mm"],
  report: ["Report", "one page, opens anywhere"],
};

export class Viewer {
  constructor(job) {
    this.job = job;
    this.closed = false;
  }

  async open() {
    $("done").replaceChildren($("viewer-template").content.cloneNode(true));
    this.#list();
    try {
      await this.#load();
    } catch (error) {
      this.#fail(error);
    }
  }

  close() {
    this.closed = true;
    this.scene?.close();
    this.scene = null;
    $("done").replaceChildren();
  }

  #fail({ message, remedy }) {
    if (!this.closed) this.#say([message, remedy].filter(Boolean).join(" "));
  }

  #say(text) {
    $("loading").textContent = text;
    $("loading").hidden = !text;
  }

  #file(kind) {
    return this.job.files.find((file) => file.kind === kind);
  }

  async #blob(kind, told) {
    const file = this.#file(kind);
    if (!file) return null;
    const blob = await download(fileUrl(this.job, file.name), (part) => this.#say(`${told} ${Math.round(100 * part)} %`));
    return { blob, name: file.name };
  }

  async #load() {
    this.#say("Loading the scan");
    const scan = await this.#blob("scan", "Loading the scan");
    if (!scan) throw new Error("The scan is not kept here; the results can be downloaded.");
    const segmentation = await this.#blob("segmentation", "Loading the segmentation");
    if (this.closed) return;
    const canvases = { planes: $("planes"), solid: $("solid") };
    const scene = await Scene.open(canvases, scan, segmentation, this.job.structures);
    if (this.closed) return scene.close();
    this.scene = scene;
    this.#controls(Boolean(segmentation));
    this.#say("");
    await this.show(scene.plane ?? "planes");
    $("screen").dataset.ready = "";
  }

  #list() {
    const { structures, overlap, flags, files, model } = this.job;
    this.list = listStructures(structures, {
      overlap,
      onVisible: (visible) => this.scene?.setVisible(visible),
      onGoTo: (structure) => this.goTo(structure),
    });
    $("structures-card").hidden = !structures.length;
    $("scan-flags").hidden = !flags.length;
    $("scan-flags").replaceChildren(el("h2", {}, "Check this result"), el("ul", {}, ...flags.map((flag) => el("li", {}, flag))));
    const offered = model ? files.filter(({ kind }) => kind in DOWNLOADS) : [];
    $("downloads-card").hidden = !offered.length;
    $("downloads").replaceChildren(...offered.map((file) => this.#offer(file)));
  }

  #offer({ name, kind, size_bytes: size }) {
    const [title, what] = DOWNLOADS[kind];
    const href = fileUrl(this.job, name);
    const open = kind === "report" ? el("a", { href, target: "_blank", rel: "noopener", class: "small" }, "open") : null;
    return el(
      "li",
      {},
      el("span", { class: "buttons" }, el("a", { href, download: name }, title), open),
      el("span", { class: "muted small number" }, bytes(size)),
      el("span", { class: "muted small what" }, what),
    );
  }

  #controls(hasOverlay) {
    const { scene } = this;
    const views = scene.plane ? [scene.plane] : Object.keys(VIEWS);
    $("views").hidden = views.length < 2;
    $("views").append(
      ...views.map((view) =>
        el("label", {}, el("input", { type: "radio", name: "view", value: view, onchange: () => this.show(view) }), el("span", {}, VIEWS[view])),
      ),
    );
    $("views").addEventListener("click", ({ detail }) => detail && setTimeout(() => this.#toPicture()));
    $("overlay-tools").hidden = !hasOverlay;
    $("overlay").addEventListener("change", () => scene.setOverlay($("overlay").checked));
    $("outline").addEventListener("change", () => scene.setOutline($("outline").checked));
    $("opacity").addEventListener("input", () => scene.setFill($("opacity").value / 100));
    $("slice").addEventListener("input", () => scene.move(this.view, $("slice").value - scene.slice(this.view).at));
    $("reset").addEventListener("click", () => this.reset());
    $("full").addEventListener("click", () => this.fullScreen());
    $("frame-box").hidden = scene.frames < 2;
    $("frame").append(...Array.from({ length: scene.frames }, (_, i) => el("option", { value: i }, `${i + 1}`)));
    $("frame").addEventListener("change", () => this.setFrame(Number($("frame").value)));
    $("window").addEventListener("change", () => this.setWindow(Number($("window").value)));
    scene.onWindow(() => {
      $("window").value = "own";
    });
    this.#windows();
    scene.onPlace((place) => this.#tell(place));
  }

  // Channels differ in their values: each has windows of its own, and the chosen one stays by its name.
  #windows() {
    const chosen = $("window").selectedOptions[0]?.text;
    this.windows = this.scene.isColoured ? [] : windowsOf(this.scene.image);
    $("window-box").hidden = !this.windows.length;
    $("window").replaceChildren(
      ...this.windows.map(({ name }, i) => el("option", { value: i }, name)),
      el("option", { value: "own", hidden: true }, "As set by hand"),
    );
    if (this.windows.length) this.setWindow(Math.max(0, this.windows.findIndex(({ name }) => name === chosen)));
  }

  // A window that was set by hand stays as it is: frames may be moments of one scan.
  setFrame(frame) {
    const { cal_min: low, cal_max: high } = this.scene.image;
    const isOwn = $("window").value === "own";
    this.scene.setFrame(frame);
    this.#windows();
    if (!isOwn) return;
    this.scene.setWindow(low, high);
    $("window").value = "own";
  }

  setWindow(at) {
    const { low, high } = this.windows[at];
    this.scene.setWindow(low, high);
    $("window").value = at;
  }

  async show(view) {
    if (view !== (this.scene.plane ?? view)) return;
    this.view = view;
    const box = document.querySelector(`#views input[value=${view}]`);
    if (box) box.checked = true;
    $("screen").dataset.view = view;
    $("sides").replaceChildren(...(this.scene.isPicture ? [] : sidesOf(view)));
    const hasSolid = this.scene.show(view);
    $("solid-box").hidden = !hasSolid;
    $("slice-box").hidden = !(view in AXES) || this.scene.slice(view).count < 2;
    this.#slider();
    for (const id of FLAT_ONLY) $(id).classList.toggle("off", view === "solid");
    if (hasSolid) await this.#solid();
  }

  async #solid() {
    const fetchMeshes = this.#file("mesh") && (async () => {
      const mesh = await this.#blob("mesh", "Loading surfaces");
      return mesh.blob.arrayBuffer();
    });
    try {
      await this.scene.openSolid(fetchMeshes);
      if (!this.closed) this.#say("");
    } catch (error) {
      this.#fail(error);
    }
  }

  // A mouse leaves the cursor keys to the slices; who chose by keys goes on among the planes with them.
  #toPicture() {
    if (!this.closed) $(this.view === "solid" ? "solid" : "planes").focus({ preventScroll: true });
  }

  #slider() {
    if (!(this.view in AXES)) return;
    const { at, count } = this.scene.slice(this.view);
    Object.assign($("slice"), { max: count - 1, value: at });
    $("slice-number").textContent = `${at + 1} / ${count}`;
  }

  #tell({ mm, pixel, value, structure }) {
    const ends = ["LR", "PA", "IS"]; // towards less, towards more; RAS+ mm
    const words = this.scene.isPicture
      ? `x ${pixel[0]}, y ${pixel[1]}`
      : [...mm].slice(0, 3).map((at, i) => `${ends[i][at < 0 ? 0 : 1]} ${Math.abs(at).toFixed(1)}`).join("  ") + " mm";
    const shown = Number.isFinite(value) && !this.scene.isColoured ? ` · ${Number(value.toPrecision(4))}` : "";
    $("place").textContent = words + shown + (structure ? ` · ${structure.name}` : "");
    this.#slider();
  }

  goTo(structure) {
    if (!this.scene?.goTo(structure)) return;
    if (this.view === "solid") this.show("planes");
    announce(`At ${structure.name}`);
  }

  reset() {
    this.scene.reset();
    if (this.windows.length) this.setWindow(0);
  }

  fullScreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else document.querySelector(".stage").requestFullscreen?.().catch(() => {});
  }
}
