// What offers cost and where they break even: `serving/cost.py` and `serving/breakeven.py`, step by step.
//
// A plan is what the page's controls say: {requests, input, output, idle, min, max, hours, slots, traffic}, with
// `requests` a day and `slots` the requests that a server answers at once.

for (const offer of data.offers) offer.rates = offer.rates.map((index) => data.rates[index]);

const span = (low, expected, high) => ({ low, expected, high });
const exactly = (value) => span(value, value, value);
const ends = ["low", "expected", "high"];
const spanned = (make) => span(...ends.map(make));

function spanTimes(one, other) {
  return spanned((end) => one[end].times(other[end]));
}

function perHour(rate, disk) {
  if (rate.unit === "Seconds") return Decimal.of(3600).times(rate.quantity ?? 1);
  if (rate.unit === "GB-Months") return Decimal.of(rate.quantity ?? disk).over(rate.month_hours);
  return Decimal.of(rate.quantity ?? 1);
}

function sustainedHours(hours) {
  const quarter = Decimal.of(data.month_hours).over(4);
  let billed = ZERO;
  for (const [index, share] of ["1", "0.8", "0.6", "0.4"].entries()) {
    const inIt = most(ZERO, least(quarter, hours.minus(quarter.times(index))));
    billed = billed.plus(Decimal.of(share).times(inIt));
  }
  return billed;
}

class Estimator {
  constructor(plan) {
    this.plan = plan;
    this.assumed = data.assumed;
    this.hours = Decimal.of(plan.hours);
  }

  // US dollars a month: low, expected and high. A price that isn't known makes it null.
  totals(offer) {
    let sum = exactly(ZERO);
    for (const rate of offer.rates) {
      const units = this.units(offer, rate);
      if (units === null) continue;
      if (rate.price === null) return null;
      const price = priceSpan(rate);
      sum = spanned((end) => sum[end].plus(price[end].times(units[end])));
    }
    return sum;
  }

  // Units of a rate that a month takes, after discounts; null when it takes none at all.
  units(offer, rate) {
    const parts = this.parts(offer.scales, rate);
    if (!parts.length) return null;
    const sum = parts.reduce((all, part) => spanned((end) => all[end].plus(part[end])), exactly(ZERO));
    return spanTimes(sum, exactly(this.net(offer.spot, rate)));
  }

  parts(scales, rate) {
    const { plan, assumed, hours } = this;
    const each = perHour(rate, data.disk_gb);
    const servers = scales ? plan.max : Math.max(1, plan.min);
    const moves = rate.bills === "download" || rate.bills === "upload";
    if (rate.bills === "stopped") return [];
    if (moves && rate.quantity !== null) return [exactly(Decimal.of(rate.quantity))];
    if (rate.bills === "download") {
      const size = Decimal.of(assumed.image_gb).plus(assumed.weights_gb);
      const pulled = exactly(Decimal.of(assumed.creates).times(servers).times(size));
      return [pulled, this.traffic(plan.input, assumed.bytes_per_input_token)];
    }
    if (rate.bills === "upload") return [this.traffic(plan.output, assumed.bytes_per_output_token)];
    if (rate.bills === "awake" && scales) {
      const parts = [];
      if (plan.min > 0) parts.push(exactly(hours.times(plan.min).times(each)));
      if (plan.max > plan.min) {
        parts.push(spanned((end) => this.scaledSeconds[end].times(each).over(3600)));
      }
      return parts;
    }
    const shared = scales && rate.bills === "kept";
    return [exactly(hours.times(shared ? 1 : Math.max(1, plan.min)).times(each))];
  }

  // GB a month of requests with so many tokens of so many bytes, one way.
  traffic(tokens, size) {
    const { plan, hours } = this;
    const gb = Decimal.of(tokens).times(size).over(1e9);
    const moved = Decimal.of(plan.requests).times(hours).over(24).times(gb);
    return span(moved.times(plan.traffic[0]), moved, moved.times(plan.traffic[1]));
  }

