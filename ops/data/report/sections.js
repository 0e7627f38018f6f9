// The parts of the page that follow the controls. `state` is what `counted` made of them.

function answer(state) {
  const { plan, found, api, apiCost, ways } = state;
  const said = verdict(state);
  byId("answer").textContent = said.answer;
  byId("because").textContent = said.because;
  const needed = found.servers(found.declared);
  const costs = usable(state).map((way) => way.cost.expected);
  const lowest = [...costs, ...(api ? [apiCost] : [])].reduce(least, costs[0] ?? apiCost);
  byId("cards").replaceChildren(
    ...ways.map((way) => hostCard(way, api, needed, lowest)),
    ...(api ? [apiCard(api, apiCost, found, lowest)] : []),
  );
  const most = found.most(1);
  byId("fine").textContent =
    `For ${count(plan.requests)} requests a day, each of ${count(plan.input)} prompt and ` +
    `${count(plan.output)} answer tokens. One server answers up to ${count(most)} requests a month with these ` +
    `peaks; you have ${count(found.declared)}, which take ${servers(needed)}. ` +
    "Prices are compared, not answers: a small model of your own may need more tries for the same result.";
}

function card(id, name, isBest, ...children) {
  const tag = isBest ? make("span", { class: "tag" }, "cheapest") : null;
  return make(
    "li",
    { class: `card${isBest ? " best" : ""}`, style: `--hue: var(--${id})`, "data-way": id },
    make("h3", {}, name, tag),
    ...children,
  );
}

function hostCard({ host, cost, crossing }, api, needed, lowest) {
  if (!cost) {
    return card(
      host.id,
      host.name,
      false,
      make("p", {}, `It would take ${servers(needed)}, more than are compared here.`),
    );
  }
  const isBest = lowest && cost.expected.compare(lowest) === 0;
  const varies = cost.low.less(cost.high.minus("0.005"));
  return card(
    host.id,
    host.name,
    isBest,
    make("p", { class: "price" }, dollars(cost.expected), make("small", {}, " a month")),
    varies ? make("p", { class: "range" }, `${dollars(cost.low)} to ${dollars(cost.high)}`) : null,
    make("p", {}, `${needed > 1 ? `${needed} x ` : ""}${offerName(host.offer)}`),
    make("p", { class: "range" }, `${host.what}.`),
    api ? make("p", { class: "pays" }, paysText(host, api, crossing)) : null,
  );
}

function paysText(host, api, crossing) {
  if (!crossing) return `Never less than ${api.name}.`;
  if (!crossing.requests) return `Always less than ${api.name}.`;
  return `Less than ${api.name} from ${crossingText(host, crossing, " requests a month")}.`;
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
    "Each line is the cheapest offer of its kind, with as many servers as its busiest time takes. " +
    "Both axes grow tenfold a step.";
  const heads = [{ head: "requests a month", n: true }, ...lines.map(({ name }) => ({ head: name, n: true }))];
  const rounds = decades(low / 10, high)
    .flatMap((x) => [x, 2 * x, 5 * x])
    .filter((x) => x >= low && x <= high);
  const at = [...new Set([...rounds, found.declared])].sort((a, b) => a - b);
  const text = (cost) => (cost === null ? "not compared" : dollars(cost));
  fill(
    byId("curves-table"),
    heads,
    at.map((x) => ({ best: x === found.declared, cells: [count(x), ...lines.map((line) => text(line.at(x)))] })),
  );
  const hosts = ways.map((way) => way.host);
  const cells = (one) =>
    hosts.map((host) => {
      const crossing = found.crossing(host, one);
      return crossing ? (crossing.requests ? crossingText(host, crossing) : "always") : "never";
    });
  const rowsOf = found.apis.map((one) => ({
    best: one === api,
    cells: [one.name, unitDollars(found.perRequest(one).toString()), ...cells(one)],
  }));
  fill(
    byId("crossings"),
    [
      { head: "costs less than" },
      { head: "a request", n: true },
      ...hosts.map((host) => ({ head: `${host.name}, from requests a month`, n: true })),
    ],
    rowsOf,
  );
  const change = found.switchover;
  if (change) byId("curves-lead").textContent += ` ${switchText(change)}`;
}

