// What is drawn: NiiVue on two canvases, slices on one and surfaces on the other.
import { Labels } from "./labels.js";
import { surfacesIn } from "./glb.js";

export const AXES = { axial: 2, coronal: 1, sagittal: 0 };
const SLICES = { axial: 0, coronal: 1, sagittal: 2, planes: 3 };
const RENDER = 4;
const BACK = [0, 0, 0, 1];
const CROSS = [0.45, 0.78, 1, 0.75];
const CROSS_PIXELS = 1.8; // less, and lines between pixels vanish
const QUARTERS = [
  { sliceType: 0, position: [0, 0, 0.5, 0.5] },
  { sliceType: 1, position: [0.5, 0, 0.5, 0.5] },
  { sliceType: 2, position: [0, 0.5, 0.5, 0.5] },
];
const FILL = 0.5;
const TAP_PIXELS = 10;
const FRONT = [165, 12];

let script = null;

// The library is large, and needed only once there is something to see.
function library() {
  script ??= new Promise((resolve, reject) => {
    const made = document.createElement("script");
    made.src = "static/niivue.umd.js";
    made.addEventListener("load", () => resolve(window.niivue));
    made.addEventListener("error", () => reject(new Error("The viewer could not be loaded.")));
    document.head.append(made);
  });
  return script;
}

function rgb(colour) {
  return [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16) || 0);
}

async function attached(canvas, options) {
  const { Niivue } = await library();
  const made = new Niivue({
    backColor: BACK,
    crosshairColor: CROSS,
    dragAndDropEnabled: false,
    isOrientationTextVisible: false, // its letters vanish on bright tissue
    isRadiologicalConvention: true,
    loadingText: "",
    logLevel: "silent",
    multiplanarShowRender: 0,
    ...options,
  });
  try {
    await made.attachToCanvas(canvas);
  } catch {
    throw new Error("This browser cannot draw scans: it has no WebGL 2. Use a current Firefox, Chrome, Edge or Safari.");
  }
  return made;
}

// NiiVue takes a finger for a click only if it stays for a while.
function takeTaps(canvas, slices) {
  let first = null;
  canvas.addEventListener("touchstart", ({ touches }) => {
    first = touches.length === 1 ? touches[0] : null;
  });
  canvas.addEventListener("touchend", ({ changedTouches: [last] }) => {
    if (!first || Math.hypot(last.clientX - first.clientX, last.clientY - first.clientY) > TAP_PIXELS) return;
    const { left, top } = canvas.getBoundingClientRect();
    slices.mouseDown(last.clientX - left, last.clientY - top);
    slices.mouseClick(last.clientX - left, last.clientY - top);
  });
}

const loaded = async (blob, name) =>
  (await library()).NVImage.loadFromFile({ file: new File([blob], name), name });

export class Scene {
  // Draws a scan, and a label map if there is one; blobs are NIfTI files.
  static async open(canvases, scan, segmentation, structures) {
    const made = new Scene();
    made.canvases = canvases;
    made.structures = structures;
    made.visible = new Set(structures.map(({ value }) => value));
    made.shown = true;
    made.meshes = null;
    made.slices = await attached(canvases.planes, { crosshairWidthUnit: "percent" });
    takeTaps(canvases.planes, made.slices);
    made.image = await loaded(scan.blob, scan.name);
    made.slices.addVolume(made.image);
    if (segmentation) {
      const image = await loaded(segmentation.blob, segmentation.name);
      made.labels = new Labels(image, structures);
      image.setColormapLabel(made.labels.colours());
      image.opacity = FILL;
      made.slices.addVolume(image);
    }
    made.reset();
    return made;
  }

  get dims() {
    return this.image.dimsRAS.slice(1, 4);
  }

  // The plane of a scan that is one slice.
  get plane() {
    return Object.keys(AXES).find((plane) => this.dims[AXES[plane]] === 1);
  }

  // Whether nothing tells how it lies in the body: its header has no unit, or but two axes.
  get isPicture() {
    const { xyzt_units: units, dims } = this.image.hdr;
    return (units & 7) === 0 || dims[0] === 2;
  }

  get isColoured() {
    return this.image.hdr.datatypeCode === 128;
  }

  get frames() {
    return this.isColoured ? 1 : this.image.nFrame4D ?? 1;
  }

  // Voxels are counted from the patient's left and back, pixels from the left and the top of the screen.
  onPlace(listen) {
    const [width, height] = this.dims;
    this.slices.onLocationChange = ({ mm, values }) => {
      const [scan, label] = values;
      const [x, y] = scan.vox;
      listen({ mm, value: scan.value, pixel: [width - 1 - x, height - 1 - y], structure: this.structures[Math.round(label?.value ?? 0) - 1] });
    };
    this.slices.createOnLocationChange();
  }

  onWindow(listen) {
    this.slices.onIntensityChange = (image) => listen(image.cal_min, image.cal_max);
  }

