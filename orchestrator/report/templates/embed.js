"use strict";
{
  const specs = JSON.parse(document.getElementById("charts").textContent);
  // `ast` interprets expressions instead of compiling them, so that no eval is needed.
  const options = { mode: "vega-lite", renderer: "svg", actions: false, ast: true, tooltip: { disableDefaultStyle: true } };
  for (const [id, spec] of Object.entries(specs)) {
    const place = document.getElementById(id);
    vegaEmbed(place, spec, options).catch((error) => {
      place.textContent = "This chart could not be drawn: " + error.message;
    });
  }
}
