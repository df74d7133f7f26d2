// Five squares to draw in. The value is the path of the pen: for each square its strokes, each a list
// of points [x, y] in units of the square. It is sent after each stroke.
const tiles = [...element.querySelectorAll(".mg-tile")];
const drawings = tiles.map(() => []);
const clears = [];
const said = element.querySelector(".mg-said");
const STEP = 0.05, SMALL = 0.01;
// An answer begins with the images as the learners see them. Where the server closes its stream in the moment
// of a stroke, nobody hears the answer: it is asked for again.
const shown = () => document.querySelector("#seen .mg-seen")?.innerHTML;
let unheard = null;
const listen = (before, times) => {
  clearTimeout(unheard);
  unheard = setTimeout(() => {
    // Who has gone to another tab wants no answer to drawings.
    if (shown() !== before || !times || element.offsetParent === null) return;
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
    if (document.activeElement !== canvas || !cursor) return;
    pen.beginPath();
    pen.arc(cursor[0] * canvas.width, cursor[1] * canvas.height, 12, 0, 7);
    Object.assign(pen, { lineWidth: 4, strokeStyle: "#1f5fbf", fillStyle: "#1f5fbf" });
    pen.stroke();
    if (stroke) pen.fill();
  };
  let stroke = null;
  // Where the keyboard's pen is; none is shown to who draws by hand.
  let cursor = null;
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || (stroke && !cursor)) return;
    lift();
    cursor = null;
    canvas.setPointerCapture(event.pointerId);
    drawings[number].push((stroke = [at(event)]));
    paint();
    event.preventDefault();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!stroke || cursor) return;
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
  const undo = () => {
    stroke = null;
    if (!drawings[number].pop()) return;
    paint();
    send();
  };
  tile.querySelector("[data-do=undo]").addEventListener("click", undo);
  const move = (x, y, fine) => {
    const by = fine ? SMALL : STEP;
    const unit = (value) => Math.round(1000 * Math.min(1, Math.max(0, value))) / 1000;
    cursor = [unit(cursor[0] + by * x), unit(cursor[1] + by * y)];
    if (stroke) stroke.push([...cursor]);
    paint();
  };
  const turn = () => {
    if (stroke) lift();
    else drawings[number].push((stroke = [[...cursor]]));
    said.textContent = `drawing ${number + 1}: pen ${stroke ? "down" : "up"}`;
    paint();
  };
  const KEYS = {
    ArrowLeft: (fine) => move(-1, 0, fine), ArrowRight: (fine) => move(1, 0, fine),
    ArrowUp: (fine) => move(0, -1, fine), ArrowDown: (fine) => move(0, 1, fine),
    " ": turn, Enter: turn, Backspace: undo,
  };
  canvas.addEventListener("keydown", (event) => {
    const act = KEYS[event.key];
    if (!act || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    cursor ??= [0.5, 0.5];
    act(event.shiftKey);
  });
  canvas.addEventListener("focus", () => {
    if (canvas.matches(":focus-visible")) cursor ??= [0.5, 0.5];
    paint();
  });
  canvas.addEventListener("blur", () => {
    if (cursor) lift();
    paint();
  });
  const clear = () => {
    stroke = null;
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
