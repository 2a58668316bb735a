"""The results as a Markdown table and as a picture (plain SVG)."""

import os
import statistics
from xml.sax.saxutils import escape

COLORS = {
    "ringway": "#0b6e99",
    "baseline": "#7fb7cf",
    "haproxy": "#8a8f98",
    "nginx": "#4f9d69",
    "envoy": "#b5579d",
    "no proxy": "#8a8f98",
    "ringway direct": "#7fb7cf",
    "ringway redirect": "#0b6e99",
    "ringway tproxy": "#0a3f57",
    "envoy direct": "#d9a9cd",
    "envoy redirect": "#b5579d",
}
REFERENCE = "haproxy"
RINGWAY, BASELINE = "ringway", "baseline"
#: The title of the column with the ratio of Ringway to the baseline.
TO_BASELINE = "to baseline"
LATENCY = "µs"
RATIO_MAX = 4.0
# In the picture, the column that the other interception columns are compared with.
DIRECT = "ringway direct"
# Pixels: height of a bar, space left of the bars, length of a ratio of one.
BAR, LEFT, SCALE = 13, 380, 150


def figures(results):
    """Rows of (title, unit, {proxy: value}) in the order of the table. Lower values are better."""
    rows = []
    for case in results["cases"].values():
        values = {name: row["cpu_us"] for name, row in case["rows"].items()}
        rows.append((case["title"], f"µs CPU/{case['unit']}", values))
    for rate in results.get("rates", []):
        for key, label in (("p50", "p50"), ("p99", "p99"), ("p99_9", "p99.9")):
            values = {name: row[key] for name, row in rate["rows"].items()}
            protocol = {"h2-rate": "HTTP/2: ", "h3-rate": "HTTP/3: "}.get(rate.get("case"), "")
            rows.append((f"{protocol}{label} at {rate['rate']:.0f} requests/s", LATENCY, values))
    memory = results.get("memory") or {}
    if memory:
        idle = {name: row["idle_rss_mb"] for name, row in memory.items()}
        each = {name: row["per_connection_kb"] for name, row in memory.items()}
        rows.append(("resident memory at idle", "MB", idle))
        rows.append(("memory per idle connection", "KB", each))
    if results.get("memory_tls"):
        each = {name: row["per_connection_kb"] for name, row in results["memory_tls"].items()}
        rows.append(("memory per idle TLS connection", "KB", each))
    for key, how in (("memory_http2_opened", "opened"), ("memory_http2", "one request served")):
        if results.get(key):
            each = {name: row["per_connection_kb"] for name, row in results[key].items()}
            rows.append((f"memory per idle HTTP/2 connection, {how}", "KB", each))
    if results.get("startup_ms"):
        rows.append(("start to first answer", "ms", results["startup_ms"]))
    if results.get("binary"):
        sizes = {
            name: size.get("stripped_mb", size["file_mb"])
            for name, size in results["binary"].items()
        }
        rows.append(("binary, stripped", "MB", sizes))
    return rows


def intercepted(results):
    """The rows for interception, as of `figures`: with a value for each proxy and way to it."""
    rows = []
    if not results.get("intercept"):
        return rows
    for case in results["intercept"]["cases"].values():
        values = {name: row["cpu_us"] for name, row in case["rows"].items() if row["cpu_us"]}
        rows.append((case["title"], f"µs CPU/{case['unit']}", values))
    for rate in results["intercept"]["rates"]:
        for key in ("p50", "p99"):
            values = {name: row[key] for name, row in rate["rows"].items()}
            rows.append((f"{key} at {rate['rate']:.0f} {rate['unit']}s/s: {rate['title']}",
                         LATENCY, values))
    return rows


def binary_of(peer):
    """The path of the measured executable, and of the script that starts it if there is one."""
    executable = peer.get("executable", peer["binary"])
    if executable in (peer["binary"], os.path.realpath(peer["binary"])):
        return f"`{executable}`"
    return f"`{executable}`, started by `{peer['binary']}`"


def to_baseline(values):
    """The ratio of Ringway to its baseline; None if one of them has no value."""
    if not values.get(BASELINE) or RINGWAY not in values:
        return None
    return values[RINGWAY] / values[BASELINE]


def paired(rows):
    """The ratio of Ringway to its baseline in a case: the quartiles over the rounds.

    In a round both run within seconds, so a change of the machine's speed does not change the ratio.
    """
    rounds = [rows.get(name, {}).get("cpu_us_rounds", []) for name in (RINGWAY, BASELINE)]
    pairs = [new / old for new, old in zip(*rounds) if old]
    return statistics.quantiles(pairs, n=4, method="inclusive") if len(pairs) > 1 else None


