// The table of segments. `element`, `props` and `watch` are Gradio's; props.value is JSON, a list of rows.
// CATEGORIES and FRAME_S, the seconds of a frame, are written above it by segment_table.py.
const COLUMNS = [
  { name: "start_s", head: "From, s", label: "starts at, in seconds", step: FRAME_S, min: 0 },
  { name: "end_s", head: "To, s", label: "ends at, in seconds", step: FRAME_S, min: 0 },
  { name: "category", head: "What sounds", label: "what sounds" },
  { name: "confidence", head: "How sure, 0 to 1", label: "how sure, 0 to 1", step: 0.05, min: 0, max: 1 },
  { name: "louder_db", head: "Louder by, dB", label: "louder by, in dB", step: 1 },
];
const make = (tag, attributes, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
};
const home = element.querySelector(".segments");
let shown = null;

function field(column, row, number) {
  const label = `Segment ${number} ${column.label}`;
  if (column.name === "category") {
    const select = make("select", { "aria-label": label, "data-name": column.name });
    for (const category of CATEGORIES) select.append(make("option", { value: category }, category));
    select.value = row.category;
    return select;
  }
  const { step, min, max, name } = column;
  // Times that are no multiple of the step are allowed; the arrows go by the step.
  const input = make("input", { type: "number", "aria-label": label, "data-name": name, min, max, step });
  input.value = row[name];
  return input;
}

function line(row, place) {
  const number = place + 1;
  const cells = COLUMNS.map((column) => make("td", { "data-head": column.head }, field(column, row, number)));
  const remove = make("button", { type: "button", class: "remove", "aria-label": `Remove segment ${number}` }, "Remove");
  remove.addEventListener("click", () => {
    const rows = read();
    rows.splice(place, 1);
    say(rows);
    build();
    const left = home.querySelectorAll(".remove");
    (left[Math.min(place, left.length - 1)] ?? home.querySelector(".add")).focus();
  });
  return make("tr", {}, make("th", { scope: "row" }, String(number)), ...cells, make("td", {}, remove));
}

function read() {
  return [...home.querySelectorAll("tbody tr")].map((row) =>
    Object.fromEntries([...row.querySelectorAll("[data-name]")].map((each) => [each.dataset.name, each.value])),
  );
}

function say(rows) {
  shown = JSON.stringify(rows);
  props.value = shown;
}

function build() {
  shown = props.value;
  const rows = JSON.parse(shown || "[]");
  const heads = ["Segment", ...COLUMNS.map((column) => column.head), "Remove"];
  const head = heads.map((text) => make("th", { scope: "col" }, text));
  const table = make(
    "table",
    {},
    make("caption", { class: "unseen" }, "Segments: what sounds when"),
    make("thead", {}, make("tr", {}, ...head)),
    make("tbody", {}, ...rows.map(line)),
  );
  const add = make("button", { type: "button", class: "add" }, "Add a segment");
  add.addEventListener("click", () => {
    const now = read();
    const start_s = now.length ? Number(now[now.length - 1].end_s) : 0;
    const category = now.length ? now[now.length - 1].category : CATEGORIES[0];
    now.push({ start_s, end_s: start_s + 1, category, confidence: 1, louder_db: 0 });
    say(now);
    build();
    home.querySelector("tbody tr:last-child input").focus();
  });
  const scrolled = make("div", { class: "scrolled", role: "group", "aria-label": "Segments", tabindex: "0" }, table);
  home.replaceChildren(scrolled, add);
}

home.addEventListener("input", () => say(read()));
// What comes from the server replaces the table; what was typed is in it already.
watch("value", () => props.value !== shown && build());
build();
