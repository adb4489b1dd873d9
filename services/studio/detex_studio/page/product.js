// Step 5: pictures of a product.
import { ask, icon, make, photoName, place, settle, showProblem, speak } from "./elements.js";
import { call, listen, pictureUrl, read } from "./server.js";
import { fillVerdict } from "./verdict.js";
import { openViewer } from "./viewer.js";
import { say, sayError } from "./words.js";

const COUNTS = [1, 2, 4, 8];
// Browsers open six connections to a host, and each order that is followed holds one; the rest wait for their turn.
const MOST_FOLLOWED = 2;

export async function showProduct(concept, state) {
  const [product, history, running] = await Promise.all([
    read(`/api/products/${concept}`),
    read(`/api/products/${concept}/pictures`),
    read(`/api/products/${concept}/drawings`),
  ]);
  const view = place("product");
  const form = view.querySelector("form");
  const list = view.querySelector(".pictures");
  const orders = view.querySelector(".orders");
  const borrowed = { pose: null, background: null };
  const stops = new Set();
  const waiting = [];
  let pictures = history.pictures;
  let filter = "all";

  form.querySelector("h1").textContent = product.label;
  showScenes();
  showSources();
  showCounts();
  showPictures();
  for (const drawing of running.drawings) follow(drawing);
  settle(view);

  function showScenes() {
    form.querySelector(".scenes").append(
      ...(state?.scenes ?? []).map((scene) => {
        const input = make("input", { type: "checkbox", name: "preset", value: scene, class: "unseen" });
        input.addEventListener("change", () => {
          for (const other of form.querySelectorAll("[name=preset]")) if (other !== input) other.checked = false;
        });
        return make("label", { class: "chip" }, input, make("span", {}, say(`scene_${scene}`)));
      }),
    );
  }

  function showSources() {
    const { words } = product;
    const count = Math.max(words.pose ?? 0, words.background ?? 0);
    form.querySelector(".borrow").hidden = count === 0;
    const sources = form.querySelector(".sources");
    for (let index = 0; index < count; index += 1) {
      const picture =
        index < product.photos
          ? make("img", { src: `/api/sets/${product.training_set_id}/photos/${index}`, alt: photoName(index) })
          : make("span", { class: "blank" }, photoName(index));
      const buttons = ["pose", "background"]
        .filter((name) => index < (words[name] ?? 0))
        .map((name) => {
          const label = `${say(`borrow_${name}`)}: ${photoName(index)}`;
          const button = make("button", { type: "button", "aria-pressed": "false", "aria-label": label });
          button.dataset.borrow = name;
          button.textContent = say(`borrow_${name}`);
          button.addEventListener("click", () => borrow(name, borrowed[name] === index ? null : index));
          return button;
        });
      const item = make("li", {}, picture, make("div", { class: "choice" }, ...buttons));
      item.dataset.index = index;
      sources.append(item);
    }
  }

  function borrow(name, index) {
    borrowed[name] = index;
    for (const item of form.querySelectorAll(".sources li")) {
      const isIt = Number(item.dataset.index) === index;
      item.querySelector(`[data-borrow=${name}]`)?.setAttribute("aria-pressed", isIt);
      item.classList.toggle("used", Object.values(borrowed).includes(Number(item.dataset.index)));
    }
  }

  function showCounts() {
    const most = state?.limits.max_pictures ?? 8;
    form.querySelector(".counts").append(
      ...COUNTS.filter((count) => count <= most).map((count) => {
        const input = make("input", { type: "radio", name: "count", value: count, class: "unseen" });
        input.checked = count === Math.min(4, most);
        return make("label", {}, input, make("span", {}, String(count)));
      }),
    );
    if (!form.querySelector("[name=count]:checked")) form.querySelector("[name=count]").checked = true;
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const preset = form.querySelector("[name=preset]:checked")?.value ?? "";
    const count = Number(form.elements.count.value);
    order({ preset, scene: form.elements.words.value.trim(), ...borrowed, count });
  });

  async function order(choice) {
    showProblem(form, "");
    try {
      follow(await call("POST", "/api/drawings", { concept, ...choice }));
      speak(say("drawing"));
    } catch (error) {
      showProblem(form, sayError(error));
    }
  }

  function follow(drawing) {
    view.querySelector(".empty").hidden = true;
    const cells = Array.from({ length: drawing.count }, () => make("li", { class: "waiting" }, make("span")));
    const stopButton = make("button", { type: "button", class: "quiet" }, say("stop"));
    const text = make("p", { role: "status" }, say("drawing"));
    const box = make("section", { class: "drawing" }, make("div", {}, text, stopButton), make("ul", {}, ...cells));
    orders.prepend(box);
    box.scrollIntoView({ block: "nearest" });
    stopButton.addEventListener("click", () => call("POST", `/api/drawings/${drawing.drawing_id}/stop`).catch(() => {}));
    let problem = "";
    const steps = new Map();

    function show(news) {
      if (news.event === "queued" && news.ahead > 0) text.textContent = say("queued", { count: news.ahead });
      else if (news.event === "progress") {
        steps.set(news.index, news.step / news.total_steps);
        const done = [...steps.values()].reduce((sum, each) => sum + each, 0) / drawing.count;
        text.textContent = `${say("drawing")} ${Math.round(done * 100)} %`;
      } else if (news.event === "preview") {
        const image = make("img", { src: pictureUrl(news.png), alt: "" });
        image.addEventListener("load", () => URL.revokeObjectURL(image.src));
        cells[news.index]?.replaceChildren(image);
      } else if (news.event === "picture") {
        const image = make("img", { src: `/api/pictures/${news.picture_id}.png`, alt: news.prompt });
        cells[news.index]?.classList.remove("waiting");
        cells[news.index]?.replaceChildren(image);
      } else if (news.event === "error") problem = sayError(news);
    }

    async function end() {
      const fresh = await read(`/api/products/${concept}/pictures`).catch(() => null);
      if (fresh !== null) pictures = fresh.pictures;
      box.remove();
      if (problem) showProblem(form, problem);
      else speak(say("drawn"));
      showPictures();
    }

    waiting.push(() => {
      const stop = listen(`/api/drawings/${drawing.drawing_id}/news`, show, () => {
        stops.delete(stop);
        followNext();
        end();
      });
      stops.add(stop);
    });
    followNext();
  }

  function followNext() {
    while (waiting.length && stops.size < MOST_FOLLOWED) waiting.shift()();
  }

  function shown() {
    return filter === "all" ? pictures : pictures.filter((each) => each.favourite);
  }

  function showPictures() {
    list.replaceChildren(...shown().map(figure));
    view.querySelector(".empty").hidden = shown().length > 0 || orders.children.length > 0;
    view.querySelector(".empty").textContent = say(filter === "all" ? "no_pictures" : "no_favourites");
    const zip = view.querySelector(".zip");
    zip.href = `/api/products/${concept}/favourites.zip`;
    zip.hidden = !pictures.some((each) => each.favourite);
  }

  function figure(picture) {
    const image = make("img", { src: `/api/pictures/${picture.picture_id}.png`, alt: picture.prompt, loading: "lazy" });
    image.width = picture.width;
    image.height = picture.height;
    const open = make("button", { type: "button", class: "open", "aria-label": say("enlarge") }, image);
    open.addEventListener("click", () => openViewer(shown(), picture.picture_id, actions));
    const item = make("li", {}, open, make("div", { class: "actions" }, ...actions(picture)));
    item.dataset.picture = picture.picture_id;
    return item;
  }

  function actions(picture, onDone = () => {}) {
    const action = (name, label, onclick) =>
      make("button", { type: "button", class: `icon ${name}`, "aria-label": label, title: label, onclick }, icon(name));
    const heart = action("heart", say("favourite"), async () => {
      const marked = await call("PATCH", `/api/pictures/${picture.picture_id}`, { favourite: !picture.favourite });
      picture.favourite = marked.favourite;
      heart.setAttribute("aria-pressed", picture.favourite);
      showPictures();
      list.querySelector(`[data-picture="${picture.picture_id}"] .heart`)?.focus();
    });
    heart.setAttribute("aria-pressed", picture.favourite);
    const more = action("more", say("more_like_this"), () => {
      const { preset, scene, pose, background } = picture.choice;
      order({ preset, scene, pose, background, count: Math.min(4, state?.limits.max_pictures ?? 4), variation_of: picture.picture_id });
      onDone();
    });
    const label = say("download");
    const download = make(
      "a",
      { class: "icon", href: `/api/pictures/${picture.picture_id}.png?download=1`, "aria-label": label, title: label },
      icon("download"),
    );
    const remove = action("delete", say("delete"), async () => {
      if (!(await ask(say("delete_picture_title"), say("delete_picture_text"), say("delete")))) return;
      await call("DELETE", `/api/pictures/${picture.picture_id}`);
      pictures = pictures.filter((each) => each.picture_id !== picture.picture_id);
      speak(say("picture_gone"));
      showPictures();
      onDone();
    });
    return [heart, more, download, remove];
  }

  for (const button of view.querySelectorAll("[data-filter]")) {
    button.addEventListener("click", () => {
      filter = button.dataset.filter;
      for (const each of view.querySelectorAll("[data-filter]")) each.setAttribute("aria-pressed", each === button);
      showPictures();
    });
  }

  const about = view.querySelector(".about");
  about.addEventListener("toggle", async () => {
    const place_ = about.querySelector(".about-verdict");
    if (!about.open || place_.hasChildNodes()) return;
    const told = await read(`/api/products/${concept}/verdict`).catch(() => null);
    if (told === null) return;
    place_.append(make("h3"), make("p", { class: "lead" }), make("ul", { class: "findings" }));
    fillVerdict(place_, told);
  });
  about.querySelector(".delete").addEventListener("click", async () => {
    const text = say("delete_product_text", { name: product.label, count: pictures.length });
    if (!(await ask(say("delete_product_title"), text, say("delete")))) return;
    try {
      const gone = await call("DELETE", `/api/products/${concept}`);
      stopAll();
      const page = place("home");
      page.querySelector(".opening").replaceChildren(
        make("h1", {}, say("product_gone", { name: product.label })),
        make("p", { class: "lead" }, say("product_gone_text", gone)),
        make("p", {}, make("a", { class: "button", href: "#/" }, say("to_products"))),
      );
      settle(page);
    } catch (error) {
      showProblem(form, sayError(error));
    }
  });
  return stopAll;

  function stopAll() {
    waiting.length = 0;
    for (const stop of stops) stop();
  }
}
