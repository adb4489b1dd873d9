// Step 4: watch it learn, then read the verdict.
import { make, place, settle, showProblem, showSteps, speak } from "./elements.js";
import { call, listen, pictureUrl, read } from "./server.js";
import { fillVerdict } from "./verdict.js";
import { say, sayDuration, sayError, sayOr } from "./words.js";

export async function showLearning(jobId) {
  const job = await read(`/api/jobs/${jobId}`);
  if (job.state === "succeeded") return showVerdict(job);
  const view = place("learning");
  const previews = new Map();
  view.querySelector("h1").textContent = say("learning_title", { name: job.label });
  const bar = view.querySelector("progress");
  const latest = view.querySelector(".latest");
  const cancel = view.querySelector(".cancel");

  function showProgress(progress) {
    if (!progress) return;
    const share = progress.total_steps ? progress.step / progress.total_steps : 0;
    view.querySelector(".phase").textContent = say(`phase_${progress.phase}`);
    if (progress.phase === "training") bar.value = share;
    else if (progress.phase === "publishing") bar.removeAttribute("value");
    view.querySelector(".share").textContent = share ? `${Math.round(share * 100)} %` : "";
    const left = progress.time_left_seconds;
    view.querySelector(".left").textContent = left ? say("time_left", { time: sayDuration(left) }) : "";
    const waiting = view.querySelector(".waiting");
    waiting.textContent = progress.waiting_for;
    waiting.hidden = !progress.waiting_for;
  }

  function showState(told) {
    if (told.state === "queued") view.querySelector(".phase").textContent = say("phase_queued");
    else if (told.state === "running") showProgress(told.progress);
    if (!["failed", "cancelled"].includes(told.state)) return;
    cancel.hidden = true;
    view.querySelector(".meter").hidden = true;
    view.querySelector(".leave").hidden = true;
    view.querySelector("h1").textContent = say(told.state === "failed" ? "learning_failed" : "learning_stopped");
    view.querySelector(".phase").textContent = "";
    const failure = told.failure;
    if (failure) showProblem(view, sayOr(`failure_${failure.reason.toLowerCase()}`, failure.message));
    view.querySelector(".forward").append(make("a", { class: "button", href: "#/new" }, say("start_over")));
  }

  function showPreview(news) {
    if (previews.has(news.step)) return;
    const address = pictureUrl(news.png);
    previews.set(news.step, address);
    const alt = say("preview_alt", { step: news.step });
    latest.hidden = false;
    latest.querySelector("img").src = address;
    latest.querySelector("img").alt = alt;
    latest.querySelector("figcaption").textContent = say("preview_caption");
    view.querySelector(".strip").append(make("li", {}, make("img", { src: address, alt })));
  }

  showState(job);
  settle(view);
  cancel.addEventListener("click", async () => {
    cancel.disabled = true;
    await call("POST", `/api/jobs/${jobId}/cancel`).catch((error) => showProblem(view, sayError(error)));
  });
  if (["failed", "cancelled"].includes(job.state)) return undefined;
  const stop = listen(`/api/jobs/${jobId}/news`, (news) => {
    if (news.event === "progress") showProgress(news);
    else if (news.event === "preview") showPreview(news);
    else if (news.event === "error") showProblem(view, sayError(news));
    else if (news.event === "job") {
      showState(news);
      if (news.state === "succeeded") {
        stop();
        showVerdict({ ...job, ...news }).catch((error) => showProblem(view, sayError(error)));
      }
    }
  });
  return () => {
    stop();
    for (const address of previews.values()) URL.revokeObjectURL(address);
  };
}

async function showVerdict(job) {
  const told = await read(`/api/products/${job.concept}/verdict`);
  const view = place("verdict");
  showSteps("learn");
  fillVerdict(view.querySelector(".verdict"), told);
  const next = view.querySelector(".next");
  next.href = `#/products/${job.concept}`;
  if (told.verdict === "unfit") next.textContent = say("make_pictures_anyway");
  const details = view.querySelector("details");
  details.addEventListener("toggle", () => {
    const image = details.querySelector("img");
    if (details.open && !image.src) image.src = `/api/products/${job.concept}/report.png`;
  });
  settle(view);
  speak(view.querySelector("h1").textContent);
}