def baseline_cell(ratio, quartiles=None):
    """The text of a cell: the ratio, or with quartiles their median and the range of the middle half."""
    if quartiles:
        low, median, high = quartiles
        return f"{median:.3f} [{low:.2f}–{high:.2f}]"
    return f"{ratio:.3f}" if ratio else "–"


def reference_of(results):
    names = list(results["peers"])
    if results.get("reference") in names:
        return results["reference"]
    return REFERENCE if REFERENCE in names else (names[0] if names else "")


def markdown(results):
    """The whole report as Markdown."""
    names = list(results["peers"])
    reference = reference_of(results)
    machine = results["machine"]
    with_baseline = RINGWAY in names and BASELINE in names
    lines = [
        f"# Proxies side by side, {results['date']}",
        "",
        f"`{results['command']}`: every proxy has one worker on CPU 0; load and servers are on"
        f" CPU 1; medians of {results['rounds']} interleaved rounds of {results['burst_s']} s."
        f" In brackets the ratio to {reference}; lower is better everywhere."
        " Ratios hold to about ±10 %; absolute figures belong to this machine.",
        "",
        *table_head("", "unit", names + [TO_BASELINE] * with_baseline),
    ]
    noisy = noisy_cells(results["cases"])
    ratios = {case["title"]: paired(case["rows"]) for case in results["cases"].values()}
    for title, unit, values in figures(results):
        cells = []
        for name in names:
            if name not in values:
                cells.append("overloaded" if unit == LATENCY else "absent")
                continue
            mark = "\\*" if (title, name) in noisy else ""
            base = values.get(reference)
            ratio = f" ({values[name] / base:.2f})" if base and name != reference else ""
            cells.append(f"{number(values[name])}{mark}{ratio}")
        if with_baseline:
            cells.append(baseline_cell(to_baseline(values), ratios.get(title)))
        lines.append(f"| {title} | {unit} | {' | '.join(cells)} |")
    if with_baseline:
        lines += ["", f"`{TO_BASELINE}`: Ringway's figure divided by the baseline's. For CPU it is"
                  " the median of the ratios of the rounds; half of these are within the brackets."]
    if noisy:
        lines += ["", "\\* the rounds of this cell lie more than 30 % apart."]
    if results["cases"]:
        lines += ["", "Throughput, limited by the CPU that is full first, often the load's:", ""]
        lines += table_head("a second", names + [TO_BASELINE] * with_baseline)
    for case in results["cases"].values():
        row = case["rows"]
        cells = [number(row[name]["per_s"]) if name in row else "absent" for name in names]
        if with_baseline:
            per_s = {name: row[name]["per_s"] for name in row}
            cells.append(baseline_cell(to_baseline(per_s)))
        lines.append(f"| {case['title']} ({case['unit']}s) | {' | '.join(cells)} |")
    lines += interception_lines(results)
    lines += ["", "Every proxy moves 1 MiB bodies and TCP streams the way it does by default:"
              " Ringway splices large bodies (no copy through user space), HAProxy would"
              " with `option splice-auto`, nginx buffers up to its default sizes.", ""]
    lines += ["## Machine and versions", ""]
    lines += [f"- {key.replace('_', ' ')}: {value}" for key, value in machine.items()]
    lines += [f"- {name}: {peer['version']}, {binary_of(peer)}"
              for name, peer in results["peers"].items()]
    problems = [f"ABSENT {name}: {why}" for name, why in results["absent"].items()]
    problems += results["notes"] + results["failures"]
    if problems:
        lines += ["", "## Notes", ""] + [f"- {problem}" for problem in problems]
    return "\n".join(lines) + "\n"


def table_head(*names_and_columns):
    *first, names = names_and_columns
    heads = [*first, *names]
    return [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]


def interception_lines(results):
    """The part of the report about interception."""
    if not results.get("intercept"):
        return []
    found, names = results["intercept"], list(results["intercept"]["columns"])
    noisy = noisy_cells(found["cases"])
    # Each column of Ringway, with the column of the baseline for the same way to the proxy.
    pairs = [(name, name.replace(RINGWAY, BASELINE)) for name in names if RINGWAY in name]
    pairs = [(new, old) for new, old in pairs if old in names]
    heads = names + [new.replace(RINGWAY, TO_BASELINE + ",") for new, _ in pairs]
    lines = ["", "## Interception", "",
             "Inbound, over a cable between two network namespaces; in brackets the cost of"
             " interception for the same proxy.", "", *table_head("", "unit", heads)]

    def cells(title, values):
        for name in names:
            if not values.get(name):
                yield "–"
                continue
            base = values.get(found["columns"][name])
            mark = "\\*" if (title, name) in noisy else ""
            added = f" ({signed(values[name] - base)})" if base else ""
            yield f"{number(values[name])}{mark}{added}"
        for new, old in pairs:
            both = values.get(new) and values.get(old)
            yield baseline_cell(values[new] / values[old] if both else None)

    for title, unit, values in intercepted(results):
        lines.append(f"| {title} | {unit} | {' | '.join(cells(title, values))} |")
    for lone in found["wakeups"]:
        values = {name: row["wakeups"] for name, row in lone["rows"].items()}
        lines.append(f"| {lone['title']} | times | {' | '.join(cells(lone['title'], values))} |")
    if found["cases"]:
        lines += ["", "Connections and requests, more is better:", "", *table_head("", "in", names)]
    for case in found["cases"].values():
        rows, title = case["rows"], f"{case['title']} ({case['unit']}s)"
        for unit, how_many in (("a CPU second", lambda row: row["cpu_us"] and 1e6 / row["cpu_us"]),
                               ("a second", lambda row: row["per_s"])):
            values = {name: how_many(row) for name, row in rows.items()}
            shown = [number(values[name]) if values.get(name) else "–" for name in names]
            lines.append(f"| {title} | {unit} | {' | '.join(shown)} |")
    return lines


