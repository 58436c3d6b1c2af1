// A new scan: its files, the model, and sending them.
import { $, bytes, counted, el, fault, swatch, trouble } from "./dom.js";
import { upload } from "./api.js";
import { byChannel, describe, isPicture, isScan, fromDrop, fromInput } from "./picking.js";
import { rendered } from "./markdown.js";

const CHIPS = 6;

export class Form {
  constructor(onJob) {
    this.onJob = onJob;
    this.files = [];
    this.models = [];
    $("pick-files").addEventListener("click", () => $("files").click());
    $("pick-folder").addEventListener("click", () => $("folder").click());
    for (const input of [$("files"), $("folder")]) input.addEventListener("change", () => this.give(fromInput(input)));
    $("forget").addEventListener("click", () => this.give([]));
    $("pixel-size").addEventListener("input", () => this.#ready());
    $("stop-sending").addEventListener("click", () => this.sending?.stop());
    $("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    window.addEventListener("beforeunload", (event) => this.sending && event.preventDefault());
    this.#takeDrops();
  }

  // A drop anywhere counts; elsewhere the browser would leave the page and show the file.
  #takeDrops() {
    const carriesFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
    document.addEventListener("dragover", (event) => {
      if (!carriesFiles(event)) return;
      event.preventDefault();
      $("drop").classList.toggle("over", !this.sending);
    });
    document.addEventListener("dragleave", (event) => event.relatedTarget || $("drop").classList.remove("over"));
    document.addEventListener("drop", async (event) => {
      if (!carriesFiles(event)) return;
      event.preventDefault();
      $("drop").classList.remove("over");
      if (this.sending || !this.models.length) return;
      const files = await fromDrop(event.dataTransfer).catch(() => null);
      if (files === null) return trouble(new Error("What was dropped could not be read."));
      location.hash = "#/";
      this.give(files, true);
    });
  }

  give(given, dropped = false) {
    // Channels often lie in folders of their own, and are chosen one after the other.
    const together = [...this.files, ...given];
    const files = this.files.length && given.length && together.length <= this.channels.length ? together : given;
    if (files === given) $("pixel-size").value = ""; // it was another picture's
    this.files = files;
    trouble(dropped && !files.length ? Object.assign(new Error("There is no file in what was dropped."), { remedy: "Drop a scan, a zip, or the folder that holds the DICOM slices." }) : null);
    $("chosen").hidden = !files.length;
    if (files.length) {
      const { name, size } = describe(files);
      $("chosen-name").textContent = name;
      $("chosen-facts").textContent = `${counted(files.length, "file")}, ${bytes(size)}`;
    }
    this.#askForChannels();
    if (files.length) $("go").focus();
  }

  get channels() {
    return this.model?.channels ?? [];
  }

  // Where there is a file for each channel, say which is which, and let that be changed.
  #askForChannels() {
    const { channels, files } = this;
    const asked = channels.length > 1 && files.length === channels.length;
    this.order = asked ? byChannel(channels, files).map((file) => files.indexOf(file)) : null;
    const rows = (this.order ?? []).map((at, i) => {
      const options = files.map(({ path }, value) => el("option", { value, selected: value === at }, path));
      const onchange = ({ target }) => {
        this.order[i] = Number(target.value);
        this.#ready();
      };
      return el("label", { class: "pair" }, el("span", { class: "strong cut" }, channels[i]), el("select", { "aria-label": channels[i], onchange }, ...options));
    });
    $("channels").hidden = !asked;
    $("channels").replaceChildren($("channels").querySelector("legend"), ...rows);
    this.#ready();
  }

