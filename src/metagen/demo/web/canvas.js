// Five squares to draw in. The value is the path of the pen: for each square its strokes, each a list
// of points [x, y] in units of the square. It is sent after each stroke.
const tiles = [...element.querySelectorAll(".mg-tile")];
const drawings = tiles.map(() => []);
const clears = [];
// An answer begins with the images as the learners see them. Where the server closes its stream in the moment
// of a stroke, nobody hears the answer: it is asked for again.
const shown = () => document.querySelector("#seen .mg-seen")?.innerHTML;
let unheard = null;
const listen = (before, times) => {
  clearTimeout(unheard);
  unheard = setTimeout(() => {
    if (shown() !== before || !times) return;
    trigger("change");
    listen(before, times - 1);
  }, 3000);
};
const send = () => {
  listen(shown(), 2);
  props.value = JSON.stringify(drawings); // which is the event "change"
};
tiles.forEach((tile, number) => {
  const canvas = tile.querySelector("canvas");
  const pen = canvas.getContext("2d");
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    const unit = (value) => Math.round(1000 * Math.min(1, Math.max(0, value))) / 1000;
    return [unit((event.clientX - box.left) / box.width), unit((event.clientY - box.top) / box.height)];
  };
  const paint = () => {
    pen.clearRect(0, 0, canvas.width, canvas.height);
    Object.assign(pen, { lineWidth: 20, lineCap: "round", lineJoin: "round", strokeStyle: "#111" });
    for (const stroke of drawings[number]) {
      pen.beginPath();
      // a line of no length still leaves the round dot of its caps
      pen.moveTo(stroke[0][0] * canvas.width, stroke[0][1] * canvas.height);
      for (const [x, y] of stroke) pen.lineTo(x * canvas.width, y * canvas.height);
      pen.stroke();
    }
  };
  let stroke = null;
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || stroke) return;
    canvas.setPointerCapture(event.pointerId);
    drawings[number].push((stroke = [at(event)]));
    paint();
    event.preventDefault();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!stroke) return;
    for (const step of event.getCoalescedEvents?.() ?? [event]) stroke.push(at(step));
    paint();
  });
  const lift = () => {
    if (!stroke) return;
    stroke = null;
    send();
  };
  canvas.addEventListener("pointerup", lift);
  canvas.addEventListener("pointercancel", lift);
  tile.querySelector("[data-do=undo]").addEventListener("click", () => {
    if (!drawings[number].pop()) return;
    paint();
    send();
  });
  const clear = () => {
    if (!drawings[number].splice(0).length) return false;
    paint();
    return true;
  };
  tile.querySelector("[data-do=clear]").addEventListener("click", () => clear() && send());
  clears.push(clear);
});
element.querySelector(".mg-all").addEventListener("click", () => {
  if (clears.filter((clear) => clear()).length) send();
});
// Whoever draws for others, a test for one, can wait for this.
element.dataset.listens = "";