  net(spot, rate) {
    if (rate.sustained_use && Decimal.of(rate.discount).whole === 0n && !spot) {
      const hours = least(this.hours, Decimal.of(data.month_hours));
      return sustainedHours(hours).over(hours);
    }
    return ONE.minus(rate.discount);
  }

  // Worker-seconds in the month beyond the workers that are always up.
  get scaledSeconds() {
    if (!this.seconds) {
      const up = this.awakeAt.map(({ workers, always }) => workerSeconds(workers - always, this.hours.toNumber()));
      this.seconds = span(least(up[0], up[1]), up[1], most(up[1], up[2]));
    }
    return this.seconds;
  }

  // The workers at low, declared and high traffic.
  get awakeAt() {
    const { plan, assumed } = this;
    const load = {
      rate: plan.requests / 86400,
      service: Decimal.of(plan.output).over(assumed.tokens_per_s).toNumber(),
      idle: plan.idle,
      boot: Number(assumed.boot_s),
      slots: plan.slots,
      most: plan.max,
      always: plan.min,
    };
    const [less, more] = plan.traffic.map(Number);
    return [awake({ ...load, rate: load.rate * less }), awake(load), awake({ ...load, rate: load.rate * more })];
  }
}

function priceSpan(rate) {
  const price = Decimal.of(rate.price);
  const low = rate.lowest === null ? price : least(Decimal.of(rate.lowest), price);
  const high = rate.highest === null ? price : most(Decimal.of(rate.highest), price);
  return span(low, price, high);
}

// Every offer at a plan, cheapest first: [{offer, cost}]; an unknown price comes last.
function compare(plan, offers = data.offers) {
  const estimator = new Estimator(plan);
  const priced = offers.map((offer) => ({ offer, cost: estimator.totals(offer) }));
  const value = ({ cost }) => (cost ? cost.expected : null);
  return priced.sort((a, b) => {
    if (!value(a) || !value(b)) return (value(a) ? 0 : 1) - (value(b) ? 0 : 1);
    return value(a).compare(value(b)) || a.offer.order - b.offer.order;
  });
}

// `terms`: {speed, peak, maintenance, max_servers}; the rest of what a break-even asks is in the plan.
class Breakeven {
  constructor(plan, terms) {
    this.plan = plan;
    this.terms = terms;
    this.seconds = Decimal.of(plan.hours).times(3600);
    const together = Decimal.of(terms.speed).over(data.assumed.tokens_per_s).floor();
    const slots = Math.min(Math.max(1, Number(together)), data.max_num_seqs);
    this.base = { ...plan, slots, traffic: ["1", "1"] };
    this.declared = Number(Decimal.of(plan.requests).times(plan.hours).over(24).round());
    this.hosts = data.styles.map((style) => this.host(style)).filter(Boolean);
  }

  // The cheapest offer of a style, with what it costs.
  host(style) {
    const wanted = data.offers.filter((offer) => offer.scales === style.scales && offer.spot === style.spot);
    const [first] = compare({ ...this.base, min: style.scales ? 0 : 1, max: 1 }, wanted);
    if (!first || !first.cost) return null;
    const costs = new Map();
    const at = (requests, servers, traffic = ["1", "1"]) => {
      const perDay = Number(Decimal.of(requests).times(24).over(this.plan.hours).round());
      return { ...this.base, requests: perDay, min: style.scales ? 0 : servers, max: servers, traffic };
    };
    const range = (requests, servers, traffic) => {
      const total = new Estimator(at(requests, servers, traffic)).totals(first.offer);
      return spanned((end) => total[end].plus(this.terms.maintenance));
    };
    const cost = (requests, servers) => {
      const key = `${requests} ${servers}`;
      if (!costs.has(key)) costs.set(key, range(requests, servers).expected);
      return costs.get(key);
    };
    return { ...style, offer: first.offer, at, cost, range };
  }

  servers(requests) {
    const mean = Decimal.of(requests).times(this.plan.output).over(this.seconds);
    return Math.max(1, Number(mean.times(this.terms.peak).over(this.terms.speed).ceiling()));
  }

