// Step 2: what was found on each photo.
import { ask, make, photoName, place, settle, showProblem } from "./elements.js";
import { loadImage, maskCanvas, paint } from "./mask_picture.js";
import { openPainter } from "./painter.js";
import { call, read } from "./server.js";
import { listed, say, sayError, sayOr } from "./words.js";

export async function showCheck(setId) {
  const found = await read(`/api/sets/${setId}`);
  const view = place("check");
  const list = view.querySelector(".masks");

  function showNotes(set) {
    // That masks were found by itself is what this step is about.
    const notes = set.warnings.filter((each) => each.key !== "masks_found");
    view.querySelector(".notes").replaceChildren(
      ...notes.map((each) => {
        const photos = listed(each.photos.map(photoName));
        return make("li", {}, sayOr(`warning_${each.key}`, each.text, { photos }));
      }),
    );
  }

  async function show(photo, item) {
    const [picture, mask] = await Promise.all([
      loadImage(`/api/sets/${setId}/photos/${photo.index}`),
      loadImage(`/api/sets/${setId}/masks/${photo.index}?${Date.now()}`),
    ]);
    const canvas = make("canvas", { width: picture.width, height: picture.height, role: "img" });
    canvas.setAttribute("aria-label", photoName(photo.index));
    const layer = maskCanvas(mask, picture.width, picture.height);
    paint(canvas, picture, layer);
    const edit = async () => {
      const saved = await openPainter(setId, photo.index, picture, layer);
      if (saved === null) return;
      showNotes(saved);
      await show(saved.photos[photo.index], item);
      // The button that opened the painter is a new one now; but whoever has gone on meanwhile is left alone.
      if (document.activeElement === document.body) item.querySelector("button").focus();
    };
    const isEmpty = photo.mask_share === 0;
    const button = make("button", { type: "button", class: "frame", onclick: edit }, canvas);
    const text = isEmpty ? say("mask_none") : say("mask_edit");
    const correct = make("span", { class: "correct" }, text);
    button.append(correct);
    button.setAttribute("aria-label", `${photoName(photo.index)}: ${text}`);
    item.classList.toggle("empty", isEmpty);
    item.replaceChildren(button, make("p", {}, photoName(photo.index)));
  }

  showNotes(found);
  view.querySelector(".next").href = `#/sets/${setId}/name`;
  view.querySelector(".discard").addEventListener("click", async () => {
    if (!(await ask(say("discard_title"), say("discard_text"), say("discard_yes")))) return;
    try {
      await call("DELETE", `/api/sets/${setId}`);
      location.hash = "#/new";
    } catch (error) {
      showProblem(view, sayError(error));
    }
  });
  settle(view);
  await Promise.all(
    found.photos.map(async (photo) => {
      const item = make("li");
      list.append(item);
      await show(photo, item);
    }),
  );
}