function switchText({ requests }) {
  if (requests === null)
    return "A server that sleeps costs less than one that is always on at any traffic that one can answer.";
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
  return [
    dollars(cost.expected),
    varies ? make("small", {}, `${dollars(cost.low)} to ${dollars(cost.high)}`) : null,
  ].filter(Boolean);
}

function priceDay(offer) {
  const days = offer.rates
    .map((rate) => rate.as_of)
    .filter(Boolean)
    .sort();
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
  byId("offers-lead").textContent =
    `${count(rows.length)} offers fit the model and the rules of this deployment, ` +
    `each priced with ${servers(needed)}.${left}`;
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
  const tables = ways
    .filter((way) => way.cost)
    .map(({ host, cost }) => {
      const estimator = new Estimator(host.at(found.declared, needed));
      const rows = host.offer.rates.flatMap((rate) => {
        const units = estimator.units(host.offer, rate);
        if (units === null) return [];
        const quantity = units.expected;
        const source = link(rate.url, [rate.source, rate.as_of].filter(Boolean).join(" "));
        return [
          [
            `${rate.meter}, ${WHEN[rate.bills]}`,
            `${grouped(quantity.toFixed(2))} ${rate.per}`,
            `${unitDollars(rate.price)}/${rate.per}`,
            dollars(Decimal.of(rate.price).times(quantity)),
            source,
          ],
        ];
      });
      const own = Decimal.of(found.terms.maintenance);
      if (own.compare(0) > 0) rows.push(["your own work", null, null, dollars(own), "as you said"]);
      const table = make("table");
      const columns = [
        { head: "what", wide: true },
        { head: "quantity", n: true },
        { head: "price", n: true },
        { head: "a month", n: true },
        { head: "price of" },
      ];
      fill(table, columns, rows, {
        caption: `${host.name}: ${offerName(host.offer)}, ${host.offer.terms}`,
        foot: ["total", "", "", dollars(cost.expected), ""],
      });
      return make("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": `Bill: ${host.name}` }, table);
    });
  byId("bills").replaceChildren(...tables);
}

function showMonths(state) {
  const { found, api, ways } = state;
  const growth = Number(settings.growth);
  const months = sixMonths(found, api, growth);
  const lines = ways.map(({ host }, i) => ({
    id: host.id,
    name: host.name,
    costs: months.map((month) => month.hosts[i]),
  }));
  if (api) lines.push({ id: "api", name: api.name, costs: months.map((month) => month.api) });
  const budget = data.spec.budget.monthly_usd === null ? null : Decimal.of(data.spec.budget.monthly_usd);
  spending(months, lines, budget);
  const columns = [
    { head: "month" },
    { head: "requests", n: true },
    ...lines.map(({ name }) => ({ head: name, n: true })),
  ];
  const rows = months.map((month, i) => [
    String(i + 1),
    count(month.requests),
    ...lines.map(({ costs }) => (costs[i] ? dollars(costs[i]) : "not compared")),
  ]);
  const sums = lines.map(({ costs }) => running(costs)[5]);
  const total = months.reduce((sum, month) => sum + month.requests, 0);
  fill(byId("months"), columns, rows, {
    foot: ["six months", count(total), ...sums.map((sum) => (sum ? dollars(sum) : "not compared"))],
  });
  const grows = growth ? `Traffic grows by ${growth} % each month` : "Traffic stays the same";
  const limit = budget
    ? ` The budget is ${dollars(budget)} a month, ${dollars(budget.times(6))} in all. ${overBudget(lines, budget)}`
    : " No budget is declared.";
  byId("months-lead").textContent =
    `${grows}; servers are added when the busiest time takes more.${limit}${saving(state, lines)}`;
}