  // Requests a month that so many servers answer, peaks included.
  most(servers) {
    const tokens = Decimal.of(servers).times(this.terms.speed).times(this.seconds);
    return Number(tokens.over(this.plan.output).over(this.terms.peak).floor());
  }

  // US dollars a month; null when it takes too many servers.
  monthly(host, requests) {
    const servers = this.servers(requests);
    return servers <= this.terms.max_servers ? host.cost(requests, servers) : null;
  }

  // The same with its range of traffic and price.
  range(host, requests) {
    const servers = this.servers(requests);
    return servers <= this.terms.max_servers ? host.range(requests, servers, data.traffic) : null;
  }

  get apis() {
    return data.apis.filter((api) => {
      const counted = Decimal.of(this.plan.input).times(api.token_factor);
      const above = counted.compare(api.prompt_over) > 0;
      return above && (api.prompt_up_to === null || counted.compare(api.prompt_up_to) <= 0);
    });
  }

  perRequest(api) {
    const prompt = Decimal.of(this.plan.input).times(api.input_per_m);
    const answer = Decimal.of(this.plan.output).times(api.output_per_m);
    return prompt.plus(answer).times(api.token_factor).over(1e6);
  }

  apiMonthly(api, requests) {
    return this.perRequest(api).times(requests);
  }

  // Where hosting begins to cost less than the API: {requests, servers, monthly}; null when it never does.
  crossing(host, api) {
    const each = this.perRequest(api);
    if (each.whole === 0n) return null;
    const paying = (requests, servers) => Number(host.cost(requests, servers).over(each).floor());
    for (let servers = 1; servers <= this.terms.max_servers; servers += 1) {
      const fewest = this.most(servers - 1);
      let requests = this.most(servers);
      let pays = paying(requests, servers);
      if (pays >= requests) continue;
      while (fewest < pays && pays < requests) {
        requests = pays;
        pays = paying(requests, servers);
      }
      const reached = Math.max(Math.min(pays, requests), fewest);
      return { requests: reached, servers, monthly: each.times(reached) };
    }
    return null;
  }

  // Requests a month from which a server that is always on costs less than one that sleeps; null when never.
  get switchover() {
    const steady = this.hosts.find((host) => !host.scales && !host.spot);
    const sleepy = this.hosts.find((host) => host.scales && !host.spot);
    if (!steady || !sleepy) return null;
    const own = this.terms.maintenance;
    const asleep = sleepy.cost(0, 1).minus(own);
    const up = this.alwaysUp(sleepy);
    const on = this.alwaysUp(steady);
    let share;
    if (up.compare(asleep) <= 0) share = on.less(asleep) ? ZERO : ONE;
    else share = most(ZERO, on.minus(asleep).over(up.minus(asleep)));
    if (share.compare(1) >= 0) return { share, requests: null };
    const service = Decimal.of(this.plan.output).over(data.assumed.tokens_per_s).toNumber();
    const rate = alwaysOnRate(service, this.plan.idle, Number(data.assumed.boot_s), share.toNumber());
    return { share, requests: Math.round(rate * this.seconds.toNumber()) };
  }

  // US dollars a month of one server that never sleeps.
  alwaysUp(host) {
    return new Estimator({ ...this.base, requests: 0, min: 1, max: 1 }).totals(host.offer).expected;
  }
}

// Six months that grow by so many per cent each: [{requests, api, hosts: [cost or null]}], cents as billed.
function sixMonths(found, api, growth) {
  const months = [];
  for (let month = 0; month < 6; month += 1) {
    const grown = BigInt(found.declared) * BigInt(100 + growth) ** BigInt(month);
    const requests = Number(divided(grown, 100n ** BigInt(month), halfEven));
    const cents = (amount) => (amount === null ? null : amount.quantize(2));
    months.push({
      requests,
      api: api ? cents(found.apiMonthly(api, requests)) : null,
      hosts: found.hosts.map((host) => cents(found.monthly(host, requests))),
    });
  }
  return months;
}
