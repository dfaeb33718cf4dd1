"use strict";
const here = new URL(".", location.href).href.replace(/\/$/, "");
for (const place of document.querySelectorAll(".here")) place.textContent = here;

// What is told of a value that does not fit, in this order.
const TOLD = ["row", "column", "expected", "got", "reason"];

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

function line(name, cells) {
  const row = element("tr", "");
  row.append(...cells.map((cell) => element(name, cell)));
  return row;
}

function table(faults) {
  const keys = TOLD.filter((key) => faults.some((fault) => key in fault));
  const made = element("table", "");
  made.append(line("th", keys));
  made.append(...faults.map((fault) => line("td", keys.map((key) => fault[key] ?? ""))));
  return made;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}

// What an error says, in words where it has some.
function explained(text) {
  const { detail, hint, errors = [] } = parsed(text);
  const words = [detail, hint].filter(Boolean).map((part) => element("p", part));
  if (errors.length > 0) words.push(table(errors));
  return words.length > 0 ? words : [element("pre", text)];
}

function show(place, kind, ...parts) {
  place.className = kind;
  place.replaceChildren(...parts);
}

async function call(form, place) {
  show(place, "busy", element("p", "calling …"));
  const begun = performance.now();
  const answer = await fetch(form.getAttribute("action"), {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: form.elements.body.value,
  });
  const text = await answer.text();
  const took = (performance.now() - begun).toFixed(1);
  const head = element("p", `${answer.status} ${answer.statusText} in ${took} ms`);
  // A good answer as it came: a number may have more digits than a script can hold.
  const rest = answer.ok ? [element("pre", text)] : explained(text);
  show(place, answer.ok ? "good" : "bad", head, ...rest);
}

for (const form of document.forms) {
  const place = form.querySelector("[role=status]");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    call(form, place).catch((error) => show(place, "bad", element("p", String(error))));
  });
}
