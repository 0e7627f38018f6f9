// The parts of the page that no control changes: spec, fit, measurements, prices.

function showHead() {
  const { spec } = data;
  const name = spec.model.name.split("/").pop();
  byId("eyebrow").textContent = [
    data.stack && `Stack ${data.stack}`,
    `made on ${data.date}`,
    `vllm-anywhere ${data.version}`,
  ]
    .filter(Boolean)
    .join(" · ");
  byId("title").textContent = `What to rent for ${name}`;
  const where = spec.placement.regions.length
    ? ` in ${spec.placement.regions.map((word) => (word.length < 4 ? word.toUpperCase() : word)).join(", ")}`
    : "";
  const example = data.example_use ? " The deployment declares no traffic, so the figures start from an example." : "";
  byId("lead").textContent =
    `An open model behind an OpenAI-compatible address${where}: which server to rent, what it costs, ` +
    `and from when on it costs less than an API.${example}`;
  const age = daysBetween(data.date, new Date().toISOString().slice(0, 10));
  byId("age").hidden = age <= 14;
  byId("age").textContent = `This report is ${duration(age)} old. Prices move: make a new one before you decide.`;
  byId("foot").textContent =
    `Made by vllm-anywhere ${data.version} on ${data.date}. US dollars, before tax. ` +
    "At the same settings every figure is that of vllm-anywhere compare and breakeven.";
  byId("speed-hint").textContent = data.bench.length
    ? `Measured: ${data.bench.map((run) => `${run.tokens_per_s.toFixed(0)} (${run.label})`).join(", ")}.`
    : `${data.terms.speed} was measured with Qwen3-4B on an ${data.terms.measured_on}; ` +
      "a benchmark of your own says more.";
}

function showRefused() {
  const places = data.refused.length;
  byId("refused-box").hidden = !places;
  byId("refused-title").textContent = `What will not do, and why (${count(places)})`;
  fill(
    byId("refused"),
    [{ head: "platform" }, { head: "GPU" }, { head: "why not", wide: true }],
    data.refused.map((one) => [one.platform, one.gpu || "none", one.why]),
  );
}

function showFit() {
  const offered = new Set(data.offers.map((offer) => offer.gpu));
  const good = data.gpus.filter((gpu) => gpu.ok && offered.has(gpu.name));
  const bad = data.gpus.filter((gpu) => !gpu.ok);
  const length = data.spec.model.max_len;
  byId("fit-lead").textContent =
    `The model and the conversations it is having must fit into the GPU's memory. ` +
    `This deployment allows requests of up to ${count(length)} tokens. GPUs on offer that hold it: ${good.length}.`;
  const columns = [
    { head: "GPU" },
    { head: "memory, GiB", n: true },
    { head: "the model, GiB", n: true },
    { head: "for conversations, GiB", n: true },
    { head: "longest request, tokens", n: true },
    { head: `full requests at once`, n: true },
    { head: "how sure", wide: true },
  ];
  const rows = good.map((gpu) => [
    gpu.name,
    gpu.memory.toFixed(1),
    gpu.weights.toFixed(1),
    gpu.cache.toFixed(1),
    count(gpu.longest),
    count(gpu.at_once),
    gpu.extrapolated ? "computed; no start near it was observed" : "computed, and near an observed start",
  ]);
  fill(byId("fit"), columns, rows);
  byId("misfit-box").hidden = !bad.length;
  byId("misfit-title").textContent = `GPUs that do not hold it (${bad.length})`;
  fill(
    byId("misfit"),
    [
      { head: "GPU" },
      { head: "memory, GiB", n: true },
      { head: "why", wide: true },
      { head: "what would help", wide: true },
    ],
    bad.map((gpu) => [gpu.name, gpu.memory.toFixed(1), gpu.why, gpu.helps || null]),
  );
}

function showBench() {
  byId("bench-section").hidden = !data.bench.length;
  if (!data.bench.length) return;
  const ms = (value) => (value === null ? null : grouped(value.toFixed(value < 10 ? 1 : 0)));
  const columns = [
    { head: "run" },
    { head: "hardware, load", wide: true },
    { head: "answered", n: true },
    { head: "requests/s", n: true },
    { head: "tokens/s", n: true },
    { head: "first token, ms (p95)", n: true },
    { head: "whole answer, ms (p99)", n: true },
    { head: "$ for 1M answer tokens", n: true },
    { head: "goals" },
  ];
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
  byId("bench-lead").textContent =
    "What vllm-anywhere bench found. The first token is what a reader waits for; " +
    "p95 and p99 are what one in twenty and one in a hundred wait longer than.";
}

