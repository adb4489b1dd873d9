// Step 3: a name and how long to learn.
import { place, settle, showProblem } from "./elements.js";
import { call, read } from "./server.js";
import { say, sayDuration, sayError } from "./words.js";

export async function showName(setId) {
  await read(`/api/sets/${setId}`);
  const view = place("name");
  const form = view.querySelector("form");
  const key = crypto.randomUUID();
  form.querySelector(".back").href = `#/sets/${setId}`;
  settle(view);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const label = form.elements.label.value.trim();
    if (!label) {
      form.elements.label.focus();
      return showProblem(form, say("name_missing"));
    }
    const button = form.querySelector("[type=submit]");
    button.disabled = true;
    try {
      const quality = form.elements.quality.value;
      const job = await call("POST", "/api/jobs", { training_set_id: setId, label, quality, key });
      location.hash = `#/jobs/${job.job_id}`;
    } catch (error) {
      showProblem(form, sayError(error));
    } finally {
      button.disabled = false;
    }
  });
  const { qualities } = await read("/api/qualities").catch(() => ({ qualities: [] }));
  for (const each of qualities) {
    const time = form.querySelector(`[value=${each.quality}]`)?.parentElement.querySelector("em");
    if (time && each.seconds !== null) time.textContent = say("about", { time: sayDuration(each.seconds) });
  }
}
