/* The cost slider. It reads numbers from the page and writes text into it: nothing else. */
(function () {
  var box = document.getElementById("cost-slider");
  if (!box) { return; }
  var slider = box.querySelector("input"), data = box.dataset, thin = "\u202f", minus = "\u2212";
  function grouped(text) { return text.replace(/\B(?=(\d{3})+(?!\d))/g, thin); }
  function shown(value, places) {
    var parts = Math.abs(value).toFixed(places).split(".");
    parts[0] = grouped(parts[0]);
    var text = parts.join(".");
    return (value < 0 && /[1-9]/.test(text) ? minus : "") + text;
  }
  function money(value) {
    var size = Math.abs(value);
    if (!isFinite(value)) { return (value < 0 ? minus : "") + "\u221e"; }
    if (size >= 1000) { return shown(value, 0); }
    if (size >= 1 || size === 0) { return shown(value, 2); }
    return shown(value, Math.min(8, 2 - Math.floor(Math.log10(size))));
  }
  function put(name, text) { box.querySelector("[data-show=" + name + "]").textContent = text; }
  function update() {
    var digits = Math.pow(10, Math.floor(slider.value) - 1);
    var traffic = Math.round(Math.pow(10, slider.value) / digits) * digits;
    var base = data.baseline * traffic / 1e6, winner = data.winner * traffic / 1e6;
    var low = base * (1 - 1 / data.low), high = base * (1 - 1 / data.high);
    put("traffic", shown(traffic, 0));
    put("baseline", money(base));
    put("winner", money(winner));
    put("saving", money(base - winner));
    put("interval", "[" + money(low) + ", " + money(high) + "]");
    put("year", money(12 * (base - winner)));
    slider.setAttribute("aria-valuetext", shown(traffic, 0) + " predictions a month");
    box.querySelector("[data-bar=winner]").style.width = Math.min(100, 100 * data.winner / Math.max(data.baseline, data.winner)) + "%";
    box.querySelector("[data-bar=baseline]").style.width = Math.min(100, 100 * data.baseline / Math.max(data.baseline, data.winner)) + "%";
  }
  slider.addEventListener("input", update);
  box.hidden = false;
  update();
}());