function showSpec() {
  const { model, engine, hardware, placement, scaling, budget } = data.spec;
  const some = (list) => (list.length ? list.join(", ") : "any");
  fill(
    byId("spec"),
    [{ head: "setting" }, { head: "value", wide: true }],
    [
      ...(data.stack ? [["Platform as configured now", data.provider]] : []),
      ["Model", model.name],
      ["Longest request", `${count(model.max_len)} tokens`],
      ["Weights", model.quantization ?? "as published"],
      ["Engine", `vLLM ${engine.version}, ${engine.gpu_memory_utilization * 100} % of the GPU's memory`],
      ["GPUs", `${hardware.gpu_count} x ${some(hardware.gpus)}`],
      ["Places", some(placement.regions)],
      [
        "Hosts",
        { secure: "data centres only", any: "any", community: "any, other people's machines included" }[
          placement.tier
        ] ?? placement.tier,
      ],
      ["Data must stay in the EU or EEA", placement.gdpr ? "yes" : "no"],
      ["Servers as configured now", `${scaling.min} to ${scaling.max}`],
      ["Budget", budget.monthly_usd === null ? "none" : `${dollars(Decimal.of(budget.monthly_usd))} a month`],
    ],
  );
  byId("notes").replaceChildren(...data.notes.map((note) => make("li", {}, note)));
  byId("notes").hidden = !data.notes.length;
}

function showPrices() {
  const byPlatform = new Map();
  for (const offer of data.offers) {
    const found = byPlatform.get(offer.platform) ?? byPlatform.set(offer.platform, new Map()).get(offer.platform);
    const vm = [offer.sku, offer.region].filter(Boolean).join(" ");
    const name = `${offer.kind === "vm" ? vm : `${offer.gpu} ${offer.kind}`}${offer.spot ? ", interruptible" : ""}`;
    for (const rate of offer.rates) (found.get(rate) ?? found.set(rate, new Set()).get(rate)).add(name);
  }
  const of = (names) => [...names].slice(0, 3).join("; ") + (names.size > 3 ? ` and ${names.size - 3} more` : "");
  const dated = (day) => (day ? `${day}, ${duration(daysBetween(day, data.date))} before this report` : "no date");
  const columns = [
    { head: "what", wide: true },
    { head: "price", n: true },
    { head: "source" },
    { head: "true on", wide: true },
    { head: "note", wide: true },
  ];
  const boxes = [...byPlatform].sort().map(([platform, rates]) => {
    const rows = [...rates].map(([rate, names]) => [
      [rate.meter, make("small", {}, of(names))],
      rate.price === null ? NO_PRICE : `${unitDollars(rate.price)}/${rate.per}`,
      rate.url
        ? make(
            "a",
            { href: rate.url, rel: "noreferrer", "aria-label": `Source: ${rate.meter}, ${of(names)} on ${platform}` },
            rate.source,
          )
        : rate.source,
      dated(rate.as_of),
      rate.assumption || "",
    ]);
    return priceBox(`${platform} (${count(rates.size)} prices)`, columns, rows);
  });
  const apiRows = data.apis.map((api) => [
    api.name +
      (api.prompt_up_to
        ? `, prompts up to ${count(api.prompt_up_to)} tokens`
        : api.prompt_over
          ? `, longer prompts`
          : ""),
    `${unitDollars(api.input_per_m)} / ${unitDollars(api.output_per_m)}`,
    api.url
      ? make("a", { href: api.url, rel: "noreferrer", "aria-label": `Source: ${api.name}` }, api.source)
      : api.source,
    dated(api.as_of),
    api.note,
  ]);
  columns[1] = { head: "1M prompt / answer tokens", n: true };
  byId("prices").replaceChildren(...boxes, priceBox(`APIs (${count(data.apis.length)} prices)`, columns, apiRows));
  const days = data.offers
    .flatMap((offer) => offer.rates.map((rate) => rate.as_of))
    .filter(Boolean)
    .sort();
  byId("prices-lead").textContent = days.length
    ? `The oldest of the servers' prices was true on ${days[0]}, ${duration(daysBetween(days[0], data.date))} before ` +
      "this report. A price without a date or source is marked as such, and none is made up."
    : "";
}

function priceBox(title, columns, rows) {
  const table = make("table");
  fill(table, columns, rows);
  return make(
    "details",
    {},
    make("summary", {}, title),
    make("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": title }, table),
  );
}
