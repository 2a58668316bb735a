// Opens the dashboard in headless Chromium: node page.js URL [DIRECTORY FOR PICTURES]
"use strict";
const fs = require("fs");
const puppeteer = require("puppeteer-core");

const FORMS = [["light", 1280, 1000, "light"], ["dark", 1280, 1000, "dark"], ["phone", 390, 844, "light"]];
let faults = 0;

function check(is_fine, what) {
  if (is_fine) return;
  faults += 1;
  console.log(`FAULT: ${what}`);
}

async function look(browser, url, pictures, [form, width, height, scheme]) {
  const page = await browser.newPage();
  // A proxy without the pages of single requests answers 404 to them.
  const has_requests = (await fetch(url + "requests")).status === 200;
  const is_expected = message => !has_requests && message.location().url.includes("/requests");
  page.on("console", message =>
    check(message.type() !== "error" || is_expected(message), `${form}: console: ${message.text()}`));
  page.on("pageerror", error => check(false, `${form}: ${error.message}`));
  page.on("request", request => check(request.url().startsWith(url) || request.url().startsWith("data:"),
    `${form}: it loads ${request.url()}`));
  await page.setViewport({ width, height });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  await page.goto(url);
  await page.waitForSelector("#graph .edge.bad");
  const text = id => page.$eval(id, element => element.innerText);
  check((await text("#services")).includes("shop"), `${form}: the service shop`);
  check((await text("#endpoints")).includes("ejected"), `${form}: the ejected endpoint`);
  check((await text("#certificates")).includes("spiffe://cluster.local/ns/demo/sa/gate"), `${form}: the certificate`);
  check((await page.$$("#graph .edge")).length >= 3, `${form}: the edges of the graph`);
  await page.waitForSelector("#mesh-graph .edge.good");
  const mesh = await page.$eval("#mesh-graph", element => element.textContent);
  for (const part of ["gate", "shop", "pages", "proxy, ready", "is away", pictures ? "billing" : "<img src=x"]) {
    check(mesh.includes(part), `${form}: ${part} in the mesh: ${mesh}`);
  }
  check((await text("#mesh")).includes("gate\tshop"), `${form}: the traffic from gate to shop`);
  // The keyboard reaches the filter and sorts a table.
  await page.focus("#filter");
  await page.keyboard.type("sto");
  check(!(await text("#services")).includes("shop"), `${form}: the filter`);
  await page.$eval("#services th button", button => button.focus());
  await page.keyboard.press("Enter");
  check(await page.$("#services th[aria-sort]"), `${form}: a sorted column`);
  check(await page.evaluate(() => document.activeElement.dataset.sort === "services0"), `${form}: the focus stays`);
  await page.focus("#filter");
  for (let letter = 0; letter < 3; letter += 1) await page.keyboard.press("Backspace");
  // Live requests. Their texts stay texts.
  if (has_requests) {
    await page.$eval("#tap-start", button => button.click());
    await page.waitForFunction(() => document.querySelector("#tap table"));
    await page.$eval("#tap-start", button => button.click());
    await page.waitForFunction(() => document.querySelector("#tap-state").innerText === "Stopped.");
    check((await text("#tap")).includes("onerror"), `${form}: the text of a request`);
    await page.waitForFunction(() => document.querySelector("#failures table"));
    check((await text("#failures")).includes("UF"), `${form}: the reason of a failure`);
  }
  check(!(await page.evaluate(() => window.broken || document.images.length)), `${form}: HTML of a text`);
  if (pictures) {
    await page.evaluate(() => {
      document.activeElement.blur();
      scrollTo(0, 0);
    });
    await page.screenshot({ path: `${pictures}/dashboard-${form}.png` });
  }
  const session = await page.createCDPSession();
  await session.send("Page.setBypassCSP", { enabled: true });
  await page.evaluate(fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8"));
  const found = await page.evaluate(() => axe.run());
  for (const { impact, id, nodes } of found.violations) {
    check(false, `${form}: axe-core: ${impact} ${id}: ${nodes[0].html} ${nodes[0].failureSummary}`);
  }
  console.log(`${form}: ${found.passes.length} rules of axe-core hold, ${found.violations.length} do not`);
  await page.close();
}

async function main() {
  const [url, pictures] = process.argv.slice(2);
  const args = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"];
  const executablePath = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find(fs.existsSync);
  const browser = await puppeteer.launch({ executablePath, headless: true, args });
  try {
    for (const form of FORMS) await look(browser, url, pictures, form);
  } finally {
    await browser.close();
  }
  console.log(faults ? `${faults} faults` : "the dashboard is fine");
  process.exitCode = faults ? 1 : 0;
}

main().catch(error => {
  console.log(error);
  process.exitCode = 1;
});
