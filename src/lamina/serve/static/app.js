// The page: which part of it is shown, and how the parts tell each other.
import { $, trouble } from "./dom.js";
import { models } from "./api.js";
import { Form } from "./form.js";
import { History } from "./history.js";
import { JobPage } from "./job.js";
import { listenToKeys } from "./keys.js";

// The address may carry the token; the cookie has it now, and the browser's history must not.
if (new URLSearchParams(location.search).has("token")) {
  history.replaceState(null, "", location.pathname + location.hash);
}

// No name of a scan: browsers keep titles in their history.
const TITLES = { new: "New scan", history: "History", jobs: "Result" };

const past = new History(trouble);
const form = new Form((job) => {
  past.refresh();
  location.hash = `#/jobs/${encodeURIComponent(job.id)}`;
});
const page = new JobPage({
  onChange: (job) => past.update(job),
  onTrouble: trouble,
  onDelete: (job) => erase(job),
});

async function erase(job) {
  try {
    if (await past.delete(job)) location.hash = "#/";
  } catch (error) {
    trouble(error);
  }
}

function go() {
  const [, place, id] = /^#\/(?:(jobs)\/(.+)|history)?$/.exec(location.hash) ?? [];
  const shown = place ?? (location.hash === "#/history" ? "history" : "new");
  const isChange = document.body.dataset.page !== shown;
  document.body.dataset.page = shown;
  document.title = `${TITLES[shown]} – Lamina`;
  $("new").hidden = shown !== "new";
  if (isChange && shown === "new") $("new-title").focus({ preventScroll: true }); // what had it may be gone
  for (const tab of document.querySelectorAll("[data-tab]")) {
    if (tab.dataset.tab === shown) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  }
  trouble(null);
  past.select(shown === "jobs" ? decodeURIComponent(id) : null);
  if (shown === "jobs") page.open(decodeURIComponent(id));
  else page.close();
  if (shown === "history") past.refresh();
}

function showTheme() {
  const theme = window.laminaTheme.get();
  $("theme").textContent = { system: "◐", light: "☀", dark: "☾" }[theme];
  $("theme").setAttribute("aria-label", `Theme: ${theme}`);
  $("theme").title = `Theme: ${theme} (T)`;
}

async function start() {
  showTheme();
  $("theme").addEventListener("click", () => {
    window.laminaTheme.next();
    showTheme();
  });
  $("help").addEventListener("click", () => $("help-dialog").showModal());
  document.querySelector("#help-dialog .close").addEventListener("click", () => $("help-dialog").close());
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault(); // the address says which page is shown
    $("main").focus();
  });
  listenToKeys(() => page.viewer);
  window.addEventListener("hashchange", go);
  try {
    form.listModels(await models());
  } catch (error) {
    return trouble(error);
  }
  await past.refresh();
  // lamina view serves one scan of this machine, and nothing can be segmented.
  const local = past.jobs.find((job) => !job.model);
  document.body.classList.toggle("local", Boolean(local));
  if (local && !location.hash.startsWith("#/jobs/")) location.replace(`#/jobs/${local.id}`);
  else go();
}

start();
