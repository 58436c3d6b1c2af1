// The jobs that the server knows, newest first.
import { $, ago, el } from "./dom.js";
import { isActive, jobs, remove } from "./api.js";

const OFTEN_MS = 4000;
const STATES = { queued: "Waiting", running: "Running", done: "Done", failed: "Failed", cancelled: "Cancelled" };

export const stateOf = (job) => STATES[job.state] ?? job.state;

export function pill(job) {
  return el("span", { class: "pill", "data-state": job.state }, stateOf(job));
}

function ask(job) {
  const dialog = $("confirm");
  $("confirm-text").textContent = `${job.name}: the scan and everything made from it go from the server for good.`;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) =>
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }),
  );
}

export class History {
  constructor(onTrouble) {
    this.jobs = [];
    this.onTrouble = onTrouble;
    document.addEventListener("visibilitychange", () => document.hidden || this.refresh());
  }

  async refresh() {
    clearTimeout(this.timer);
    try {
      this.jobs = await jobs();
      this.draw();
      if (this.fault) this.onTrouble(null, this.fault);
      this.fault = null;
    } catch (error) {
      if (!this.fault) this.onTrouble(error); // told once, though it is asked again and again
      this.fault ??= error;
    }
    if (this.jobs.some(isActive) && !document.hidden) this.timer = setTimeout(() => this.refresh(), OFTEN_MS);
  }

  update(job) {
    const at = this.jobs.findIndex(({ id }) => id === job.id);
    if (at < 0) this.jobs.unshift(job);
    else this.jobs[at] = job;
    this.draw();
  }

  select(id) {
    this.selected = id;
    this.draw();
  }

  // Returns whether it is gone.
  async delete(job) {
    if (!(await ask(job))) return false;
    await remove(job.id);
    this.jobs = this.jobs.filter(({ id }) => id !== job.id);
    this.draw();
    return true;
  }

  draw() {
    $("no-history").hidden = this.jobs.length > 0;
    const focused = document.activeElement?.dataset?.key;
    $("history").replaceChildren(...this.jobs.map((job) => this.#row(job)));
    if (focused) document.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  }

  #row(job) {
    const current = job.id === this.selected ? "page" : null;
    const bar = job.state === "running" ? el("progress", { max: 1, value: job.progress, "aria-label": "Progress" }) : null;
    return el(
      "li",
      {},
      el(
        "a",
        { href: `#/jobs/${encodeURIComponent(job.id)}`, "aria-current": current, "data-key": job.id },
        el("span", { class: "cut strong" }, job.name),
        el("span", { class: "row small" }, el("span", { class: "muted cut" }, `${ago(job.created)} · ${job.model}`), pill(job)),
        bar,
      ),
    );
  }
}
