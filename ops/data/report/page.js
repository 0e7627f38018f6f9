// The page: reads its controls, counts, and has each part show what follows.

const WHOLE = /^\d{1,9}$/;
const PLAIN = /^\d{1,7}(\.\d{1,6})?$/;

// What may stand in each field: its bounds, and how to say so.
const FIELDS = {
  requests: { form: WHOLE, low: 0, high: 10_000_000, says: "Requests a day: a whole number up to 10,000,000" },
  input: { form: WHOLE, low: 1, high: 1_000_000, says: "Prompt: 1 to 1,000,000 tokens" },
  output: { form: WHOLE, low: 1, high: 1_000_000, says: "Answer: 1 to 1,000,000 tokens" },
  growth: { form: WHOLE, low: 0, high: 100, says: "Growth: 0 to 100 per cent" },
  idle: { form: WHOLE, low: 1, high: 3600, says: "Idle time: 1 to 3,600 seconds" },
  hours: { form: PLAIN, low: 1, high: 730, says: "Hours: 1 to 730" },
  speed: { form: PLAIN, low: 1, high: 1_000_000, says: "Speed: 1 token a second or more" },
  peak: { form: PLAIN, low: 1, high: 1000, says: "Busiest time: 1 or more times the average" },
  maintenance: { form: PLAIN, low: 0, high: 1_000_000, says: "Your own work: US dollars, 0 or more" },
};
const FIRST = { ...data.plan, ...data.terms };
const settings = {};
let showAll = false;

const groups = (text) => text.replaceAll(/[,\s]/g, "");

function restore() {
  for (const id of Object.keys(FIELDS)) {
    settings[id] = String(FIRST[id]);
    byId(id).value = settings[id];
  }
  byId("spot").checked = FIRST.spot;
  byId("api").value = FIRST.api;
  slide();
}

// Reads every field; a wrong one keeps its last good value and says what works.
function read() {
  const faults = [];
  for (const [id, field] of Object.entries(FIELDS)) {
    const text = groups(byId(id).value);
    const good = field.form.test(text) && Number(text) >= field.low && Number(text) <= field.high;
    byId(id).setAttribute("aria-invalid", String(!good));
    if (good) settings[id] = text;
    else faults.push(field.says);
  }
  const said = faults.length ? `${faults.join(". ")}.` : "";
  if (byId("fault").textContent !== said) byId("fault").textContent = said;
}

function slide() {
  const slider = byId("requests-slider");
  slider.value = String(Math.round(Math.log10(Math.max(1, Number(settings.requests))) * 100));
  slider.setAttribute("aria-valuetext", `${count(settings.requests)} requests a day`);
}

// Two digits of what the slider's place means.
function slid() {
  const exact = 10 ** (Number(byId("requests-slider").value) / 100);
  const unit = 10 ** Math.max(0, Math.floor(Math.log10(exact) + 1e-9) - 1);
  return String(Math.round(exact / unit) * unit);
}

// Everything that follows from the controls.
function counted() {
  const plan = {
    requests: Number(settings.requests),
    input: Number(settings.input),
    output: Number(settings.output),
    idle: Number(settings.idle),
    min: 1,
    max: 1,
    hours: settings.hours,
    slots: data.slots,
    traffic: data.traffic,
    spot: byId("spot").checked,
  };
  const terms = {
    speed: settings.speed,
    peak: settings.peak,
    maintenance: settings.maintenance,
    max_servers: data.terms.max_servers,
  };
  const found = new Breakeven(plan, terms);
  const api = found.apis.find((one) => one.name === byId("api").value) ?? null;
  const ways = found.hosts.map((host) => ({
    host,
    cost: found.range(host, found.declared),
    crossing: api && found.crossing(host, api),
  }));
  return { plan, found, api, apiCost: api && found.apiMonthly(api, found.declared), ways };
}

function update() {
  read();
  const state = counted();
  byId("requests-hint").textContent = `${count(state.found.declared)} a month`;
  answer(state);
  showCurves(state);
  showOffers(state);
  showBills(state);
  showMonths(state);
  showAssumed(state);
  document.documentElement.dataset.state = "ready";
}

let waiting = 0;

function soon() {
  document.documentElement.dataset.state = "busy";
  clearTimeout(waiting);
  waiting = setTimeout(update, 60);
}

function start() {
  const names = [...new Set(data.apis.map((api) => api.name))];
  byId("api").replaceChildren(...names.map((name) => make("option", { value: name }, name)));
  byId("words").replaceChildren(...WORDS.flatMap(([word, meaning]) => [make("dt", {}, word), make("dd", {}, meaning)]));
  restore();
  for (const show of [showHead, showRefused, showFit, showBench, showSpec, showPrices, update]) show();
  const form = byId("controls");
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", ({ target }) => {
    if (target.id === "requests-slider") {
      byId("requests").value = slid();
      target.setAttribute("aria-valuetext", `${count(slid())} requests a day`);
    }
    if (target.id === "requests") {
      read();
      slide();
    }
    soon();
  });
  byId("reset").addEventListener("click", () => {
    restore();
    soon();
  });
  byId("more").addEventListener("click", () => {
    showAll = !showAll;
    soon();
  });
  const redraw = () => {
    memory();
    update();
  };
  darkness.addEventListener("change", redraw);
  addEventListener("resize", soon);
  const closed = [];
  addEventListener("beforeprint", () => {
    printing.now = true;
    for (const box of document.querySelectorAll("details:not([open]):not(.aside)")) {
      closed.push(box);
      box.open = true;
    }
    redraw();
  });
  addEventListener("afterprint", () => {
    printing.now = false;
    for (const box of closed.splice(0)) box.open = false;
    redraw();
  });
  return loadPlotly().then(redraw);
}

start().then(
  () => {
    document.documentElement.dataset.charts = "ready";
  },
  (error) => {
    document.documentElement.dataset.charts = "none";
    console.error(error);
    for (const chart of document.querySelectorAll("figure")) chart.hidden = true;
  },
);
