// The page: reads the controls, counts, and fills in what people see.

const byId = (id) => document.getElementById(id);

// An element; null and false among the children are left out.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null && value !== false) element.setAttribute(name, value);
  element.append(...children.flat().filter((child) => child !== null && child !== false));
  return element;
}

const link = (url, text) => (url ? make("a", { href: url, rel: "noreferrer" }, text) : text);

// Columns are {head, n: numbers, wide}; a row is its cells, or {cells, best}. The first cell is the row's head.
function fill(table, columns, rows, { caption = "", foot = null } = {}) {
  const cell = (tag, value, column, more = {}) => make(tag, { class: column.n ? "n" : column.wide ? "wide" : null, ...more }, value ?? "–");
  const line = (cells) => cells.map((value, i) => (i ? cell("td", value, columns[i]) : cell("th", value, columns[i], { scope: "row" })));
  table.replaceChildren(
    ...(caption ? [make("caption", {}, caption)] : []),
    make("thead", {}, make("tr", {}, columns.map((column) => cell("th", column.head, column, { scope: "col" })))),
    make("tbody", {}, rows.map((row) => make("tr", { class: row.best ? "best" : null }, line(row.cells ?? row)))),
    ...(foot ? [make("tfoot", {}, make("tr", {}, line(foot)))] : []),
  );
}

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
  const terms = { speed: settings.speed, peak: settings.peak, maintenance: settings.maintenance, max_servers: data.terms.max_servers };
  const found = new Breakeven(plan, terms);
  const api = found.apis.find((one) => one.name === byId("api").value) ?? null;
  const ways = found.hosts.map((host) => ({ host, cost: found.range(host, found.declared), crossing: api && found.crossing(host, api) }));
  return { plan, found, api, apiCost: api && found.apiMonthly(api, found.declared), ways };
}

const WAYS = { on: "always on", sleeps: "sleeps when idle", spot: "interruptible" };

function answer(state) {
  const { plan, found, api, apiCost, ways } = state;
  const said = verdict(state);
  byId("answer").textContent = said.answer;
  byId("because").textContent = said.because;
  const needed = found.servers(found.declared);
  const costs = ways.filter((way) => way.cost).map((way) => way.cost.expected);
  const lowest = [...costs, ...(api ? [apiCost] : [])].reduce(least, costs[0] ?? apiCost);
  byId("cards").replaceChildren(...ways.map((way) => hostCard(way, api, needed, lowest)), ...(api ? [apiCard(api, apiCost, found, lowest)] : []));
  const most = found.most(1);
  byId("fine").textContent =
    `For ${count(plan.requests)} requests a day, each of ${count(plan.input)} prompt and ${count(plan.output)} answer tokens. One server answers up to ${count(most)} requests a month with these peaks; you have ${count(found.declared)}, which take ${servers(needed)}. ` +
    "Prices are compared, not answers: a small model of your own may need more tries for the same result.";
}

function card(id, name, isBest, ...children) {
  const tag = isBest ? make("span", { class: "tag" }, "cheapest") : null;
  return make("li", { class: `card${isBest ? " best" : ""}`, style: `--hue: var(--${id})`, "data-way": id }, make("h3", {}, name, tag), ...children);
}

function hostCard({ host, cost, crossing }, api, needed, lowest) {
  if (!cost) {
    return card(host.id, host.name, false, make("p", {}, `It would take ${servers(needed)}, more than are compared here.`));
  }
  const isBest = cost.expected.compare(lowest) === 0;
  const varies = cost.low.less(cost.high.minus("0.005"));
  const pays = !api ? null : crossing
    ? crossing.requests ? `Less than ${api.name} from ${crossingText(host, crossing, " requests a month")}` : `Always less than ${api.name}`
    : `Never less than ${api.name}`;
  return card(
    host.id,
    host.name,
    isBest,
    make("p", { class: "price" }, dollars(cost.expected), make("small", {}, " a month")),
    varies ? make("p", { class: "range" }, `${dollars(cost.low)} to ${dollars(cost.high)}`) : null,
    make("p", {}, `${needed > 1 ? `${needed} x ` : ""}${offerName(host.offer)}`),
    make("p", { class: "range" }, `${host.what}.`),
    pays ? make("p", { class: "pays" }, `${pays}.`) : null,
  );
}

