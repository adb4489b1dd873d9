// Step 1: photos, and what they show.
import { make, place, settle, showProblem, speak } from "./elements.js";
import { send } from "./server.js";
import { say, sayError } from "./words.js";

const KINDS = ["mug", "bowl", "teapot", "vase", "lamp", "chair", "clock", "bottle", "bag", "shoe", "toy", "robot", "camera"];

export function showPhotos(state) {
  const view = place("photos");
  const form = view.querySelector("form");
  const input = form.querySelector("#files");
  const drop = form.querySelector(".drop");
  const kind = form.querySelector("#kind");
  const chosen = form.querySelector(".chosen");
  const files = [];

  function redraw() {
    for (const image of chosen.querySelectorAll("img")) URL.revokeObjectURL(image.src);
    chosen.replaceChildren(
      ...files.map((file, index) => {
        const image = make("img", { src: URL.createObjectURL(file), alt: "" });
        // HEIC and TIFF are read by the server alone in most browsers.
        image.addEventListener("error", () => image.replaceWith(make("span", { class: "blank" }, file.name)));
        const remove = make("button", {
          type: "button",
          class: "remove",
          "aria-label": say("remove_photo", { name: file.name }),
          onclick: () => {
            files.splice(index, 1);
            redraw();
            (chosen.querySelectorAll("button")[index] ?? input).focus();
          },
        });
        remove.textContent = "×";
        return make("li", {}, image, remove);
      }),
    );
    drop.classList.toggle("compact", files.length > 0);
    if (files.length) speak(say("photos_chosen", { count: files.length }));
  }

  function add(list) {
    const most = state?.limits.max_photos ?? 20;
    const fresh = [...list].filter(
      (file) => !files.some((known) => known.name === file.name && known.size === file.size),
    );
    files.push(...fresh.slice(0, most - files.length));
    showProblem(form, fresh.length && files.length >= most ? say("photos_most", { count: most }) : "");
    redraw();
  }

  input.addEventListener("change", () => {
    add(input.files);
    input.value = "";
  });
  for (const name of ["dragenter", "dragover"]) {
    form.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  form.addEventListener("dragleave", (event) => {
    if (!form.contains(event.relatedTarget)) drop.classList.remove("over");
  });
  form.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    add(event.dataTransfer.files);
  });
  form.querySelector(".kinds").append(
    ...KINDS.map((word) =>
      make("button", { type: "button", onclick: () => ((kind.value = word), kind.focus()) }, say(`kind_${word}`)),
    ),
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (files.length < 2) return showProblem(form, say("photos_least"));
    if (!kind.value.trim()) {
      kind.focus();
      return showProblem(form, say("kind_missing"));
    }
    showProblem(form, "");
    const body = new FormData();
    body.append("class_word", kind.value.trim());
    for (const file of files) body.append("photos", file, file.name);
    const sending = form.querySelector(".sending");
    const button = form.querySelector("[type=submit]");
    sending.hidden = false;
    button.disabled = true;
    try {
      const done = await send("/api/photos", body, (share) => {
        sending.querySelector("p").textContent = share < 1 ? say("sending") : say("looking");
        if (share < 1) sending.querySelector("progress").value = share * 100;
        else sending.querySelector("progress").removeAttribute("value");
      });
      location.hash = `#/sets/${done.training_set_id}`;
    } catch (error) {
      showProblem(form, sayError(error));
    } finally {
      sending.hidden = true;
      button.disabled = false;
    }
  });
  settle(view);
}
