"""Writes what was measured: JSON, a Markdown table and a picture."""

import json

COLOURS = {"ringway": "#0b7285", "haproxy": "#868e96", "nginx": "#adb5bd", "envoy": "#ced4da"}


def write(results, output):
    """OUTPUT.json, OUTPUT.md and OUTPUT.svg."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    table = markdown(results)
    output.with_suffix(".md").write_text(table)
    output.with_suffix(".svg").write_text(picture(results))
    print("\n" + table + f"\nwritten: {output}.json .md .svg")


def proxies_of(results):
    return list(results["machine"]["versions"])


def markdown(results):
    machine, names = results["machine"], proxies_of(results)
    lines = [f"CPU µs per request (TCP bulk: per MB); in brackets the ratio to HAProxy. Medians of {results['rounds']} interleaved rounds,",
             f"{machine['date']}, Linux {machine['kernel']}, {machine['cpus']} CPUs, {machine['congestion_control']}. " + "; ".join(machine["versions"].values()) + ".", "",
             "| case | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for case, values in results["cases"].items():
        base = values.get("haproxy", {}).get("cpu_us")
        cells = [cell(values.get(name), base) for name in names]
        lines.append(f"| {case} | " + " | ".join(cells) + " |")
    rows = {"resident at idle, KB": "idle_kb", "more per idle connection, KB": "per_connection_kb",
            "start to first connection, ms": "start_ms", "binary, KB": "binary_kb"}
    for title, key in rows.items():
        cells = [str(results["memory"].get(name, {}).get(key, "-")) for name in names]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    if results["latency"]:
        for key in ("p50_us", "p99_us", "p99.9_us"):
            cells = [str(results["latency"].get(name, {}).get(key, "-")) for name in names]
            lines.append(f"| {key} at {results['latency']['requests_per_second']}/s | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def cell(value, base):
    if not value:
        return "-"
    ratio = f" ({value['cpu_us'] / base:.2f})" if base else ""
    return f"{value['cpu_us']}{ratio}"


def picture(results):
    """Bars of the ratio to HAProxy, a group for each case."""
    names = proxies_of(results)
    cases = [(case, values) for case, values in results["cases"].items() if values.get("haproxy")]
    bar, gap, left, scale, limit = 14, 14, 120, 220, 3.0
    height = 50 + len(cases) * (len(names) * bar + gap)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + int(limit * scale) + 70}" height="{height}" font-family="sans-serif" font-size="11">',
           '<rect width="100%" height="100%" fill="white"/>',
           '<text x="10" y="18" font-size="13">CPU per request, relative to HAProxy (less is better)</text>']
    y = 36
    for case, values in cases:
        base = values["haproxy"]["cpu_us"]
        out.append(f'<text x="10" y="{y + bar * len(names) / 2 + 4}">{case}</text>')
        for name in names:
            if name in values:
                ratio = values[name]["cpu_us"] / base
                out.append(f'<rect x="{left}" y="{y}" width="{min(ratio, limit) * scale:.0f}" height="{bar - 2}" fill="{COLOURS[name]}"/>')
                out.append(f'<text x="{left + min(ratio, limit) * scale + 4:.0f}" y="{y + 10}">{name} {ratio:.2f}</text>')
            y += bar
        y += gap
    x = left + scale
    out.append(f'<line x1="{x}" y1="28" x2="{x}" y2="{height - 10}" stroke="#c92a2a" stroke-dasharray="3"/>')
    return "\n".join([*out, "</svg>"]) + "\n"
