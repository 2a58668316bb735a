"""The results as a Markdown table and as a picture (plain SVG)."""

from xml.sax.saxutils import escape

COLORS = {
    "ringway": "#0b6e99",
    "baseline": "#7fb7cf",
    "haproxy": "#8a8f98",
    "nginx": "#4f9d69",
    "envoy": "#b5579d",
}
REFERENCE = "haproxy"
LATENCY = "µs"
RATIO_MAX = 4.0


def figures(results):
    """Rows of (title, unit, {proxy: value}), lower is better, in the order they are shown."""
    rows = []
    for case in results["cases"].values():
        values = {name: row["cpu_us"] for name, row in case["rows"].items()}
        rows.append((case["title"], f"µs CPU/{case['unit']}", values))
    for rate in results.get("rates", []):
        for key, label in (("p50", "p50"), ("p99", "p99"), ("p99_9", "p99.9")):
            values = {name: row[key] for name, row in rate["rows"].items()}
            rows.append((f"{label} at {rate['rate']:.0f} requests/s", LATENCY, values))
    memory = results.get("memory") or {}
    if memory:
        idle = {name: row["idle_rss_mb"] for name, row in memory.items()}
        each = {name: row["per_connection_kb"] for name, row in memory.items()}
        rows.append(("resident memory at idle", "MB", idle))
        rows.append(("memory per idle connection", "KB", each))
    if results.get("memory_tls"):
        each = {name: row["per_connection_kb"] for name, row in results["memory_tls"].items()}
        rows.append(("memory per idle TLS connection", "KB", each))
    if results.get("startup_ms"):
        rows.append(("start to first answer", "ms", results["startup_ms"]))
    if results.get("binary"):
        sizes = {
            name: size.get("stripped_mb", size["file_mb"])
            for name, size in results["binary"].items()
        }
        rows.append(("binary, stripped", "MB", sizes))
    return rows


def reference_of(results):
    names = list(results["peers"])
    return REFERENCE if REFERENCE in names else (names[0] if names else "")


def markdown(results):
    """The whole report as Markdown."""
    names = list(results["peers"])
    reference = reference_of(results)
    machine = results["machine"]
    lines = [
        f"# Proxies side by side, {results['date']}",
        "",
        f"`{results['command']}`: every proxy has one worker on CPU 0; load and servers are on"
        f" CPU 1; medians of {results['rounds']} interleaved rounds of {results['burst_s']} s."
        f" In brackets the ratio to {reference}; lower is better everywhere."
        " Ratios hold to about ±10 %; absolute figures belong to this machine.",
        "",
        f"| | unit | {' | '.join(names)} |",
        f"|---|---|{'---|' * len(names)}",
    ]
    noisy = noisy_cells(results)
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
        lines.append(f"| {title} | {unit} | {' | '.join(cells)} |")
    if noisy:
        lines += ["", "\\* the rounds of this cell lie more than 30 % apart."]
    lines += ["", "Throughput, limited by whichever CPU is full first, often the load's:", ""]
    lines += [f"| a second | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for case in results["cases"].values():
        row = case["rows"]
        cells = [number(row[name]["per_s"]) if name in row else "absent" for name in names]
        lines.append(f"| {case['title']} ({case['unit']}s) | {' | '.join(cells)} |")
    lines += ["", "Every proxy moves 1 MiB bodies and TCP streams the way it does by default:"
              " Ringway splices what has proven large (no copy through user space), HAProxy would"
              " with `option splice-auto`, nginx buffers up to its default sizes.", ""]
    lines += ["## Machine and versions", ""]
    lines += [f"- {key.replace('_', ' ')}: {value}" for key, value in machine.items()]
    lines += [f"- {name}: {peer['version']}, `{peer['binary']}`"
              for name, peer in results["peers"].items()]
    problems = [f"ABSENT {name}: {why}" for name, why in results["absent"].items()]
    problems += results["notes"] + results["failures"]
    if problems:
        lines += ["", "## To know", ""] + [f"- {problem}" for problem in problems]
    return "\n".join(lines) + "\n"


def noisy_cells(results):
    found = set()
    for case in results["cases"].values():
        for name, row in case["rows"].items():
            if row["cpu_us_max"] > 1.3 * row["cpu_us_min"]:
                found.add((case["title"], name))
    return found


def svg(results):
    """Bars of the ratio to the reference for every figure, with the value beside each bar."""
    names = list(results["peers"])
    reference = reference_of(results)
    rows = [row for row in figures(results) if row[2].get(reference)]
    bar, gap, left, scale, top = 13, 16, 300, 150, 74
    block = len(names) * bar + gap
    width, height = int(left + RATIO_MAX * scale + 150), top + len(rows) * block + 40
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="16" y="24" font-size="16" font-weight="bold">Cost relative to'
        f" {reference} (1.0), lower is better</text>",
    ]
    x = 16
    for name in names:
        out.append(f'<rect x="{x}" y="36" width="12" height="12" fill="{color(name)}"/>')
        label = escape(f"{name} {results['peers'][name]['version']}")
        out.append(f'<text x="{x + 17}" y="46">{label}</text>')
        x += 40 + 7 * len(label)
    for tick in range(int(RATIO_MAX) + 1):
        at = left + tick * scale
        stroke = "#555555" if tick == 1 else "#dddddd"
        out.append(f'<line x1="{at}" y1="{top - 8}" x2="{at}" y2="{height - 30}"'
                   f' stroke="{stroke}"/>')
        out.append(f'<text x="{at}" y="{height - 14}" text-anchor="middle">{tick}.0</text>')
    for index, (title, unit, values) in enumerate(rows):
        y = top + index * block
        middle = y + len(names) * bar / 2 + 4
        out.append(f'<text x="{left - 10}" y="{middle}" text-anchor="end">{escape(title)}</text>')
        for position, name in enumerate(names):
            at = y + position * bar
            if name not in values:
                why = "overloaded" if unit == LATENCY else "absent"
                out.append(f'<text x="{left + 4}" y="{at + 10}" fill="#777777"'
                           f' font-size="10">{name}: {why}</text>')
                continue
            ratio = values[name] / values[reference]
            length = max(min(ratio, RATIO_MAX) * scale, 1)
            more = "" if ratio <= RATIO_MAX else f" ({ratio:.1f} times)"
            out.append(f'<rect x="{left}" y="{at}" width="{length:.1f}" height="{bar - 2}"'
                       f' fill="{color(name)}"/>')
            out.append(f'<text x="{left + length + 4:.1f}" y="{at + 10}" font-size="10">'
                       f"{number(values[name])} {escape(unit)}{more}</text>")
    out.append("</svg>")
    return "\n".join(out) + "\n"


def color(name):
    return COLORS.get(name, "#c08a3e")


def number(value):
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