  show(view) {
    this.view = view;
    const hasSolid = view === "planes" || view === "solid";
    if (view !== "solid") {
      this.slices.customLayout = view === "planes" ? QUARTERS : null;
      this.slices.setSliceType(SLICES[view]);
      const width = this.canvases.planes.clientWidth / (view === "planes" ? 2 : 1);
      this.slices.setCrosshairWidth((100 * CROSS_PIXELS) / width);
    }
    return hasSolid;
  }

  // Where the cross is, as a slice of a plane, and how many there are.
  slice(plane) {
    const axis = AXES[plane];
    return { at: this.slices.frac2vox(this.slices.scene.crosshairPos)[axis], count: this.dims[axis] };
  }

  move(plane, steps) {
    const by = [0, 0, 0];
    by[AXES[plane]] = steps;
    this.slices.moveCrosshairInVox(...by);
  }

  goTo(structure) {
    const voxel = this.labels?.middle(structure);
    if (!voxel) return false;
    const { affine } = this.labels.image.hdr;
    const mm = affine.slice(0, 3).map((row) => row[3] + voxel.reduce((sum, at, i) => sum + at * row[i], 0));
    this.slices.scene.crosshairPos = this.slices.mm2frac(mm, 0, true);
    this.slices.createOnLocationChange();
    this.slices.drawScene();
    return true;
  }

  setWindow(low, high) {
    Object.assign(this.image, { cal_min: low, cal_max: high });
    this.slices.updateGLVolume();
  }

  setFrame(frame) {
    this.slices.setFrame4D(this.image.id, frame);
    this.image.ignoreZeroVoxels = false; // it stays set once a channel is mostly empty
    this.image.calMinMax(frame);
  }

  setFill(fill) {
    if (this.labels) this.slices.setOpacity(1, fill);
  }

  setOutline(on) {
    this.slices.setAtlasOutline(on ? 1 : 0);
  }

  setOverlay(on) {
    this.shown = on;
    this.setVisible(this.visible);
  }

  setVisible(visible) {
    this.visible = visible;
    const drawn = this.shown ? visible : new Set();
    this.labels?.show(drawn);
    this.slices.updateGLVolume();
    for (const mesh of this.meshes ?? []) mesh.visible = drawn.has(mesh.structure.value);
    if (this.solid && !this.meshes) this.solid.updateGLVolume();
    this.solid?.drawScene();
  }

  // Draw in 3D: surfaces where the server has made them, else the voxels themselves.
  openSolid(fetchMeshes) {
    this.opening ??= this.#openSolid(fetchMeshes).catch((error) => {
      this.opening = null;
      throw error;
    });
    return this.opening;
  }

  async #openSolid(fetchMeshes) {
    const buffer = await fetchMeshes?.();
    this.solid = await attached(this.canvases.solid, { isOrientCube: true, show3Dcrosshair: false, crosshairWidth: 0 });
    if (buffer) await this.#addMeshes(buffer);
    else for (const image of [this.image, this.labels?.image].filter(Boolean)) this.solid.addVolume(image);
    this.solid.setSliceType(RENDER);
    this.solid.setRenderAzimuthElevation(...FRONT);
  }

  async #addMeshes(buffer) {
    const { NVMesh } = await library();
    this.meshes = [];
    for (const { name, points, triangles } of surfacesIn(buffer)) {
      const structure = this.structures.find((one) => one.name === name);
      if (!structure) continue;
      const colour = new Uint8Array([...rgb(structure.color), 255]);
      const isVisible = this.shown && this.visible.has(structure.value);
      const mesh = new NVMesh(points, triangles, name, colour, 1, isVisible, this.solid.gl);
      this.meshes.push(Object.assign(mesh, { structure }));
      this.solid.addMesh(mesh);
    }
  }

  turn(right, up) {
    if (!this.solid) return;
    const { renderAzimuth, renderElevation } = this.solid.scene;
    this.solid.setRenderAzimuthElevation(renderAzimuth + right, renderElevation + up);
  }

  zoom(factor) {
    if (this.view === "solid") this.solid?.setScale(this.solid.scene.volScaleMultiplier * factor);
    else {
      const pan = this.slices.scene.pan2Dxyzmm;
      this.slices.setPan2Dxyzmm([pan[0], pan[1], pan[2], Math.max(0.5, pan[3] * factor)]);
    }
  }

  reset() {
    this.slices.setPan2Dxyzmm([0, 0, 0, 1]);
    this.slices.scene.crosshairPos = [0.5, 0.5, 0.5];
    const largest = [...this.structures].sort((a, b) => b.size - a.size);
    if (!largest.some((structure) => this.goTo(structure))) this.slices.drawScene();
    if (this.solid) {
      this.solid.setScale(1);
      this.solid.setRenderAzimuthElevation(...FRONT);
    }
  }

  // Give the memory of the graphics card back.
  close() {
    for (const part of [this.slices, this.solid].filter(Boolean)) {
      const { gl } = part;
      part.cleanup();
      gl.getExtension("WEBGL_lose_context")?.loseContext();
    }
  }
}