// What the cheapest server of one's own saves in six months against the API, or costs more.
function saving(state, lines) {
  const totals = new Map(lines.map(({ id, costs }) => [id, running(costs)[5]]));
  const own = usable(state).filter(({ host }) => totals.get(host.id));
  if (!state.api || !own.length) return "";
  const { host } = own.reduce((a, b) => (totals.get(b.host.id).less(totals.get(a.host.id)) ? b : a));
  const saved = totals.get("api").minus(totals.get(host.id));
  const size = dollars(saved.less(0) ? ZERO.minus(saved) : saved);
  const verb = saved.less(0) ? "costs" : "saves";
  const than = saved.less(0) ? "more than" : "against";
  const name = `the cheapest server of your own (${WAYS[host.id]})`;
  return ` Over six months ${name} ${verb} ${size} ${than} ${state.api.name}.`;
}

const WAYS = { on: "always on", sleeps: "sleeping when idle", spot: "interruptible" };

function overBudget(lines, budget) {
  const over = lines
    .filter(({ costs }) => costs.some((cost) => cost === null || budget.less(cost)))
    .map(({ name }) => name);
  if (!over.length) return "Every way keeps within it.";
  return over.length === lines.length
    ? "No way keeps within it in every month."
    : `Not within it in every month: ${over.join(", ")}.`;
}

function showAssumed({ plan, found, api }) {
  const changed = (id) => (String(FIRST[id]) === settings[id] ? "" : "changed here");
  const rows = [
    [
      "Requests",
      `${count(plan.requests)} a day, ${count(found.declared)} a month`,
      data.example_use && !changed("requests") ? "an example: the deployment declares none" : changed("requests"),
    ],
    [
      "A request",
      `${count(plan.input)} prompt tokens, ${count(plan.output)} answer tokens`,
      changed("input") || changed("output"),
    ],
    ["Growth", `${settings.growth} % a month`, changed("growth")],
    ["API to compare with", api ? api.name : "none", api && api.name !== FIRST.api ? "changed here" : ""],
    ["Interruptions", plan.spot ? "acceptable" : "not acceptable", plan.spot === FIRST.spot ? "" : "changed here"],
    ["A server sleeps after", `${count(plan.idle)} s without a request`, changed("idle")],
    ["Servers are kept", `${settings.hours} hours a month`, changed("hours")],
    [
      "Speed of one server",
      `${settings.speed} answer tokens a second`,
      changed("speed") || "measured with Qwen3-4B on an A10, 10 requests at a time, 2026-01-16",
    ],
    [
      "Busiest time",
      `${settings.peak} times the average`,
      changed("peak") || "3 to 5 is usual where people ask during the day",
    ],
    ["Your own work", `${dollars(Decimal.of(settings.maintenance))} a month`, changed("maintenance")],
    ["Speed of one answer", `${data.assumed.tokens_per_s} tokens a second`, "of a server that answers others too"],
    ["A start takes", `${data.assumed.boot_s} s, which are billed`, "download, load and start of the engine"],
    [
      "Answered together",
      `up to ${data.slots} requests in the list of offers, ${found.base.slots} where break-even counts`,
      "the second follows from the two speeds",
    ],
    [
      "Each new server loads",
      `${data.assumed.image_gb} GB of image and ${data.assumed.weights_gb} GB of weights`,
      "counts where traffic is billed",
    ],
    ["Disk", `${data.disk_gb} GB a server`, "hardware.disk_gb"],
    [
      "Ranges",
      `${data.traffic.join(" to ")} times the declared requests`,
      "and the lowest to highest price where it is not fixed",
    ],
    ["A month", `${data.month_hours} hours`, "365 x 24 / 12; before tax, without free credits"],
  ];
  fill(byId("assumed"), [{ head: "what" }, { head: "value", wide: true }, { head: "why", wide: true }], rows);
}
