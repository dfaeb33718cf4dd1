"use strict";
const here = new URL(".", location.href).href.replace(/\/$/, "");
for (const place of document.querySelectorAll(".here")) place.textContent = here;

async function call(form, output) {
  const begun = performance.now();
  const answer = await fetch(form.getAttribute("action"), {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: form.elements.body.value,
  });
  const text = await answer.text();
  const took = (performance.now() - begun).toFixed(1);
  // The text as it came: a number may have more digits than a script can hold.
  output.textContent = `${answer.status} ${answer.statusText} in ${took} ms\n${text}`;
  output.className = answer.ok ? "good" : "bad";
}

for (const form of document.forms) {
  const output = form.querySelector("output");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    call(form, output).catch((error) => {
      output.textContent = String(error);
      output.className = "bad";
    });
  });
}