function apiCard(api, cost, found, lowest) {
  const each = found.perRequest(api);
  return card(
    "api",
    api.name,
    cost.compare(lowest) === 0,
    make("p", { class: "price" }, dollars(cost), make("small", {}, " a month")),
    make("p", {}, `Paid by the token to ${api.vendor || "its vendor"}: ${unitDollars(each.toString())} a request`),
    make("p", { class: "range" }, "Somebody else's model: no server to look after, and your text goes to the vendor."),
    make("p", { class: "pays" }, "List price of ", link(api.url, api.as_of ?? "an unknown day"), "."),
  );
}

function showCurves(state) {
  const { found, api, ways } = state;
  const { low, high, lines } = curves(state);
  byId("curves-lead").textContent =
    "Each line is the cheapest offer of its kind, with as many servers as its busiest time takes. Both axes grow tenfold a step.";
  const heads = [{ head: "requests a month", n: true }, ...lines.map(({ name }) => ({ head: name, n: true }))];
  const rounds = decades(low / 10, high).flatMap((x) => [x, 2 * x, 5 * x]).filter((x) => x >= low && x <= high);
  const at = [...new Set([...rounds, found.declared])].sort((a, b) => a - b);
  const text = (cost) => (cost === null ? "not compared" : dollars(cost));
  fill(byId("curves-table"), heads, at.map((x) => ({ best: x === found.declared, cells: [count(x), ...lines.map((line) => text(line.at(x)))] })));
  const hosts = ways.map((way) => way.host);
  const cells = (one) => hosts.map((host) => {
    const crossing = found.crossing(host, one);
    return crossing ? (crossing.requests ? crossingText(host, crossing) : "always") : "never";
  });
  const rowsOf = found.apis.map((one) => ({ best: one === api, cells: [one.name, unitDollars(found.perRequest(one).toString()), ...cells(one)] }));
  fill(byId("crossings"), [{ head: "costs less than" }, { head: "a request", n: true }, ...hosts.map((host) => ({ head: `${host.name}, from requests a month`, n: true }))], rowsOf);
  const change = found.switchover;
  if (change) byId("curves-lead").textContent += ` ${switchText(change)}`;
}

function switchText({ requests }) {
  if (requests === null) return "A server that sleeps costs less than one that is always on at any traffic that one can answer.";
  if (!requests) return "A server that is always on costs less than one that sleeps at any traffic.";
  return `A server that is always on costs less than one that sleeps from ${about(requests)} requests a month.`;
}

// Every offer with what it costs each way: [{offer, on, sleeps, best, way}], cheapest first.
function offerRows({ plan, found }) {
  const needed = Math.min(found.servers(found.declared), found.terms.max_servers);
  const wanted = data.offers.filter((offer) => plan.spot || !offer.spot);
  const asleep = new Map(compare({ ...plan, min: 0, max: needed }, wanted).map(({ offer, cost }) => [offer, cost]));
  const rows = compare({ ...plan, min: needed, max: needed }, wanted).map(({ offer, cost: on }) => {
    const sleeps = offer.scales ? asleep.get(offer) : null;
    const sleeping = sleeps !== null && (on === null || sleeps.expected.less(on.expected));
    return { offer, on, sleeps, best: sleeping ? sleeps : on, way: offer.spot ? "spot" : sleeping ? "sleeps" : "on" };
  });
  return rows.sort((a, b) => {
    if (!a.best || !b.best) return (a.best ? 0 : 1) - (b.best ? 0 : 1);
    return a.best.expected.compare(b.best.expected) || a.offer.order - b.offer.order;
  });
}

const FEW_ROWS = 10;
const NO_PRICE = "price not found";

function money(cost) {
  if (!cost) return null;
  const varies = cost.low.less(cost.high.minus("0.005"));
  return [dollars(cost.expected), varies ? make("small", {}, `${dollars(cost.low)} to ${dollars(cost.high)}`) : null].filter(Boolean);
}

