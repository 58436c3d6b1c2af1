// One job: how it goes on, what it came to.
import { $, ago, announce, el, fault, secondsBetween, span } from "./dom.js";
import { cancel, follow, isActive, job as fetchJob } from "./api.js";
import { pill, stateOf } from "./history.js";
import { Viewer } from "./viewer.js";

const STAGES = { reading: "Reading the scan", segmenting: "Segmenting", writing: "Writing the results", drawing: "Drawing surfaces and the report" };
const LOST = "The connection is lost; the server is asked again.";

export class JobPage {
  constructor({ onChange, onTrouble, onDelete }) {
    Object.assign(this, { onChange, onTrouble });
    $("cancel").addEventListener("click", () => this.#act(() => cancel(this.job.id)));
    $("delete").addEventListener("click", () => onDelete(this.job));
  }

  async open(id) {
    this.close();
    this.id = id;
    try {
      const found = await fetchJob(id);
      if (this.id !== id) return;
      this.#show(found);
      $("job-name").focus({ preventScroll: true });
      if (isActive(found)) this.stop = follow(id, (heard) => this.#show(heard), (lost) => this.#lost(lost));
    } catch (error) {
      this.onTrouble(error);
    }
  }

  close() {
    $("job").hidden = true;
    this.stop?.();
    clearInterval(this.clock);
    this.viewer?.close();
    Object.assign(this, { id: null, job: null, stop: null, viewer: null, said: null });
  }

  async #act(what) {
    try {
      this.#show(await what());
    } catch (error) {
      this.onTrouble(error);
    }
  }

  #show(job) {
    if (job.id !== this.id) return;
    this.job = job;
    $("job").hidden = false;
    const isLocal = !job.model;
    $("job-name").textContent = job.name;
    const facts = [job.model, job.finished ? ago(job.finished) : null, this.#took(job)].filter(Boolean).join(" · ");
    $("job-facts").replaceChildren(...(isLocal ? [] : [pill(job), ` ${facts}`]));
    $("cancel").hidden = !isActive(job);
    $("delete").hidden = isActive(job) || isLocal;
    $("running").hidden = !isActive(job);
    $("ended").hidden = !["failed", "cancelled"].includes(job.state);
    $("done").hidden = job.state !== "done";
    if (isActive(job)) this.#progress();
    if (!$("ended").hidden) this.#ended();
    if (job.state === "done" && !this.viewer) {
      this.viewer = new Viewer(job);
      this.viewer.open();
    }
    this.#tell(isLocal);
    this.onChange(job);
  }

  #took({ started, finished, state }) {
    return state === "done" && started && finished ? `took ${span(secondsBetween(started, finished))}` : null;
  }

  #progress() {
    const { state, stage, progress, position } = this.job;
    const isWaiting = state === "queued";
    $("stage").textContent = isWaiting ? "Waiting for its turn" : STAGES[stage] ?? stage ?? "Running";
    $("percent").textContent = isWaiting ? "" : `${Math.floor(100 * progress)} %`;
    if (isWaiting) $("progress").removeAttribute("value");
    else $("progress").value = progress;
    const queue = position > 1 ? `${position - 1} before it in the queue` : "Next in the queue";
    const tick = () => {
      const { started } = this.job;
      $("elapsed").textContent = isWaiting ? queue : started ? `${span(secondsBetween(started))} so far` : "";
    };
    clearInterval(this.clock);
    this.clock = setInterval(tick, 1000);
    tick();
  }

  #lost(lost) {
    if (lost && this.job && isActive(this.job)) {
      clearInterval(this.clock);
      $("elapsed").textContent = LOST;
    }
  }

  #ended() {
    clearInterval(this.clock);
    const again = el("a", { class: "button primary", href: "#/" }, "Try another scan");
    const said = this.job.state === "cancelled" ? { message: "Cancelled; there is no result." } : this.job.error ?? { message: "The segmentation failed." };
    $("ended").dataset.state = this.job.state;
    $("ended").replaceChildren(...fault(said, again));
  }

  // Only what changes is said, not every percent.
  #tell(isLocal) {
    const { state, stage } = this.job;
    const news = `${state} ${stage}`;
    if (this.said === news || isLocal) return;
    this.said = news;
    announce(state === "running" ? STAGES[stage] ?? "Running" : stateOf(this.job));
  }
}
