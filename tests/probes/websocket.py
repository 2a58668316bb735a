"""The Autobahn cases for WebSocket, through each proxy to an echo server."""

import glob
import json
import os
import subprocess
import sys

# Megabytes in tiny frames, and compression: these cases take minutes each, and no proxy looks at frames.
LEFT_OUT = ["9.3.1", "9.4.1", "12.2.*", "12.3.*", "12.4.*", "12.5.*", "13.*"]


def run(proxies, tools, directory):
    columns = []
    for proxy in proxies:
        print(f"websocket  {proxy.name}", file=sys.stderr)
        out = os.path.join(directory, f"ws-{proxy.name}")
        command = [os.path.join(tools, "kosoku"), "-p", "4", "-o", out]
        for case in LEFT_OUT:
            command += ["-x", case]
        said = subprocess.run([*command, f"127.0.0.1:{proxy.ws_port}"], capture_output=True, text=True,
                              timeout=600)
        columns.append(outcomes(out, said))
    groups = sorted({case.split(".")[0] for column in columns for case in column}, key=int)
    rows = []
    for group in groups:
        cells = []
        for column in columns:
            results = [result for case, result in column.items() if case.split(".")[0] == group]
            cells.append(f"{sum(results)} of {len(results)}")
        rows.append([f"{group}.*", *cells])
    rows.append(["**all**", *(f"**{sum(c.values())} of {len(c)}**" for c in columns)])
    # A case that fails through all three proxies is a fault of the echo server.
    failed = [case for case, good in columns[0].items()
              if not good and any(column.get(case) for column in columns[1:])]
    problems = [f"WebSocket case {case}" for case in failed]
    if not columns[0]:
        problems.append("no WebSocket case ran")
    return {"title": "WebSocket (Autobahn's cases, by kosoku)",
            "text": f"Passed of run. Left out: {', '.join(LEFT_OUT)}.",
            "rows": rows, "problems": problems}


def outcomes(directory, said):
    """Whether each case passed, by its number."""
    for path in glob.glob(os.path.join(directory, "**", "index.json"), recursive=True):
        with open(path) as file:
            agents = json.load(file)
        good = ("OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED")
        return {case: result["behavior"] in good for agent in agents.values() for case, result in agent.items()}
    print(said.stdout[-2000:], said.stderr[-2000:], file=sys.stderr)
    return {}