function priceDay(offer) {
  const days = offer.rates.map((rate) => rate.as_of).filter(Boolean).sort();
  const sources = [...new Set(offer.rates.map((rate) => rate.source))].sort().join(", ");
  return [sources, days.length ? make("small", { class: "day" }, days[0]) : null].filter(Boolean);
}

function showOffers(state) {
  const rows = offerRows(state);
  bars(rows);
  const shown = showAll ? rows : rows.slice(0, FEW_ROWS);
  const columns = [
    { head: "server" },
    { head: "always on, a month", n: true },
    { head: "sleeping when idle, a month", n: true },
    { head: "how and where", wide: true },
    { head: "longest request, tokens", n: true },
    { head: "price" },
  ];
  const cells = shown.map(({ offer, on, sleeps, best }, i) => ({
    best: i === 0 && best,
    cells: [
      offerName(offer),
      money(on) ?? NO_PRICE,
      offer.scales ? (money(sleeps) ?? NO_PRICE) : null,
      [offer.terms, make("small", {}, offer.where)],
      offer.longest === null ? null : count(offer.longest),
      priceDay(offer),
    ],
  }));
  fill(byId("offers"), columns, cells);
  for (const [i, row] of [...byId("offers").tBodies[0].rows].entries()) row.dataset.order = shown[i].offer.order;
  const needed = Math.min(state.found.servers(state.found.declared), state.found.terms.max_servers);
  const left = data.left_out ? ` ${count(data.left_out)} more, dearer offers of the same kinds are left out.` : "";
  byId("offers-lead").textContent = `${count(rows.length)} offers fit the model and the rules of this deployment, each priced with ${servers(needed)}.${left}`;
  byId("more").hidden = rows.length <= FEW_ROWS;
  byId("more").textContent = showAll ? `Only the ${FEW_ROWS} cheapest` : `All ${count(rows.length)} offers`;
  byId("more").setAttribute("aria-expanded", String(showAll));
}

const WHEN = {
  running: "while a server runs",
  awake: "while a server is up",
  kept: "from create to destroy",
  download: "for what comes in",
  upload: "for what goes out",
};

function showBills({ found, ways }) {
  const needed = found.servers(found.declared);
  const tables = ways.filter((way) => way.cost).map(({ host, cost }) => {
    const estimator = new Estimator(host.at(found.declared, needed));
    const rows = host.offer.rates.flatMap((rate) => {
      const units = estimator.units(host.offer, rate);
      if (units === null) return [];
      const quantity = units.expected;
      const source = link(rate.url, [rate.source, rate.as_of].filter(Boolean).join(" "));
      return [[`${rate.meter}, ${WHEN[rate.bills]}`, `${grouped(quantity.toFixed(2))} ${rate.per}`, `${unitDollars(rate.price)}/${rate.per}`, dollars(Decimal.of(rate.price).times(quantity)), source]];
    });
    const own = Decimal.of(found.terms.maintenance);
    if (own.compare(0) > 0) rows.push(["your own work", null, null, dollars(own), "as you said"]);
    const table = make("table");
    const columns = [{ head: "what", wide: true }, { head: "quantity", n: true }, { head: "price", n: true }, { head: "a month", n: true }, { head: "price of" }];
    fill(table, columns, rows, { caption: `${host.name}: ${offerName(host.offer)}, ${host.offer.terms}`, foot: ["total", "", "", dollars(cost.expected), ""] });
    return make("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": `Bill: ${host.name}` }, table);
  });
  byId("bills").replaceChildren(...tables);
}

function showMonths({ found, api, ways }) {
  const growth = Number(settings.growth);
  const months = sixMonths(found, api, growth);
  const lines = ways.map(({ host }, i) => ({ id: host.id, name: host.name, costs: months.map((month) => month.hosts[i]) }));
  if (api) lines.push({ id: "api", name: api.name, costs: months.map((month) => month.api) });
  const budget = data.spec.budget.monthly_usd === null ? null : Decimal.of(data.spec.budget.monthly_usd);
  spending(months, lines, budget);
  const columns = [{ head: "month" }, { head: "requests", n: true }, ...lines.map(({ name }) => ({ head: name, n: true }))];
  const rows = months.map((month, i) => [String(i + 1), count(month.requests), ...lines.map(({ costs }) => (costs[i] ? dollars(costs[i]) : "not compared"))]);
  const sums = lines.map(({ costs }) => running(costs)[5]);
  const total = months.reduce((sum, month) => sum + month.requests, 0);
  fill(byId("months"), columns, rows, { foot: ["six months", count(total), ...sums.map((sum) => (sum ? dollars(sum) : "not compared"))] });
  const grows = growth ? `Traffic grows by ${growth} % each month` : "Traffic stays the same";
  const limit = budget ? ` The budget is ${dollars(budget)} a month, ${dollars(budget.times(6))} in all. ${overBudget(lines, budget)}` : " No budget is declared.";
  byId("months-lead").textContent = `${grows}; servers are added when the busiest time takes more.${limit}`;
}