def noisy_cells(cases):
    found = set()
    for case in cases.values():
        for name, row in case["rows"].items():
            if row["cpu_us_max"] > 1.3 * row["cpu_us_min"]:
                found.add((case["title"], name))
    return found


def svg(results):
    """Bars of the ratio to the reference for every figure, with the value beside each bar."""
    parts = [(list(results["peers"]), reference_of(results), figures(results))]
    if results.get("intercept"):
        parts.append((list(results["intercept"]["columns"]), DIRECT, intercepted(results)))
    body, y = [], 0
    for names, reference, rows in parts:
        lines, height = chart(names, reference, rows, results["peers"], y)
        body += lines
        y += height
    width = int(LEFT + RATIO_MAX * SCALE + 150)
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y}"'
        f' viewBox="0 0 {width} {y}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{y}" fill="#ffffff"/>',
        *body,
        "</svg>",
    ]) + "\n"


def chart(names, reference, rows, peers, y_from):
    """The bars of one table, and their height in pixels. The legend has the versions of `peers`."""
    rows = [row for row in rows if row[2].get(reference)]
    names = [name for name in names if any(name in values for _, _, values in rows)]
    if not rows:
        return [], 0
    block = len(names) * BAR + 16
    top = y_from + 74
    height = 74 + len(rows) * block + 40
    out = [f'<text x="16" y="{y_from + 24}" font-size="16" font-weight="bold">Cost relative to'
           f" {reference} (1.0), lower is better</text>"]
    x = 16
    for name in names:
        out.append(f'<rect x="{x}" y="{y_from + 36}" width="12" height="12"'
                   f' fill="{color(name)}"/>')
        version = peers[name]["version"] if name in peers else ""
        label = escape(f"{name} {version}".strip())
        out.append(f'<text x="{x + 17}" y="{y_from + 46}">{label}</text>')
        x += 40 + 7 * len(label)
    for tick in range(int(RATIO_MAX) + 1):
        at = LEFT + tick * SCALE
        stroke = "#555555" if tick == 1 else "#dddddd"
        end = y_from + height
        out.append(f'<line x1="{at}" y1="{top - 8}" x2="{at}" y2="{end - 30}" stroke="{stroke}"/>')
        out.append(f'<text x="{at}" y="{end - 14}" text-anchor="middle">{tick}.0</text>')
    for index, row in enumerate(rows):
        out += bars(names, reference, row, top + index * block)
    return out, height


def bars(names, reference, row, y):
    """The bars of one figure."""
    title, unit, values = row
    middle = y + len(names) * BAR / 2 + 4
    out = [f'<text x="{LEFT - 10}" y="{middle}" text-anchor="end">{escape(title)}</text>']
    for position, name in enumerate(names):
        at = y + position * BAR
        if name not in values:
            why = "overloaded" if unit == LATENCY else "absent"
            out.append(f'<text x="{LEFT + 4}" y="{at + 10}" fill="#777777"'
                       f' font-size="10">{name}: {why}</text>')
            continue
        ratio = values[name] / values[reference]
        length = max(min(ratio, RATIO_MAX) * SCALE, 1)
        more = "" if ratio <= RATIO_MAX else f" ({ratio:.1f} times)"
        if name == RINGWAY and BASELINE in values:
            more += f" ({baseline_cell(to_baseline(values))} {TO_BASELINE})"
        out.append(f'<rect x="{LEFT}" y="{at}" width="{length:.1f}" height="{BAR - 2}"'
                   f' fill="{color(name)}"/>')
        out.append(f'<text x="{LEFT + length + 4:.1f}" y="{at + 10}" font-size="10">'
                   f"{number(values[name])} {escape(unit)}{more}</text>")
    return out


def color(name):
    return COLORS.get(name, "#c08a3e")


def number(value):
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def signed(value):
    return f"{'−' if value < 0 else '+'}{number(abs(value))}"
