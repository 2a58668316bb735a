"""slowhttptest: many clients that send or read as slowly as they can."""

import re
import subprocess
import sys

import peers

SECONDS = 25
CONNECTIONS = 1000
MODES = {
    "slow head (Slowloris)": ["-H", "-i", "3", "-x", "24"],
    "slow body": ["-B", "-i", "3", "-s", "8192", "-x", "10"],
    "slow read": ["-X", "-w", "1", "-y", "4", "-n", "3", "-z", "4", "-k", "3"],
}


def run(proxies, directory):
    tool = peers.program("slowhttptest")
    rows, problems = [], []
    for mode, arguments in MODES.items():
        cells = []
        for proxy in proxies:
            print(f"slow  {mode}  {proxy.name}", file=sys.stderr)
            path = "/bytes/100000" if "-X" in arguments else "/"
            command = [tool, *arguments, "-c", str(CONNECTIONS), "-r", "500", "-l", str(SECONDS), "-p", "2",
                       "-u", f"http://127.0.0.1:{proxy.port}{path}"]
            said = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS * 4, cwd=directory)
            text = re.sub(r"\x1b\[[0-9;]*m", "", said.stdout)
            available = re.findall(r"service available:\s*(YES|NO)", text)
            refused = available.count("NO")
            verdict = "available" if available and not refused else f"away {refused} of {len(available)} times"
            cells.append(verdict)
            if proxy.name == "ringway" and (refused or not available):
                problems.append(f"{mode}: {verdict}")
        rows.append([mode, *cells])
    return {"title": "Slow attacks (slowhttptest)",
            "text": f"{CONNECTIONS} connections for {SECONDS} s; *available* when every probe of the tool got "
                    "its answer within 2 s meanwhile.",
            "rows": rows, "problems": problems}