function overBudget(lines, budget) {
  const over = lines.filter(({ costs }) => costs.some((cost) => cost === null || budget.less(cost))).map(({ name }) => name);
  if (!over.length) return "Every way keeps within it.";
  return over.length === lines.length ? "No way keeps within it in every month." : `Not within it in every month: ${over.join(", ")}.`;
}

function showAssumed({ plan, found, api }) {
  const changed = (id) => (String(FIRST[id]) === settings[id] ? "" : "changed here");
  const rows = [
    ["Requests", `${count(plan.requests)} a day, ${count(found.declared)} a month`, data.example_use && !changed("requests") ? "an example: the deployment declares none" : changed("requests")],
    ["A request", `${count(plan.input)} prompt tokens, ${count(plan.output)} answer tokens`, changed("input") || changed("output")],
    ["Growth", `${settings.growth} % a month`, changed("growth")],
    ["API to compare with", api ? api.name : "none", api && api.name !== FIRST.api ? "changed here" : ""],
    ["Interruptions", plan.spot ? "acceptable" : "not acceptable", plan.spot === FIRST.spot ? "" : "changed here"],
    ["A server sleeps after", `${count(plan.idle)} s without a request`, changed("idle")],
    ["Servers are kept", `${settings.hours} hours a month`, changed("hours")],
    ["Speed of one server", `${settings.speed} answer tokens a second`, changed("speed") || "measured with Qwen3-4B on an A10, 10 requests at a time, 2026-01-16"],
    ["Busiest time", `${settings.peak} times the average`, changed("peak") || "3 to 5 is usual where people ask during the day"],
    ["Your own work", `${dollars(Decimal.of(settings.maintenance))} a month`, changed("maintenance")],
    ["Speed of one answer", `${data.assumed.tokens_per_s} tokens a second`, "of a server that answers others too"],
    ["A start takes", `${data.assumed.boot_s} s, which are billed`, "download, load and start of the engine"],
    ["Answered together", `up to ${data.slots} requests in the list of offers, ${found.base.slots} where break-even counts`, "the second follows from the two speeds"],
    ["Each new server loads", `${data.assumed.image_gb} GB of image and ${data.assumed.weights_gb} GB of weights`, "counts where traffic is billed"],
    ["Disk", `${data.disk_gb} GB a server`, "hardware.disk_gb"],
    ["Ranges", `${data.traffic.join(" to ")} times the declared requests`, "and the lowest to highest price where it is not fixed"],
    ["A month", `${data.month_hours} hours`, "365 x 24 / 12; before tax, without free credits"],
  ];
  fill(byId("assumed"), [{ head: "what" }, { head: "value", wide: true }, { head: "why", wide: true }], rows);
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

// What no control changes.

function showHead() {
  const { spec } = data;
  const name = spec.model.name.split("/").pop();
  byId("eyebrow").textContent = [data.stack && `Stack ${data.stack}`, `made on ${data.date}`, `vllm-anywhere ${data.version}`].filter(Boolean).join(" · ");
  byId("title").textContent = `What to rent for ${name}`;
  const where = spec.placement.regions.length ? ` in ${spec.placement.regions.map((word) => (word.length < 4 ? word.toUpperCase() : word)).join(", ")}` : "";
  const example = data.example_use ? " The deployment declares no traffic, so the figures start from an example." : "";
  byId("lead").textContent = `An open model behind an OpenAI-compatible address${where}: which server to rent, what it costs, and from when on it costs less than an API.${example}`;
  const age = daysBetween(data.date, new Date().toISOString().slice(0, 10));
  byId("age").hidden = age <= 14;
  byId("age").textContent = `This report is ${duration(age)} old. Prices move: make a new one before you decide.`;
  byId("foot").textContent = `Made by vllm-anywhere ${data.version} on ${data.date}. US dollars, before tax. At the same settings every figure is that of vllm-anywhere compare and breakeven.`;
  byId("speed-hint").textContent = data.bench.length
    ? `Measured: ${data.bench.map((run) => `${run.tokens_per_s.toFixed(0)} (${run.label})`).join(", ")}.`
    : "337.46 was measured with Qwen3-4B on an A10; a benchmark of your own says more.";
}

function showRefused() {
  const places = data.refused.length;
  byId("refused-box").hidden = !places;
  byId("refused-title").textContent = `What will not do, and why (${count(places)})`;
  fill(byId("refused"), [{ head: "platform" }, { head: "GPU" }, { head: "why not", wide: true }], data.refused.map((one) => [one.platform, one.gpu || "none", one.why]));
}

function showFit() {
  const offered = new Set(data.offers.map((offer) => offer.gpu));
  const good = data.gpus.filter((gpu) => gpu.ok && offered.has(gpu.name));
  const bad = data.gpus.filter((gpu) => !gpu.ok);
  const length = data.spec.model.max_len;
  byId("fit-lead").textContent = `The model and the conversations it is having must fit into the GPU's memory. This deployment allows requests of up to ${count(length)} tokens. ${good.length} of the GPUs on offer hold it.`;
  const columns = [{ head: "GPU" }, { head: "memory, GiB", n: true }, { head: "the model, GiB", n: true }, { head: "for conversations, GiB", n: true }, { head: "longest request, tokens", n: true }, { head: `full requests at once`, n: true }, { head: "how sure", wide: true }];
  const rows = good.map((gpu) => [gpu.name, gpu.memory.toFixed(1), gpu.weights.toFixed(1), gpu.cache.toFixed(1), count(gpu.longest), count(gpu.at_once), gpu.extrapolated ? "computed; no start near it was observed" : "computed, and near an observed start"]);
  fill(byId("fit"), columns, rows);
  byId("misfit-box").hidden = !bad.length;
  byId("misfit-title").textContent = `GPUs that do not hold it (${bad.length})`;
  fill(byId("misfit"), [{ head: "GPU" }, { head: "memory, GiB", n: true }, { head: "why", wide: true }, { head: "what would help", wide: true }], bad.map((gpu) => [gpu.name, gpu.memory.toFixed(1), gpu.why, gpu.helps || null]));
}

function showBench() {
  byId("bench-section").hidden = !data.bench.length;
  if (!data.bench.length) return;
  const ms = (value) => (value === null ? null : grouped(value.toFixed(value < 10 ? 1 : 0)));
  const columns = [{ head: "run" }, { head: "hardware, load", wide: true }, { head: "answered", n: true }, { head: "requests/s", n: true }, { head: "tokens/s", n: true }, { head: "first token, ms (p95)", n: true }, { head: "whole answer, ms (p99)", n: true }, { head: "$ for 1M answer tokens", n: true }, { head: "goals" }];
  const rows = data.bench.map((run) => [
    [run.label, make("small", {}, run.day)],
    [run.hardware || run.model, make("small", {}, run.load)],
    `${count(run.requests - run.failed)} of ${count(run.requests)}`,
    run.requests_per_s.toFixed(2),
    grouped(run.tokens_per_s.toFixed(1)),
    [ms(run.ttft_p50) ?? "–", run.ttft_p95 === null ? "" : make("small", {}, ms(run.ttft_p95))],
    [ms(run.whole_p50) ?? "–", run.whole_p99 === null ? "" : make("small", {}, ms(run.whole_p99))],
    run.usd_per_million ? `$${run.usd_per_million}` : null,
    run.decision || "none set",
  ]);
  fill(byId("bench"), columns, rows);
  byId("bench-lead").textContent = "What vllm-anywhere bench found on real servers. The first token is what a reader waits for; p95 and p99 are what one in twenty and one in a hundred wait longer than.";
}

function showSpec() {
  const { model, engine, hardware, placement, scaling, budget } = data.spec;
  const some = (list) => (list.length ? list.join(", ") : "any");
  fill(byId("spec"), [{ head: "setting" }, { head: "value", wide: true }], [
    ["Model", model.name],
    ["Longest request", `${count(model.max_len)} tokens`],
    ["Weights", model.quantization ?? "as published"],
    ["Engine", `vLLM ${engine.version}, ${engine.gpu_memory_utilization * 100} % of the GPU's memory`],
    ["GPUs", `${hardware.gpu_count} x ${some(hardware.gpus)}`],
    ["Places", some(placement.regions)],
    ["Hosts", { secure: "data centres only", any: "any", community: "any, other people's machines included" }[placement.tier] ?? placement.tier],
    ["Data must stay in the EU or EEA", placement.gdpr ? "yes" : "no"],
    ["Servers as configured now", `${scaling.min} to ${scaling.max}`],
    ["Budget", budget.monthly_usd === null ? "none" : `${dollars(Decimal.of(budget.monthly_usd))} a month`],
  ]);
  byId("notes").replaceChildren(...data.notes.map((note) => make("li", {}, note)));
  byId("notes").hidden = !data.notes.length;
}

function showPrices() {
  const byPlatform = new Map();
  for (const offer of data.offers) {
    const found = byPlatform.get(offer.platform) ?? byPlatform.set(offer.platform, new Map()).get(offer.platform);
    for (const rate of offer.rates) (found.get(rate) ?? found.set(rate, new Set()).get(rate)).add(offer.kind === "vm" ? offer.sku : offer.gpu);
  }
  const of = (names) => [...names].slice(0, 3).join(", ") + (names.size > 3 ? ` and ${names.size - 3} more` : "");
  const dated = (day) => (day ? `${day}, ${duration(daysBetween(day, data.date))} before this report` : "no date");
  const columns = [{ head: "what", wide: true }, { head: "price", n: true }, { head: "source" }, { head: "true on", wide: true }, { head: "note", wide: true }];
  const boxes = [...byPlatform].sort().map(([platform, rates]) => {
    const rows = [...rates].map(([rate, names]) => [
      [rate.meter, make("small", {}, of(names))],
      rate.price === null ? NO_PRICE : `${unitDollars(rate.price)}/${rate.per}`,
      rate.url ? make("a", { href: rate.url, rel: "noreferrer", "aria-label": `Source: ${rate.meter}, ${of(names)} on ${platform}` }, rate.source) : rate.source,
      dated(rate.as_of),
      rate.assumption || "",
    ]);
    return priceBox(`${platform} (${count(rates.size)} prices)`, columns, rows);
  });
  const apiRows = data.apis.map((api) => [
    api.name + (api.prompt_up_to ? `, prompts up to ${count(api.prompt_up_to)} tokens` : api.prompt_over ? `, longer prompts` : ""),
    `${unitDollars(api.input_per_m)} / ${unitDollars(api.output_per_m)}`,
    api.url ? make("a", { href: api.url, rel: "noreferrer", "aria-label": `Source: ${api.name}` }, api.source) : api.source,
    dated(api.as_of),
    api.note,
  ]);
  columns[1] = { head: "1M prompt / answer tokens", n: true };
  byId("prices").replaceChildren(...boxes, priceBox(`APIs (${count(data.apis.length)} prices)`, columns, apiRows));
  const days = data.offers.flatMap((offer) => offer.rates.map((rate) => rate.as_of)).filter(Boolean).sort();
  byId("prices-lead").textContent = days.length ? `The oldest of the servers' prices was true on ${days[0]}, ${duration(daysBetween(days[0], data.date))} before this report. A price without a date or source is marked as such, and none is made up.` : "";
}

function priceBox(title, columns, rows) {
  const table = make("table");
  fill(table, columns, rows);
  return make("details", {}, make("summary", {}, title), make("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": title }, table));
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
  () => { document.documentElement.dataset.charts = "ready"; },
  (error) => {
    document.documentElement.dataset.charts = "none";
    console.error(error);
    for (const chart of document.querySelectorAll("figure")) chart.hidden = true;
  },
);