  // Why files and model do not go together, if they do not.
  #unfit() {
    const { files, order } = this;
    const { length: count } = this.channels;
    if (order && new Set(order).size < count) return "One image is given to two channels.";
    if (this.#takesSize && !$("pixel-size").validity.valid) return "The side of a pixel must be above 0 and at most 1000 mm.";
    if (this.#takesSize && files.every(isPicture) && !this.#pixelSize) return "The model measures in millimetres, and a picture does not tell how large it is.";
    if (files.length < 2 || files.length === count || !files.every(isScan)) return "";
    const needed = count > 1 ? `${count} images, or one that holds all channels` : "one scan at a time";
    return `The model takes ${needed}; ${files.length} are chosen.`;
  }

  // A model of pictures in mm has to know how large these are; a file that tells it goes before what is typed.
  get #takesSize() {
    return this.model?.unit === "mm" && this.model.spatial_dims === 2 && this.files.length > 0;
  }

  get #pixelSize() {
    const input = $("pixel-size");
    return this.#takesSize ? input.value : "";
  }

  #ready() {
    $("size").hidden = !this.#takesSize;
    const unfit = this.#unfit();
    $("unfit").textContent = unfit;
    $("go").disabled = !this.files.length || !this.model || Boolean(unfit) || Boolean(this.sending);
  }

  listModels(models) {
    this.models = models;
    const legend = $("models").querySelector("legend");
    const none = el("p", { class: "muted" }, "No model is served. Put .lamina files into the folder that lamina serve was given with --models.");
    $("models").replaceChildren(legend, ...(models.length ? models.map((model) => this.#choice(model)) : [none]));
    $("card").hidden = !models.length;
    if (models.length) this.choose(models[0]);
  }

  #choice(model) {
    const box = el("input", { type: "radio", name: "model", value: model.name, onchange: () => this.choose(model) });
    const { labels, channels, spatial_dims: dims, network, size_bytes: size, scores } = model;
    const dice = typeof scores?.mean_dice === "number" ? `validation Dice ${scores.mean_dice.toFixed(3)}` : null;
    const facts = [`${dims}D`, channels.join(", "), network, bytes(size), dice].filter(Boolean).join(" · ");
    const chips = labels.slice(0, CHIPS).map(({ name, color }) => el("span", { class: "chip" }, swatch(color), name));
    if (labels.length > CHIPS) chips.push(el("span", { class: "chip" }, `and ${labels.length - CHIPS} more`));
    const text = el("span", { class: "text" }, el("span", { class: "strong" }, model.name), el("span", { class: "chips" }, ...chips), el("span", { class: "muted small" }, facts));
    return el("label", { class: "choice" }, box, text);
  }

  choose(model) {
    this.model = model;
    document.querySelector(`#models input[value="${CSS.escape(model.name)}"]`).checked = true;
    $("card-text").replaceChildren(...rendered(model.card));
    const several = model.channels.length > 1;
    $("needs").hidden = !several;
    $("needs").textContent = several ? `This model looks at ${model.channels.length} channels together: ${model.channels.join(", ")}. Give one file that holds them all, or one for each.` : "";
    this.#askForChannels();
  }

  async send() {
    if (!this.files.length || !this.model || this.sending) return;
    const bar = (sent, total) => {
      $("send-bar").value = total ? sent / total : 0;
      $("sent").textContent = `${bytes(sent)} of ${bytes(total)}`;
    };
    bar(0, describe(this.files).size);
    trouble(null);
    const fields = this.order && this.channels.map((channel, i) => ({ ...this.files[this.order[i]], field: channel }));
    this.sending = upload(this.model.name, this.#pixelSize, fields ?? this.files, bar);
    this.#sending(true);
    try {
      const job = await this.sending.sent;
      if (job) {
        this.give([]);
        this.onJob(job);
      }
    } catch (error) {
      trouble(error);
    } finally {
      this.sending = null;
      this.#sending(false);
      this.#ready();
    }
  }

  #sending(on) {
    $("sending").hidden = !on;
    $("chosen").hidden = on || !this.files.length;
    $("models").disabled = on;
    $("channels").disabled = on;
    $("pixel-size").disabled = on;
    for (const id of ["go", "pick-files", "pick-folder"]) $(id).disabled = on;
  }
}
