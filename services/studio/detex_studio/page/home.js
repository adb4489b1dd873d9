// Products and what is under way.
import { make, place, settle } from "./elements.js";
import { read } from "./server.js";
import { say } from "./words.js";

export async function showHome() {
  const { products, jobs } = await read("/api/products");
  const view = place("home");
  const under = view.querySelector(".under-way");
  under.hidden = jobs.length === 0;
  under.querySelector("ul").append(
    ...jobs.map((job) => {
      const done = job.progress ? job.progress.step / Math.max(1, job.progress.total_steps) : 0;
      const bar = make("progress", { max: 1, value: done, "aria-label": say("progress") });
      return make("li", {}, make("a", { href: `#/jobs/${job.job_id}` }, make("strong", {}, job.label), bar));
    }),
  );
  const shelf = view.querySelector(".shelf");
  shelf.hidden = products.length === 0;
  shelf.querySelector("ul").append(...products.map(card));
  settle(view);
}

function card(product) {
  let cover = make("span", { class: "blank" });
  if (product.cover) cover = make("img", { src: `/api/pictures/${product.cover}.png`, alt: "" });
  else if (product.photos) cover = make("img", { src: `/api/sets/${product.training_set_id}/photos/0`, alt: "" });
  const count = say(product.pictures === 1 ? "picture_count_one" : "picture_count", { count: product.pictures });
  const text = make("span", { class: "text" }, make("strong", {}, product.label), make("small", {}, count));
  return make("li", {}, make("a", { href: `#/products/${product.concept}` }, cover, text));
}
